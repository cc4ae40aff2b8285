"""Make small DICOM files in every transfer syntax that something here can write."""

import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import gdcm  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

MR, ENHANCED_MR, CAPTURE = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("4", "4.1", "7"))
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PLAIN = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
"""Implicit and explicit little-endian, explicit big-endian."""
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
COMPRESSED = {
    "JPEGBaselineProcess1": "1.2.840.10008.1.2.4.50",
    "JPEGExtendedProcess2_4": "1.2.840.10008.1.2.4.51",
    "JPEGLosslessProcess14": "1.2.840.10008.1.2.4.57",
    "JPEGLosslessProcess14_1": "1.2.840.10008.1.2.4.70",
    "JPEGLSLossless": "1.2.840.10008.1.2.4.80",
    "JPEGLSNearLossless": "1.2.840.10008.1.2.4.81",
    "JPEG2000Lossless": "1.2.840.10008.1.2.4.90",
    "JPEG2000": "1.2.840.10008.1.2.4.91",
    "RLELossless": RLE,
}
"""The names by which GDCM knows what it can write."""


def dataset(values: NDArray[np.generic], **attributes: object) -> Dataset:
    """Return a data set of (rows, columns) or (frames, rows, columns) integers or floats.

    `attributes` are set last, by keyword; None removes one.
    """
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = MR, "1.2.3.4"
    made.SeriesInstanceUID, made.PatientID, made.Modality = "1.2.3", "P-0815", "MR"
    made.Rows, made.Columns = values.shape[-2:]
    if values.ndim > 2:
        made.NumberOfFrames = len(values)
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * values.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.ImageOrientationPatient, made.ImagePositionPatient = list(AXIAL), [0.0, 0.0, 0.0]
    made.PixelSpacing = [0.5, 0.5]
    if values.dtype.kind == "f":
        name = "FloatPixelData" if values.dtype.itemsize == 4 else "DoubleFloatPixelData"
        setattr(made, name, values.tobytes())
    else:
        made.PixelData = values.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def written(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return the file of a data set in a transfer syntax without compression of the pixels."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.file_meta.MediaStorageSOPClassUID = UID(made.get("SOPClassUID", MR))
    made.file_meta.MediaStorageSOPInstanceUID = UID(made.get("SOPInstanceUID") or "1.2.3.4")
    if syntax == PLAIN[2] and "PixelData" in made and made.BitsAllocated == 16:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(data, made, enforce_file_format=True)
    return data.getvalue()


def dicom(values: NDArray[np.generic], syntax: str = PLAIN[1], **attributes: object) -> bytes:
    """Return a file of `values`; see `dataset`."""
    return written(dataset(values, **attributes), syntax)


def compressed(data: bytes, name: str) -> bytes:
    """Compress the pixels of a file as GDCM does, by its name of the transfer syntax."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder) / "source"), str(Path(folder) / "target")
        Path(source).write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(source)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
        change.SetInput(reader.GetImage())
        assert change.Change(), name
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(target)
        assert writer.Write()
        return Path(target).read_bytes()


def enhanced(
    values: NDArray[np.generic], places: Sequence[Sequence[float]], **attributes: object
) -> Dataset:
    """Return an enhanced multi-frame data set whose frames lie at `places`, all of them axial."""
    made = dataset(values, SOPClassUID=ENHANCED_MR, ImageOrientationPatient=None, **attributes)
    del made.ImagePositionPatient, made.PixelSpacing
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing = [0.75, 0.75]
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelMeasuresSequence = Items([measures])
    made.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for place in places:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = list(place)
        frame.PlanePositionSequence = Items([position])
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Items(frames)
    return made
