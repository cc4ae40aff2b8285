import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import data as pydicom_data
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from models.data import dicom as decoder
from models.data.dicom import DicomImage
from models.data.raw_slices import RawSlice
from models.data.rejection import Quarantine, Rejection
from models.data.volumes import Volumes, Window, to_bytes
from tests.unit.models.data.dicom_files import (
    CAPTURE,
    COMPRESSED,
    DEFLATED,
    PLAIN,
    compressed,
    dataset,
    dicom,
    enhanced,
    written,
)

KEY = b"key of one tenant"
BYTES_ALONE = {"JPEGBaselineProcess1", "JPEGExtendedProcess2_4"}
DEEP = (np.arange(64 * 48).reshape(64, 48) % 4096).astype(np.uint16)
BYTES = (np.arange(64 * 48).reshape(64, 48) // 16).astype(np.uint8)
BUNDLED = Path(pydicom_data.__file__).parent / "test_files"


def read(data: bytes, key: bytes = KEY, label: str | None = None) -> DicomImage:
    return decoder.read(data, key, 1 << 22, label)


def only(data: bytes) -> RawSlice:
    (one,) = read(data).slices
    return one


def reason(data: bytes) -> str:
    with pytest.raises(Rejection) as caught:
        read(data)
    return str(caught.value)


def window_of(tmp_path: Path, *slices: RawSlice) -> Window:
    with Volumes[int](tmp_path) as volumes:
        for one in slices:
            volumes.add(0, one)
        (window,) = {window for volume in volumes.developed() for _, _, window in volume}
    return window


@pytest.mark.parametrize("syntax", PLAIN, ids=["implicit", "explicit", "big-endian"])
@pytest.mark.parametrize("values", [BYTES, DEEP, DEEP.astype(np.int16) - 900])
def test_uncompressed_pixels_are_kept(values: NDArray[np.generic], syntax: str) -> None:
    assert (only(dicom(values, syntax)).real() == values).all()


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_bytes_are_read(name: str) -> None:
    found = only(compressed(dicom(BYTES), name)).real()
    is_lossy = name in BYTES_ALONE | {"JPEGLSNearLossless"}
    assert np.abs(found - BYTES).max() <= (4 if is_lossy else 0)


@pytest.mark.parametrize("name", sorted(COMPRESSED.keys() - BYTES_ALONE))
def test_compressed_deep_pixels_are_kept(name: str) -> None:
    data = compressed(dicom(DEEP, BitsStored=12, HighBit=11), name)
    assert (only(data).real() == DEEP).all()


@pytest.mark.parametrize(
    ("name", "like", "tolerance"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm", 0),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
        ("MR_small_implicit.dcm", "MR_small.dcm", 0),
        ("MR_small_bigendian.dcm", "MR_small.dcm", 0),
        ("MR_small_padded.dcm", "MR_small.dcm", 0),
    ],
)
def test_files_of_other_writers_are_read(name: str, like: str, tolerance: float) -> None:
    """The wheel of pydicom brings one picture in several transfer syntaxes."""
    found, expected = (only((BUNDLED / one).read_bytes()) for one in (name, like))
    assert expected.array().std() > 100
    assert np.abs(found.real() - expected.real()).max() <= tolerance


def test_a_lossy_file_of_another_writer_is_read() -> None:
    assert only((BUNDLED / "JPEG2000.dcm").read_bytes()).real().std() > 10


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_lossy_jpeg_of_twelve_bits_is_refused_in_words(name: str) -> None:
    assert reason((BUNDLED / name).read_bytes()).startswith("compressed as 12-bit lossy JPEG")


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.dcm")), ids=lambda path: path.name)
def test_every_bundled_file_is_read_or_refused_in_words(path: Path) -> None:
    with suppress(Rejection):
        assert read(path.read_bytes()).slices


def test_deflated_files_are_refused_unread() -> None:
    assert reason(dicom(DEEP, DEFLATED)).startswith("deflated DICOM is not read")


def test_what_nothing_here_decodes_says_so() -> None:
    made = dataset(DEEP)
    made.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    htj2k = written(made, "1.2.840.10008.1.2.4.201")
    assert reason(htj2k) == (
        "compressed as High-Throughput JPEG 2000 Image Compression (Lossless Only), which is not "
        "read here; export it uncompressed or as JPEG 2000"
    )


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    first, second = (
        only(dicom(values, PhotometricInterpretation=name))
        for values, name in ((DEEP, "MONOCHROME2"), (4095 - DEEP, "MONOCHROME1"))
    )
    assert second.is_inverted
    upright, turned = (to_bytes(one, window_of(tmp_path, one)) for one in (first, second))
    assert np.abs(upright.astype(int) - turned).max() <= 4  # 0.5 and 99.5 % are not symmetric
    assert upright[0, 5] < upright[60, 5]


def test_slope_and_intercept_are_applied() -> None:
    one = only(dicom(DEEP, RescaleSlope="2.5", RescaleIntercept="-1000"))
    assert one.real() == pytest.approx(DEEP * 2.5 - 1000)
    assert only(dicom(DEEP, RescaleSlope="0", RescaleIntercept="3")).real() == pytest.approx(
        DEEP + 3.0
    )


def test_a_modality_lut_replaces_slope_and_intercept() -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table.LUTData = (np.arange(256) * 7).astype(np.uint16).tobytes()
    one = only(dicom(BYTES, ModalityLUTSequence=Sequence([table]), RescaleSlope="9"))
    assert (one.real() == BYTES.astype(int) * 7).all()


def test_the_window_is_that_of_the_standard(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white beyond c - 0.5 + (w - 1) / 2."""
    one = only(dicom(DEEP, WindowCenter="1000", WindowWidth="501"))
    assert one.window == (749.5, 1249.5)
    window = window_of(tmp_path, one)
    assert window.rule == "file"
    pixels = to_bytes(one, window)
    assert not pixels[DEEP <= 749].any()
    assert (pixels[DEEP >= 1250] == 255).all()
    assert pixels[DEEP == 1000] == pytest.approx(128, abs=1)


def test_an_exact_window_is_not_shifted() -> None:
    """PS3.3 C.11.2.1.3.2: from c - w / 2 to c + w / 2, and a width below 1 is allowed."""
    exact: dict[str, Any] = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "1000"}
    assert only(dicom(DEEP, **exact, WindowWidth="500")).window == (750, 1250)
    assert only(dicom(DEEP, **exact, WindowWidth="0.5")).window == (999.75, 1000.25)


def test_the_first_of_several_windows_counts() -> None:
    one = only(dicom(DEEP, WindowCenter=["1000", "50"], WindowWidth=["501", "10"]))
    assert one.window == (749.5, 1249.5)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": "1000"},
        {"WindowCenter": "1000", "WindowWidth": "1"},
        {"WindowCenter": "1000", "WindowWidth": "-5"},
        {"WindowCenter": "1e300", "WindowWidth": "1e300"},
        {"WindowCenter": "1000", "WindowWidth": "501", "VOILUTFunction": "SIGMOID"},
    ],
)
def test_what_is_no_linear_window_leaves_it_to_the_percentiles(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    one = only(dicom(DEEP, **attributes))
    assert one.window is None
    assert window_of(tmp_path, one).rule == "percentiles"


def test_a_voi_lut_leaves_it_to_the_percentiles(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 16], bytes(8)
    one = only(dicom(DEEP, VOILUTSequence=Sequence([table])))
    assert window_of(tmp_path, one).rule == "percentiles"


def test_percentiles_are_of_the_series_and_not_of_a_slice(tmp_path: Path) -> None:
    slices = [
        only(dicom(DEEP // dim, ImagePositionPatient=[0.0, 0.0, at]))
        for at, dim in ((0.0, 1), (3.0, 8))
    ]
    window = window_of(tmp_path, *slices)
    bright, dark = (to_bytes(one, window).max() for one in slices)
    assert bright == 255
    assert dark < 40


def test_order_is_by_place_and_not_by_number_or_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    order = rng.permutation(12)
    with Volumes[int](tmp_path) as volumes:
        for number, at in enumerate(order):
            place = [float(number), 5.0, 100 - 2.5 * at]
            data = dicom(DEEP + int(at), ImagePositionPatient=place, InstanceNumber=number)
            volumes.add(int(at), only(data))
        (volume,) = volumes.developed()
        found = [owner for owner, _, _ in volume]
    assert found == list(range(12))[::-1]


def test_order_is_by_number_where_there_is_no_orientation() -> None:
    image = read(dicom(DEEP, ImageOrientationPatient=None, InstanceNumber="7"))
    assert image.slices[0].position_mm == 7
    assert image.slices[0].plane is None
    assert "has no orientation: shown as stored, ordered by number" in image.remarks


def test_series_are_kept_apart() -> None:
    first, second, again = (
        only(dicom(DEEP, SeriesInstanceUID=uid)).volume for uid in ("1.2.3", "1.2.4", "1.2.3")
    )
    assert first == again != second


def test_planes_of_a_localiser_are_kept_apart() -> None:
    axial, coronal = (
        only(dicom(DEEP, ImageOrientationPatient=list(directions)))
        for directions in ((1.0, 0, 0, 0, 1.0, 0), (1.0, 0, 0, 0, 0, -1.0))
    )
    assert (axial.plane, coronal.plane) == ("axial", "coronal")
    assert axial.volume != coronal.volume


def test_frames_are_in_order_of_their_plane_positions(tmp_path: Path) -> None:
    values = np.stack([DEEP + at for at in range(5)])
    heights = [4.0, 0.0, 8.0, 2.0, 6.0]
    image = read(written(enhanced(values, [(0, 0, height) for height in heights])))
    assert [one.position_mm for one in image.slices] == heights
    assert {one.spacing_mm for one in image.slices} == {(0.75, 0.75)}
    with Volumes[int](tmp_path) as volumes:
        for one in image.slices:
            volumes.add(one.number, one)
        (volume,) = volumes.developed()
        assert [owner for owner, _, _ in volume] == [1, 3, 0, 4, 2]


def test_a_frame_has_its_own_window_and_rescale() -> None:
    made = enhanced(np.stack([DEEP, DEEP]), [(0, 0, 0), (0, 0, 1)])
    for at, frame in enumerate(made.PerFrameFunctionalGroupsSequence):
        window, scale = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = str(100 * (at + 1)), "51"
        scale.RescaleSlope, scale.RescaleIntercept = str(at + 1), "5"
        frame.FrameVOILUTSequence = Sequence([window])
        frame.PixelValueTransformationSequence = Sequence([scale])
    slices = read(written(made)).slices
    assert [(one.slope, one.intercept) for one in slices] == [(1, 5), (2, 5)]
    assert [one.window for one in slices] == [(74.5, 124.5), (174.5, 224.5)]


def test_spacing_is_kept_and_turned_with_the_slice() -> None:
    upright = only(dicom(DEEP, PixelSpacing=["0.5", "2"]))
    turned = only(
        dicom(DEEP, PixelSpacing=["0.5", "2"], ImageOrientationPatient=[0, 1.0, 0, 1.0, 0, 0])
    )
    assert (upright.spacing_mm, turned.spacing_mm) == ((0.5, 2), (2, 0.5))
    assert (turned.array() == DEEP.T).all()
    assert only(dicom(DEEP, PixelSpacing=["0", "1"])).spacing_mm is None
    assert only(dicom(DEEP, PixelSpacing=None)).spacing_mm is None


def test_another_modality_is_a_remark() -> None:
    assert "the modality is not MR" in read(dicom(DEEP, Modality="CT")).remarks
    assert read(dicom(DEEP)).remarks == ()


def test_an_oblique_slice_is_a_remark() -> None:
    tilted = [1.0, 0, 0, 0, float(np.cos(0.7)), float(np.sin(0.7))]
    image = read(dicom(DEEP, ImageOrientationPatient=tilted))
    assert image.remarks == ("oblique by more than 30 degrees",)
    assert image.slices[0].plane == "axial"


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_becomes_grey(planar: int) -> None:
    colour = np.stack([BYTES, BYTES // 2, BYTES // 3], axis=-1)
    stored = colour if planar == 0 else np.moveaxis(colour, -1, 0)
    made = dataset(BYTES, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    made.PlanarConfiguration, made.PixelData = planar, np.ascontiguousarray(stored).tobytes()
    expected = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    assert np.abs(only(written(made)).real() - expected).max() <= 1


def test_a_palette_becomes_grey() -> None:
    made = dataset(BYTES, PhotometricInterpretation="PALETTE COLOR")
    table = (np.arange(256)[::-1].astype(np.uint16) * 257).tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", table)
    assert np.abs(only(written(made)).real() - (255 - BYTES.astype(int))).max() <= 1


def test_bits_above_those_stored_are_no_pixels() -> None:
    """Old scanners kept overlays there."""
    one = only(dicom(DEEP | 0xA000, BitsStored=12, HighBit=11))
    assert (one.real() == DEEP).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_read(dtype: type[np.float32 | np.float64]) -> None:
    values = (DEEP / 7).astype(dtype)
    assert only(dicom(values)).real() == pytest.approx(values)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelData": None}, "the DICOM file has no pixels (a report, a plan or a directory)"),
        ({"PixelData": b""}, "truncated image: fewer pixels than rows times columns"),
        ({"Rows": 0}, "the DICOM file has dimensions that cannot be"),
        ({"SamplesPerPixel": 2}, "the DICOM file has dimensions that cannot be"),
        ({"NumberOfFrames": 9}, "truncated image: fewer pixels than rows times columns"),
        ({"Rows": 65535, "Columns": 65535}, "larger than 4.1943 megapixels in all frames"),
        (
            {"PhotometricInterpretation": "HSV"},
            "pixels of an unsupported photometric interpretation",
        ),
        ({"Rows": None}, "damaged DICOM file (AttributeError)"),
    ],
)
def test_impossible_files_are_refused(attributes: dict[str, Any], expected: str) -> None:
    assert reason(dicom(DEEP, **attributes)) == expected


def test_a_program_in_the_preamble_is_refused() -> None:
    data = dicom(DEEP)
    for magic in (b"MZ", b"\x7fELF", b"#!/bin/sh\n"):
        found = reason(magic + data[len(magic) :])
        assert found == "a program hides in the preamble of the DICOM file"


def test_a_file_without_transfer_syntax_is_refused() -> None:
    data = dicom(DEEP)
    syntax = data.index(b"\x02\x00\x10\x00UI")
    length = 8 + int.from_bytes(data[syntax + 6 : syntax + 8], "little")
    assert "no transfer syntax" in reason(data[:syntax] + data[syntax + length :])
    assert "unknown transfer syntax" in reason(
        data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.999\0" * 2 + b"\0\0\0\0")
    )


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_refused(share: float) -> None:
    for data in (dicom(DEEP), compressed(dicom(BYTES), "JPEG2000Lossless")):
        assert reason(data[: int(len(data) * share)])


def test_nothing_of_the_file_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    data = compressed(dicom(BYTES, PatientName="SECRET^NAME"), "JPEG2000Lossless")
    at = data.index(b"\xff\x4f\xff\x51")
    assert reason(data[:at] + b"SECRET" * 9 + data[at + 54 :]).startswith("damaged DICOM file")
    assert not caplog.records


def test_no_error_quotes_the_file() -> None:
    data = dicom(DEEP, PatientName="SECRET^NAME", PatientID="SECRET", Rows=None)
    assert "SECRET" not in reason(data)
    assert "SECRET" not in reason(dicom(DEEP, PixelSpacing=["0.5", "0.5"])[:900] + b"SECRET" * 9)


def test_text_in_the_pixels_is_quarantined() -> None:
    image = Image.fromarray(np.full((256, 256), 20, np.uint8))
    font = ImageFont.load_default(20)
    ImageDraw.Draw(image).text((8, 220), "MUSTERMANN", fill=255, font=font)
    pixels = np.asarray(image)
    for shown, name in ((pixels, "MONOCHROME2"), (255 - pixels, "MONOCHROME1")):
        with pytest.raises(Quarantine, match="text seems to be burned"):
            read(dicom(shown, PhotometricInterpretation=name))
    with pytest.raises(Quarantine, match="text seems to be burned"):
        read(dicom(255 - pixels, SOPClassUID=CAPTURE))
    with pytest.raises(Quarantine, match="says that text is burned"):
        read(dicom(DEEP, BurnedInAnnotation="YES"))


def test_patients_and_series_are_keyed_hashes() -> None:
    first, again, other_patient = (
        only(dicom(DEEP, PatientID=patient)) for patient in ("P1", " P1 ", "P2")
    )
    (elsewhere,) = read(dicom(DEEP, PatientID="P1"), b"key of another tenant").slices
    assert first.group == again.group
    assert len({first.group, other_patient.group, elsewhere.group}) == 3
    assert first.volume != elsewhere.volume
    nobody = read(dicom(DEEP, PatientID=""))
    assert nobody.slices[0].group is None
    assert nobody.remarks == ("names no patient: near-duplicates are grouped instead",)


@pytest.mark.parametrize(
    ("label", "is_personal"),
    [
        ("MUSTERMANN_ERIKA", True),
        ("mustermann", True),
        ("pat P-0815 pre", True),
        ("xmustermannx", True),
        ("glioma", False),
        ("class 2", False),
    ],
)
def test_a_folder_named_after_the_patient_is_no_label(label: str, is_personal: bool) -> None:  # noqa: FBT001
    data = dicom(DEEP, PatientName="Mustermann^Erika", PatientBirthDate="19640812")
    assert read(data, label=label).has_personal_label == is_personal


def test_only_dicom_is_taken_for_it() -> None:
    assert decoder.is_dicom(dicom(DEEP))
    data = io.BytesIO()
    Image.fromarray(BYTES).save(data, "PNG")
    assert not decoder.is_dicom(data.getvalue())
    assert not decoder.is_dicom(b"")
