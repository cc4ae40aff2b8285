"""DICOM files: bombs, lies about their own size, junk, and programs in the preamble."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from tests.e2e.hostile.exhibits import SIDE, Exhibit, encoded, picture, pixels

PREAMBLE = 128
_ENDLESS = 0xFFFFFFFF


def exhibits() -> list[Exhibit]:
    """Return every DICOM file with its verdict."""
    return [*_bombs(), *_liars(), *_disguised(), *_torn(), *_encapsulated(), *_odd_but_right()]


def mr(seed: int, **values: object) -> Dataset:
    """Return a plain MR slice of 64x64 pixels of 16 bits; `values` change or, if None, remove."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    uid = generate_uid(entropy_srcs=[str(seed)])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(seed)])
    dataset.PatientID, dataset.Modality = f"patient {seed}", "MR"
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = (pixels(seed).astype(np.uint16) * 8).tobytes()
    for name, value in values.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    """Write a data set as a file, whatever is in it."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=False)
    content = buffer.getvalue()
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        content = bytes(PREAMBLE) + b"DICM" + content
    return content


def _with_syntax(dataset: Dataset, uid: str) -> bytes:
    """Write it as it is, and claim another transfer syntax of at most the same length."""
    own = str(ExplicitVRLittleEndian).encode() + b"\0"
    return written(dataset).replace(own, uid.encode().ljust(len(own), b"\0"), 1)


def _meta(seed: int) -> bytes:
    """Return preamble and file meta information of a plain slice."""
    content = written(mr(seed))
    return content[: content.index(struct.pack("<HH2s", 8, 0x16, b"UI"))]


def _bombs() -> Iterator[Exhibit]:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = deflater.compress(bytes(32 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    plain = mr(100)
    plain.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta = written(plain)
    meta = meta[: meta.index(DeflatedExplicitVRLittleEndian.encode()) + 22]
    # Each piece stands alone after a full flush: 40 of them are 1.25 GiB of zeros.
    yield Exhibit("deflated-bomb.dcm", meta + piece * 40, "deflated DICOM is not read")
    huge = mr(101, NumberOfFrames=1000, Rows=4096, Columns=4096)
    yield Exhibit("a-thousand-frames.dcm", written(huge), "larger than 134.218 megapixels")
    yield Exhibit("wide.dcm", written(mr(102, Rows=65535, Columns=65535)), "megapixels")
    nested = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, _ENDLESS)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, _ENDLESS)
    yield Exhibit("nested.dcm", _meta(103) + (nested + item) * 20_000, "damaged DICOM file")
    endless = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, _ENDLESS - 1)
    yield Exhibit("four-gigabytes.dcm", _meta(104) + endless + bytes(99), "DICOM file")
    tables = mr(105, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(tables, f"{colour}PaletteColorLookupTableDescriptor", [0, 0, 16])
        setattr(tables, f"{colour}PaletteColorLookupTableData", b"\1\2")
    yield Exhibit("short-palette.dcm", written(tables), "damaged DICOM file")


def _liars() -> Iterator[Exhibit]:
    yield Exhibit("no-pixels.dcm", written(mr(110, PixelData=None)), "has no pixels")
    yield Exhibit("empty-pixels.dcm", written(mr(111, PixelData=b"")), "truncated image")
    yield Exhibit("few-pixels.dcm", written(mr(112, PixelData=bytes(100))), "truncated image")
    yield Exhibit("no-rows.dcm", written(mr(113, Rows=0)), "dimensions that cannot be")
    yield Exhibit("rows-absent.dcm", written(mr(114, Rows=None)), "damaged DICOM file")
    yield Exhibit("three-bits.dcm", written(mr(115, BitsAllocated=3)), "damaged DICOM file")
    yield Exhibit("no-bits.dcm", written(mr(116, BitsAllocated=0)), "damaged DICOM file")
    yield Exhibit("two-samples.dcm", written(mr(117, SamplesPerPixel=2)), "cannot be")
    odd = written(mr(118, PhotometricInterpretation="ARGB"))
    yield Exhibit("argb.dcm", odd, "photometric interpretation")
    frames = written(mr(119, NumberOfFrames=-5))
    yield Exhibit("minus-five-frames.dcm", frames, "dimensions that cannot be")
    infinite = mr(120, RescaleSlope="1e308", RescaleIntercept="1e308")
    yield Exhibit("slope-of-1e308.dcm", written(infinite), "beyond 1e+30")
    yield Exhibit("high-bit.dcm", written(mr(121, BitsStored=40, HighBit=39)), "damaged DICOM file")


def _disguised() -> Iterator[Exhibit]:
    whole = written(mr(130))[PREAMBLE:]
    for name, program in (
        ("windows", b"MZ\x90\0"),
        ("linux", b"\x7fELF\2\1"),
        ("sh", b"#!/bin/sh"),
    ):
        polyglot = program.ljust(PREAMBLE, b"\0") + whole
        yield Exhibit(f"program-for-{name}.dcm", polyglot, "a program hides in the preamble")
    text = b"DICM".rjust(PREAMBLE + 4, b" ") + b"no data set at all"
    yield Exhibit("only-the-magic.dcm", text, "DICOM file")


def _torn() -> Iterator[Exhibit]:
    whole = written(mr(140))
    yield Exhibit("truncated.dcm", whole[: len(whole) // 2], "truncated image")
    yield Exhibit("truncated-in-the-header.dcm", whole[:300], "DICOM file")
    yield Exhibit("only-a-preamble.dcm", whole[:132], "DICOM file")
    noise = np.random.default_rng(141).bytes(20_000)
    yield Exhibit("noise-behind-the-meta.dcm", _meta(141) + noise, "DICOM file")
    unknown = _with_syntax(mr(142), "1.2.3.4.5.6")
    yield Exhibit("unknown-syntax.dcm", unknown, "unknown transfer syntax")
    big = _with_syntax(mr(143), "1.2.840.10008.1.2.2")
    yield Exhibit("not-big-endian.dcm", big, "DICOM file")


def _encapsulated() -> Iterator[Exhibit]:
    for name, syntax in (("jpeg2000", JPEG2000Lossless), ("rle", RLELossless)):
        dataset = mr(150)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([np.random.default_rng(150).bytes(5000)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        yield Exhibit(f"garbage-{name}.dcm", written(dataset), "damaged DICOM file")
    large = mr(151, BitsAllocated=8, BitsStored=8, HighBit=7)
    large.file_meta.TransferSyntaxUID = JPEG2000Lossless
    large.PixelData = encapsulate([encoded(picture(151).resize((3000, 3000)), "JPEG2000")])
    large["PixelData"].is_undefined_length = True
    yield Exhibit("larger-inside.dcm", written(large), "damaged DICOM file")
    empty = mr(152)
    empty.file_meta.TransferSyntaxUID = JPEG2000Lossless
    empty.PixelData = encapsulate([bytes(2)])
    empty["PixelData"].is_undefined_length = True
    yield Exhibit("nothing-inside.dcm", written(empty), "damaged DICOM file")


def _odd_but_right() -> Iterator[Exhibit]:
    whole = written(mr(160))[PREAMBLE:]
    yield Exhibit("also-a-tiff.dcm", b"II*\0\x08\0\0\0".ljust(PREAMBLE, b"\0") + whole)
    junk = mr(161)
    block = junk.private_block(0x0029, "HOSTILE", create=True)
    for number in range(200):
        block.add_new(number, "UN", np.random.default_rng(number).bytes(64))
    yield Exhibit("private-junk.dcm", written(junk))
    latin = mr(162, SpecificCharacterSet="ISO_IR 100", PatientName="M\u00fcller^J\u00f6rg")
    unknown = written(latin).replace(b"ISO_IR 100", b"ISO_IR 999")
    yield Exhibit("unknown-characters.dcm", unknown)
    switching = mr(163, SpecificCharacterSet=["", "ISO 2022 IR 87", "ISO 2022 IR 149"])
    switching.PatientName = b"\x1b$)C\xff\xfe\x1b$B^^^=\x1b(B"
    yield Exhibit("broken-escapes.dcm", written(switching))
    colour = np.stack([pixels(164 + number) for number in range(3)], axis=-1)
    eight = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    for interpretation in ("RGB", "YBR_FULL"):
        kind = {"PhotometricInterpretation": interpretation, "PlanarConfiguration": 0}
        values = colour if interpretation == "RGB" else colour[::-1]
        made = mr(165, **eight, **kind, PixelData=values.tobytes())
        made.SeriesInstanceUID = generate_uid()
        yield Exhibit(f"{interpretation.lower()}.dcm", written(made))
    too_many = mr(168, PixelData=mr(168).PixelData + bytes(7000))
    yield Exhibit("more-pixels-than-rows.dcm", written(too_many))
    nothing = mr(169, PixelSpacing=[0.0, -1.0], ImageOrientationPatient=[0.0] * 6)
    nothing.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    nothing.WindowCenter, nothing.WindowWidth = [], []
    yield Exhibit("no-geometry.dcm", written(nothing))
