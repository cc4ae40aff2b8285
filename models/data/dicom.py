"""Read DICOM files that a stranger made: single frames and enhanced multi-frame images.

Nothing of the file but its pixels, geometry and two keyed hashes is returned, and no error shows a
value of it. A deflated data set is refused unread: pydicom inflates it without a bound, whatever it
is told to stop at (a file of 0.6 MB takes 1.2 GB).
"""

import io
import logging
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag
from pydicom.uid import UID, JPEGExtended12Bit

from models.data import burned_in, deidentify
from models.data.raw_slices import LARGEST, OBLIQUE_DEGREES, Facing, RawSlice, Values, facing
from models.data.rejection import Quarantine, Rejection

PREAMBLE_BYTES = 128
MAGIC = b"DICM"
_PROGRAMS = (b"MZ", b"\x7fELF", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa", b"#!")
_DEFLATED = frozenset(
    {
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
        "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    }
)
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as Pillow makes grey of colour."""
_IDENTIFYING = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientBirthDate", "AccessionNumber", "StudyID", "PatientMotherBirthName"),
)
_TELLING = 4
"""Characters of an identifier that are recognised inside a longer word."""
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_BROKEN = (
    *(InvalidDicomError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError),
    *(OSError, ArithmeticError, NotImplementedError, RuntimeError, struct.error, AssertionError),
    BytesLengthException,
)


@dataclass(frozen=True)
class DicomImage:
    """What is kept of one file."""

    slices: tuple[RawSlice, ...]
    remarks: tuple[str, ...]
    actions: Counter[str]
    has_personal_label: bool | None = None
    """The label that was meant for it is the patient's name or number; None if nobody can say."""


def is_dicom(data: bytes) -> bool:
    """Tell whether the file says that it is DICOM."""
    return data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MAGIC)] == MAGIC


def read(data: bytes, key: bytes, max_pixels: int, label: str | None = None) -> DicomImage:
    """Read one file; `max_pixels` bounds rows times columns times frames.

    `label` is the name of the folder that holds it, which may be the patient's.

    Raises:
        Quarantine: when it may show who the patient is.
        Rejection: when it is not a usable image.
    """
    if data.startswith(_PROGRAMS):
        raise Rejection("a program hides in the preamble of the DICOM file")
    with _strict():
        try:
            return _read(data, key, max_pixels, label)
        except MemoryError as error:
            raise Rejection("too large to decode") from error
        except _BROKEN as error:
            # The words of pydicom may quote the file.
            raise Rejection(f"damaged DICOM file ({type(error).__name__})") from error


@contextmanager
def _strict() -> Iterator[None]:
    """Keep pydicom's warnings and its log, which quote values, to itself."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(data: bytes, key: bytes, max_pixels: int, label: str | None) -> DicomImage:
    _check_syntax(data)
    dataset = dcmread(io.BytesIO(data))
    actions = deidentify.count_actions(_elements(dataset))
    _check_pixels(dataset, max_pixels)
    remarks = []
    if dataset.get("Modality") != "MR":
        remarks.append("the modality is not MR")
    frames, is_inverted = _frames(dataset)
    is_personal = _names_patient(dataset, label) if label is not None else None
    try:
        _check_text(dataset, frames, is_inverted=is_inverted)
    except Quarantine as quarantine:
        quarantine.has_personal_label = is_personal
        raise
    group = _group(dataset, key)
    if group is None:
        remarks.append("names no patient: near-duplicates are grouped instead")
    volume = _volume(dataset, key, len(frames))
    slices = []
    for number, values in enumerate(frames):
        made, remark = _slice(_Frame(dataset, number), values, volume, is_inverted=is_inverted)
        slices.append(replace(made, group=group))
        remarks += [remark] if remark and remark not in remarks else []
    if is_personal:
        remarks.append("its folder is named after the patient: that is no label")
    return DicomImage(tuple(slices), tuple(remarks), actions, is_personal)


def _check_syntax(data: bytes) -> None:
    """Judge the transfer syntax by the file meta information alone."""
    head = io.BytesIO(data)
    read_preamble(head, force=False)
    syntax = _read_file_meta_info(head).get("TransferSyntaxUID")
    if syntax is None:
        raise Rejection("the DICOM file does not say how it is encoded (no transfer syntax)")
    if str(syntax) in _DEFLATED:
        raise Rejection("deflated DICOM is not read; export it uncompressed or as JPEG 2000")
    uid = UID(str(syntax))
    if not uid.is_transfer_syntax or uid.is_private:
        raise Rejection("the DICOM file has an unknown transfer syntax")
    if uid.is_encapsulated and not _is_decodable(uid):
        raise _not_read(uid.name)


def _not_read(name: str) -> Rejection:
    return Rejection(
        f"compressed as {name}, which is not read here; export it uncompressed or as JPEG 2000"
    )


def _is_decodable(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


@dataclass(frozen=True)
class _Element:
    keyword: str
    vr: str
    is_private: bool


def _elements(dataset: Dataset) -> Iterator[_Element]:
    """Yield the attributes without looking at a value."""
    for tag in (BaseTag(one) for one in dataset.keys()):  # noqa: SIM118 - values would be read
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "UN"
        yield _Element(keyword_for_tag(tag), vr, tag.is_private)


def _check_pixels(dataset: FileDataset, max_pixels: int) -> None:
    """Judge the dimensions and the length before a pixel is decoded."""
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Rejection("the DICOM file has no pixels (a report, a plan or a directory)")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel", 1))
    if min(rows, columns, frames) < 1 or samples not in (1, 3):
        raise Rejection("the DICOM file has dimensions that cannot be")
    if rows * columns * frames * samples > max_pixels:
        raise Rejection(f"larger than {max_pixels / 1e6:g} megapixels in all frames")
    interpretation = dataset.PhotometricInterpretation
    if interpretation not in _GREY | _COLOUR:
        raise Rejection("pixels of an unsupported photometric interpretation")
    syntax = dataset.file_meta.TransferSyntaxUID
    assert syntax is not None, "it was checked"
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:  # noqa: PLR2004 - bits
        raise _not_read("12-bit lossy JPEG")
    if not syntax.is_compressed and "PixelData" in dataset:
        need = rows * columns * frames * samples * int(dataset.BitsAllocated) // 8
        if interpretation == "YBR_FULL_422":
            need = need * 2 // 3
        if len(dataset.PixelData or b"") < need:
            raise Rejection("truncated image: fewer pixels than rows times columns")


def _frames(dataset: FileDataset) -> tuple[list[Values], bool]:
    """Decode all frames to grey (rows, columns), and tell whether low values are white."""
    values = pixel_array(dataset)
    interpretation = dataset.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
        values = (values >> 8).astype(np.uint8) if values.dtype.itemsize > 1 else values
    count = int(dataset.get("NumberOfFrames") or 1)
    shape = (count, int(dataset.Rows), int(dataset.Columns))
    if values.size == 3 * count * shape[1] * shape[2]:
        grey = np.rint(values.reshape(*shape, 3).astype(np.float32) @ _LUMINANCE)
        values = grey.astype(values.dtype)
    if "ModalityLUTSequence" in dataset:
        values = apply_modality_lut(values, dataset)
    return list(values.reshape(shape)), interpretation == "MONOCHROME1"


def _check_text(dataset: Dataset, frames: Sequence[Values], *, is_inverted: bool) -> None:
    """Look for text in the pixels, with the help of the tags that are dropped afterwards."""
    if dataset.get("BurnedInAnnotation") == "YES":
        raise Quarantine("the file says that text is burned into its pixels")
    kind = [str(word).upper() for word in dataset.get("ImageType") or ()]
    is_capture = (
        str(dataset.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURES)
        or "ConversionType" in dataset
        or bool({"SCREEN SAVE", "SCREENSHOT"} & set(kind))
    )
    for values in frames[:: max(1, len(frames) // 8)]:
        pixels = burned_in.to_bytes(values)
        shown = np.asarray(255 - pixels, np.uint8) if is_inverted else pixels
        if burned_in.has_text(shown, is_suspected=is_capture):
            raise Quarantine("text seems to be burned into the pixels")


def _group(dataset: Dataset, key: bytes) -> str | None:
    patient = str(dataset.get("PatientID") or "").strip()
    return deidentify.pseudonym(key, "patient", patient) if patient else None


def _names_patient(dataset: Dataset, label: str) -> bool | None:
    """Tell whether a label holds a part of a name or an identifier of the patient.

    None for a file that names none.
    """
    told = [str(dataset.get(name) or "") for name in _IDENTIFYING]
    parts = {part for one in told for part in re.split(r"[\W_]+", one.lower())} - {""}
    if not parts:
        return None
    words = set(re.split(r"[\W_]+", label.lower()))
    whole = re.sub(r"[\W_]+", "", label.lower())
    return bool(parts & words) or any(len(part) >= _TELLING and part in whole for part in parts)


def _volume(dataset: Dataset, key: bytes, frame_count: int) -> str:
    """Name what is windowed and ordered together: a series, or the frames of one file."""
    name = "SOPInstanceUID" if frame_count > 1 else "SeriesInstanceUID"
    uid = str(dataset.get(name) or dataset.get("SOPInstanceUID") or "")
    return deidentify.pseudonym(key, "series", uid)


@dataclass(frozen=True)
class _Frame:
    """The attributes of one frame: its own, else those of all frames (PS3.3 C.7.6.16)."""

    dataset: Dataset
    number: int

    def get(self, sequence: str, name: str) -> Any:
        """Return an attribute from a functional group, else from the top; None if absent."""
        shared = self.dataset.get("SharedFunctionalGroupsSequence") or []
        own = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
        for groups in (own[self.number : self.number + 1], shared[:1]):
            for group in groups:
                for item in (group.get(sequence) or [])[:1]:
                    if item.get(name) is not None:
                        return item.get(name)
        return self.dataset.get(name)


def _slice(
    frame: _Frame, values: Values, volume: str, *, is_inverted: bool
) -> tuple[RawSlice, str | None]:
    """Turn a frame upright, and put what is known of its place beside it."""
    dataset = frame.dataset
    turned, remark = _facing(frame)
    spacing = _numbers(frame.get("PixelMeasuresSequence", "PixelSpacing"), 2)
    if spacing is not None and not all(0 < mm < 100 for mm in spacing):  # noqa: PLR2004 - a head
        spacing = None
    position = float(dataset.get("InstanceNumber") or 0) + frame.number
    if turned is not None:
        values = turned.turn(values)
        spacing = list(turned.turn_spacing((spacing[0], spacing[1]))) if spacing else None
        corner = _numbers(frame.get("PlanePositionSequence", "ImagePositionPatient"), 3)
        if corner is not None:
            position = float(np.dot(corner, turned.normal))
    has_lut = "ModalityLUTSequence" in dataset
    sequence = "PixelValueTransformationSequence"
    slope = 1.0 if has_lut else _number(frame.get(sequence, "RescaleSlope"), 1.0)
    intercept = 0.0 if has_lut else _number(frame.get(sequence, "RescaleIntercept"), 0.0)
    content = np.ascontiguousarray(values)
    direction = turned.plane if turned else "unknown"
    return RawSlice(
        values=content.tobytes(),
        dtype=content.dtype.str,
        rows=content.shape[0],
        columns=content.shape[1],
        volume=f"{volume} {direction} {content.shape[0]}x{content.shape[1]}",
        number=frame.number,
        position_mm=position,
        slope=slope or 1.0,
        intercept=intercept,
        is_inverted=is_inverted,
        window=_window(frame),
        plane=turned.plane if turned else None,
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        is_series=True,
    ), remark


def _facing(frame: _Frame) -> tuple[Facing | None, str | None]:
    directions = _numbers(frame.get("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    turned = facing(directions[:3], directions[3:]) if directions else None
    if turned is None:
        return None, "has no orientation: shown as stored, ordered by number"
    if turned.tilt_degrees > OBLIQUE_DEGREES:
        return turned, f"oblique by more than {OBLIQUE_DEGREES:g} degrees"
    return turned, None


def _window(frame: _Frame) -> tuple[float, float] | None:
    """Return the range of a linear window (PS3.3 C.11.2.1.2, C.11.2.1.3.2); None for others."""
    sequence = "FrameVOILUTSequence"
    function = frame.get(sequence, "VOILUTFunction") or "LINEAR"
    centre = _first(frame.get(sequence, "WindowCenter"))
    width = _first(frame.get(sequence, "WindowWidth"))
    if centre is None or width is None or max(abs(centre), abs(width)) > LARGEST:
        return None
    if function == "LINEAR_EXACT" and width > 0:
        return centre - width / 2, centre + width / 2
    if function == "LINEAR" and width > 1:
        return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return None


def _first(value: Any) -> float | None:
    """Return a number, or the first of several."""
    if value is None or isinstance(value, str):
        return None
    try:
        number = float(
            value[0] if isinstance(value, Sequence) or hasattr(value, "append") else value
        )
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _number(value: Any, default: float) -> float:
    found = _first(value)
    return default if found is None else found


def _numbers(value: Any, count: int) -> list[float] | None:
    """Return `count` finite numbers, or None."""
    try:
        numbers = [float(one) for one in cast("Sequence[Any]", value)]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
