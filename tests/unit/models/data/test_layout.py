import hashlib

import pytest

from models.data import layout
from models.data.layout import (
    MAX_CELL,
    MOST_IMAGES,
    UNLABELLED,
    Layout,
    Part,
    find_manifest,
    label_of,
    lay_out,
)
from models.run_folder import UserError

PATHS = ("m/manifest.csv", "m/a.nii", "m/b.png", "m/seg/a.nii", "m/x/c.png")
MANIFEST = PATHS[0]


def by_manifest(text: str | bytes, paths: tuple[str, ...] = PATHS) -> Layout:
    content = text if isinstance(text, bytes) else text.encode()
    return lay_out(paths, MANIFEST, content)


def complaint(text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        by_manifest(text)
    assert caught.value.code == "bad_manifest"
    return str(caught.value.detail).removesuffix("; mend it and upload again")


def names(*paths: str) -> Layout:
    return lay_out(paths, None)


def test_a_folder_is_a_label() -> None:
    layout = names("glioma/a.png", "data/meningioma/b.png", "c.png", "$bad/d.png")
    parts = [layout.part(one) for one in ("glioma/a.png", "data/meningioma/b.png", "c.png")]
    assert [part.label for part in parts] == ["glioma", "meningioma", UNLABELLED]
    assert layout.part("$bad/d.png").label is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (" glioma ", "glioma"),
        ("Grade IV (WHO)", "Grade IV (WHO)"),
        ("me\u0301ningiome", "méningiome"),
        ("腫瘍", "腫瘍"),
        ("a" * 64, "a" * 64),
        ("a" * 65, None),
        ("", None),
        ("-x", None),
        ("a/b", None),
        ("a\nb", None),
        ("=cmd()", None),
        ("<b>", None),
    ],
)
def test_labels_are_words(name: str, label: str | None) -> None:
    assert label_of(name) == label


def test_a_mask_is_the_file_of_the_same_name_in_a_folder_of_masks() -> None:
    layout = names("t/images/1.png", "t/images/2.png", "t/masks/1.png", "t/masks/9.png")
    assert layout.part("t/images/1.png").masks == ("t/masks/1.png",)
    assert layout.part("t/images/2.png").masks == ()
    assert layout.part("t/masks/1.png") == Part(is_mask=True)
    assert layout.part("t/masks/9.png").fault == "a mask without an image"


def test_a_folder_of_masks_may_lie_among_the_images() -> None:
    layout = names("t/a/1.tif", "t/masks/a/1.png", "t/b/1.tif")
    assert layout.part("t/a/1.tif").masks == ("t/masks/a/1.png",)
    assert layout.part("t/a/1.tif").label == "a"
    assert layout.part("t/b/1.tif").masks == ()


@pytest.mark.parametrize("mask", ["t1_mask.nii.gz", "mask-t1.nii", "T1.seg.nii", "t1_labelmap.nii"])
def test_a_mask_is_told_by_a_word_of_its_name(mask: str) -> None:
    layout = names("p/t1.nii", "p/t2.nii", f"p/{mask}")
    assert layout.part("p/t1.nii").masks == (f"p/{mask}",)
    assert layout.part("p/t2.nii").masks == ()


def test_a_mask_belongs_to_all_images_with_its_words() -> None:
    layout = names("p/Pre_Scan_T1.nii", "p/Pre_Scan_T2.nii", "p/Post_T1.nii", "p/Pre_Mask.nii")
    having = [path for path, part in layout.parts.items() if part.masks]
    assert having == ["p/Pre_Scan_T1.nii", "p/Pre_Scan_T2.nii"]


def test_an_image_may_have_several_masks() -> None:
    layout = names("p/scan.nii", "p/oedema_mask.nii", "p/core_mask.nii")
    assert layout.part("p/scan.nii").masks == ("p/oedema_mask.nii", "p/core_mask.nii")


def test_the_manifest_nearest_to_the_root_counts() -> None:
    assert find_manifest(["a/b/manifest.csv", "z/Manifest.CSV", "a.png"]) == "z/Manifest.CSV"
    assert find_manifest(["b/manifest.csv", "a/manifest.csv"]) == "a/manifest.csv"
    assert find_manifest(["manifest.csv.png"]) is None


def test_the_manifest_of_a_batch_of_ours_is_understood() -> None:
    text = "file,label,index,seed,sha256\nx/c.png,glioma,0,7,\n"
    assert by_manifest(text).part("m/x/c.png").label == "glioma"


def test_what_a_manifest_lists_counts_and_nothing_else() -> None:
    digest = hashlib.sha256(b"").hexdigest()
    layout = by_manifest(
        "image,mask,label,group,plane,sha256\n"
        f"a.nii,seg/a.nii,glioma,patient 1,Axial,{digest.upper()}\n"
        "b.png,,,,,\n"
    )
    assert layout.part("m/a.nii") == Part(
        label="glioma",
        group="patient 1",
        plane="axial",
        sha256=digest,
        masks=("m/seg/a.nii",),
        is_label_given=True,
    )
    assert layout.part("m/b.png") == Part(label=UNLABELLED)
    assert layout.part("m/seg/a.nii") == Part(is_mask=True)
    assert layout.part(MANIFEST).is_manifest
    assert layout.part("m/x/c.png").fault == "not listed in manifest.csv"
    assert layout.missing == 0


def test_without_a_column_of_labels_folders_are_labels() -> None:
    assert by_manifest("image\nx/c.png").part("m/x/c.png").label == "x"
    assert by_manifest("image,label\nx/c.png,\n").part("m/x/c.png").label == UNLABELLED


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffimage,label\r\nb.png,g\r\n",
        "image;label\nb.png;g\n",
        "image\tlabel\nb.png\tg\n",
        "IMAGE , Label,note\nb.png, g ,seen by a doctor\n",
        'image,label\n"b.png","g"\n\n,\n',
        "label,image\ng,./b.png",
        "image,label\n.\\b.png,g",
        "note,image,label\n\0,b.png,g",
    ],
    ids=["excel", "semicolons", "tabs", "spaces", "quotes", "dot", "backslash", "NUL"],
)
def test_what_spreadsheets_write_is_read(text: str) -> None:
    assert by_manifest(text).part("m/b.png").label == "g"


def test_missing_files_are_counted() -> None:
    layout = by_manifest("image,mask\nb.png,nowhere.png\ngone.png,seg/a.nii\na.nii,../up.png\n")
    assert layout.missing == 3
    assert layout.part("m/b.png").masks == ()
    assert "m/gone.png" not in layout.parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: its columns need `image`"),
        ("label\nx", "line 1: its columns need `image`"),
        ("image,image\na,b", "line 1: its columns need `image`"),
        ("image\nb.png\nb.png", "line 3: its image is listed twice"),
        ("image\n./b.png\nx/..//b.png", "line 3: `image` is empty or leaves the archive"),
        ("image\n../a.nii", "line 2: `image` is empty or leaves the archive"),
        ("image,label\n,glioma", "line 2: `image` is empty or leaves the archive"),
        ("image\nb.png,extra", "line 2: it has more cells than columns"),
        ("image,label\nb.png,<script>", "line 2: its label is not letters"),
        ("image,plane\nb.png,oblique", "line 2: its plane is none of sagittal, coronal, axial"),
        ("image,sha256\nb.png,abc", "line 2: its sha256 is not 64 hexadecimal digits"),
        ('image\n"b.png', "line 2: its quotes do not match"),
        (f"image,group\nb.png,{'x' * (MAX_CELL + 1)}", "line 2: its quotes do not match, or a ce"),
        (b"image\nb.png\n\xff\xfe", "line 3: it is not UTF-8"),
        ("image\nb.png".encode("utf-16"), "line 1: it is not UTF-8"),
        ("image,mask\nb.png,b.png", "line 2: its mask is an image too"),
        ("image,mask\nb.png,a.nii\na.nii,", "line 3: its image is a mask too"),
        ("image,mask\na.nii,\nb.png,a.nii", "line 3: its mask is an image too"),
    ],
)
def test_a_bad_manifest_is_refused_by_its_line(text: str | bytes, expected: str) -> None:
    assert complaint(text).startswith(f"manifest.csv, {expected}")


def test_a_mask_may_serve_several_images() -> None:
    layout = by_manifest("image,mask\na.nii,seg/a.nii\nb.png,seg/a.nii\n")
    assert layout.part("m/a.nii").masks == layout.part("m/b.png").masks == ("m/seg/a.nii",)


def test_no_complaint_quotes_the_manifest() -> None:
    for text in ("image,label\nb.png,SECRET!", "image\nSECRET,SECRET", "SECRET", 'image\n"SECRET'):
        assert "SECRET" not in complaint(text)


def test_a_name_that_fits_many_images_is_no_masks_name() -> None:
    """Else as many masks as images make a pair of each with each."""
    images = [f"t/{number}.png" for number in range(MOST_IMAGES + 1)]
    fault = f"a mask whose name fits more than {MOST_IMAGES} images"
    assert names(*images, "t/mask.png").part("t/mask.png").fault == fault
    assert names(*images[1:], "t/mask.png").part("t/mask.png").fault is None
    same = [f"images/x.{number}" for number in range(MOST_IMAGES + 1)]
    assert names(*same, "masks/x.png").part("masks/x.png").fault == fault


def test_a_word_that_most_names_share_is_not_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = [f"t/scan_{number % 2}_{number}.png" for number in range(200)]
    mask = "t/scan_1_7_mask.png"
    assert names(*paths, mask).part("t/scan_1_7.png").masks == (mask,)
    assert names(*paths, "t/scan_mask.png").part("t/scan_mask.png").fault
    monkeypatch.setattr(layout, "_COMMON", 99)
    assert names(*paths, mask).part("t/scan_1_7.png").masks == (mask,)
    assert names(*paths, "t/scan_1_mask.png").part("t/scan_1_mask.png").fault


def test_a_name_of_very_many_words_is_found_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ("t/a_b_c.png", "t/other.png", "t/a_b_mask.png")
    assert names(*paths).part("t/a_b_c.png").masks == ("t/a_b_mask.png",)
    monkeypatch.setattr(layout, "_MOST_WORDS", 2)
    assert names(*paths).part("t/a_b_mask.png").fault == "a mask without an image"


def test_images_of_a_mask_are_found_without_looking_at_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand pairs in one folder took minutes: each mask read the names of all images."""
    read: list[str] = []
    words = layout._words

    def counted(name: str) -> frozenset[str]:
        read.append(name)
        return words(name)

    monkeypatch.setattr(layout, "_words", counted)
    pairs = [(f"t/{number}.png", f"t/{number}_mask.png") for number in range(300)]
    found = names(*[path for pair in pairs for path in pair])
    assert all(found.part(image).masks == (mask,) for image, mask in pairs)
    assert len(read) <= 3 * 600
