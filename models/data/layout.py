"""Say what the files of an archive are to one another, from their names and a manifest alone.

Without a manifest, an image's label is the folder that holds it. A mask is a file below a folder
`masks` that lies beside `images`, or one with a word like `mask` or `seg` in its name: it belongs
to the images of its folder that have all of its other words (`Pre_Mask.nii` to `Pre_Scan_T1.nii`).
With a `manifest.csv`, what that lists counts and nothing else.
"""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from models.data.raw_slices import PLANES
from models.run_folder import UserError

MANIFEST = "manifest.csv"
COLUMNS = ("image", "mask", "label", "group", "plane", "sha256")
MAX_MANIFEST_BYTES = 256 << 20
MAX_CELL = 1000
UNLABELLED = "unlabelled"
LABEL = re.compile(r"[\w][\w .()+-]{0,63}")
_MASK_FOLDERS = frozenset({"mask", "masks", "segmentation", "segmentations", "seg", "labelmaps"})
_IMAGE_FOLDERS = ("images", "image", "imgs", "scans", "")
_MASK_WORDS = frozenset({"mask", "masks", "seg", "segmentation", "labelmap"})
MOST_IMAGES = 64
"""Of one mask: as many scans as a patient's folder may hold."""
_MOST_WORDS = 24
"""A name of more is found by none of them."""
_COMMON = 4096
"""Images that share each word of a mask's name, above which they are not looked through."""
_SUFFIXES = re.compile(r"(\.(nii|tar))?\.[A-Za-z0-9]{1,8}$")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """What a file is to the dataset."""

    label: str | None = UNLABELLED
    """None when the name of its folder cannot be one."""
    group: str | None = None
    plane: str | None = None
    sha256: str | None = None
    masks: tuple[str, ...] = ()
    """Paths of its masks; a mask marks what any of them marks."""
    is_mask: bool = False
    is_manifest: bool = False
    is_label_given: bool = False
    """The label is what the manifest says, not the name of a folder."""
    fault: str | None = None

    def unlabelled(self) -> "Part":
        """Return it without the label that its folder gave it."""
        return replace(self, label=UNLABELLED)


@dataclass(frozen=True)
class Layout:
    """The parts of an archive by path."""

    parts: dict[str, Part] = field(default_factory=dict)
    manifest: str | None = None
    missing: int = 0
    """Images or masks that the manifest lists and the archive has not."""

    def part(self, path: str) -> Part:
        """Return what a file is."""
        if path in self.parts:
            return self.parts[path]
        if self.manifest is not None:
            return Part(fault=f"not listed in {MANIFEST}")
        return Part(label=_label_of(path))


def find_manifest(paths: Iterable[str]) -> str | None:
    """Return the manifest that lies nearest to the root."""
    found = [path for path in paths if path.rsplit("/", 1)[-1].lower() == MANIFEST]
    return min(found, key=lambda path: (path.count("/"), path), default=None)


def lay_out(paths: Sequence[str], manifest: str | None, content: bytes = b"") -> Layout:
    """Lay out an archive of `paths`, with the `content` of its manifest if it has one.

    Raises:
        UserError: `bad_manifest`, naming the line, never what stands in it.
    """
    if manifest is not None:
        return _by_manifest(frozenset(paths), manifest, content)
    return Layout(_by_names(paths))


def label_of(name: str) -> str | None:
    """Return the label that a name stands for; None when it cannot be one."""
    text = unicodedata.normalize("NFC", name.strip())
    return text if LABEL.fullmatch(text) else None


def _label_of(path: str) -> str | None:
    parts = path.split("/")
    return label_of(parts[-2]) if len(parts) > 1 else UNLABELLED


def _by_names(paths: Sequence[str]) -> dict[str, Part]:
    """Pair masks with images; only what differs from a plain image is returned."""
    masks = [path for path in paths if _is_mask(path)]
    if not masks:
        return {}
    of_image: dict[str, list[str]] = defaultdict(list)
    parts = {mask: Part(is_mask=True, fault="a mask without an image") for mask in masks}
    images = _Images([path for path in paths if path not in parts])
    for mask in masks:
        found = images.of(mask)
        if len(found) > MOST_IMAGES:
            fault = f"a mask whose name fits more than {MOST_IMAGES} images"
            parts[mask] = Part(is_mask=True, fault=fault)
            continue
        for image in found:
            of_image[image].append(mask)
            parts[mask] = Part(is_mask=True)
    for image, own in of_image.items():
        parts[image] = Part(label=_label_of(image), masks=tuple(own))
    return parts


def _is_mask(path: str) -> bool:
    *folders, name = path.lower().split("/")
    return bool(_MASK_FOLDERS & set(folders)) or bool(_MASK_WORDS & _words(name))


class _Images:
    """The images of an archive, found by name in a time that does not grow with their number."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_folder: dict[str, list[str]] = defaultdict(list)
        self._by_word: dict[tuple[str, str], set[int]] = defaultdict(set)
        for at, path in enumerate(paths):
            folder, _, name = path.rpartition("/")
            self._by_stem[_stem(path).lower()].append(path)
            self._by_folder[folder].append(path)
            words = _words(name)
            for word in words if len(words) <= _MOST_WORDS else ():
                self._by_word[folder, word].add(at)

    def of(self, mask: str) -> Sequence[str]:
        """Return the images of a mask, in the order of the archive."""
        folders = mask.split("/")[:-1]
        for at, folder in enumerate(folders):
            if folder.lower() in _MASK_FOLDERS:
                stem = _stem(mask).lower().split("/")
                for other in _IMAGE_FOLDERS:
                    beside = [*stem[:at], *([other] if other else []), *stem[at + 1 :]]
                    if found := self._by_stem.get("/".join(beside)):
                        return found
        beside_it = self._by_folder.get("/".join(folders), [])
        words = _words(mask.rsplit("/", 1)[-1]) - _MASK_WORDS
        # `tumour_mask.nii` beside the only scan of a folder.
        only = beside_it if len(beside_it) == 1 else []
        return (self._with_words("/".join(folders), words) if words else beside_it) or only

    def _with_words(self, folder: str, words: Iterable[str]) -> Sequence[str]:
        """Return the images of a folder that have all of some words."""
        having = sorted((self._by_word.get((folder, word), set()) for word in words), key=len)
        rarest = having[0]
        found = rarest.intersection(*having[1:]) if len(rarest) <= _COMMON else rarest
        return [self._paths[at] for at in sorted(found)]


def _stem(path: str) -> str:
    return _SUFFIXES.sub("", path)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", _stem(name).lower())) - {""}


def _by_manifest(paths: frozenset[str], manifest: str, content: bytes) -> Layout:
    root = manifest.rpartition("/")[0]
    parts: dict[str, Part] = {}
    missing = 0
    for line, row in _rows(content):
        image, mask = (_inside(root, row.get(name, "")) for name in ("image", "mask"))
        if image is None:
            raise _bad(line, "`image` is empty or leaves the archive")
        if image in parts:
            is_mask = parts[image].is_mask
            raise _bad(line, f"its image is {'a mask too' if is_mask else 'listed twice'}")
        if mask is not None and (mask == image or (mask in parts and not parts[mask].is_mask)):
            raise _bad(line, "its mask is an image too")
        if image not in paths:
            missing += 1
            continue
        masks = (mask,) if mask in paths else ()
        missing += bool(row.get("mask")) and not masks
        parts |= {one: Part(is_mask=True) for one in masks}
        parts[image] = _listed(line, row, image, masks)
    parts[manifest] = Part(is_manifest=True)
    return Layout(parts, manifest, missing)


def _listed(line: int, row: dict[str, str], image: str, masks: tuple[str, ...]) -> Part:
    label = label_of(row["label"]) if row.get("label") else None
    if row.get("label") and label is None:
        raise _bad(line, "its label is not letters, digits, spaces and .()+- (at most 64)")
    plane = row.get("plane", "").lower() or None
    if plane is not None and plane not in PLANES:
        raise _bad(line, f"its plane is none of {', '.join(PLANES)}")
    sha256 = row.get("sha256", "").lower() or None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise _bad(line, "its sha256 is not 64 hexadecimal digits")
    return Part(
        label=label or (_label_of(image) if "label" not in row else UNLABELLED),
        group=row.get("group") or None,
        plane=plane,
        sha256=sha256,
        masks=masks,
        is_label_given=label is not None,
    )


def _rows(content: bytes) -> Iterable[tuple[int, dict[str, str]]]:
    """Yield the line and the known columns of each row."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(content[: error.start].count(b"\n") + 1, "it is not UTF-8") from error
    csv.field_size_limit(MAX_CELL)
    dialect: type[csv.Dialect] = csv.excel
    if "\t" in text[:1000].split("\n")[0]:
        dialect = csv.excel_tab
    elif text[:1000].split("\n")[0].count(";") > text[:1000].split("\n")[0].count(","):
        dialect = _Semicolons
    reader = csv.reader(io.StringIO(text, newline=""), dialect, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if "image" not in names:  # as the manifests of our own batches call it
            names = ["image" if name == "file" else name for name in names]
        if "image" not in names or len(set(names)) != len(names):
            known = ", ".join(COLUMNS)
            raise _bad(1, f"its columns need `image`, once, and may be {known}")
        for cells in reader:
            if len(cells) > len(names):
                raise _bad(reader.line_num, "it has more cells than columns")
            if any(cells):
                row = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
                yield reader.line_num, row
    except csv.Error as error:
        detail = f"its quotes do not match, or a cell has over {MAX_CELL} characters"
        raise _bad(reader.line_num, detail) from error


class _Semicolons(csv.excel):
    """What a spreadsheet writes where the comma is a decimal sign."""

    delimiter = ";"


def _inside(root: str, name: str) -> str | None:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        return None
    return "/".join([root, *parts] if root else parts)


def _bad(line: int, detail: str) -> UserError:
    return UserError("bad_manifest", f"{MANIFEST}, line {line}: {detail}; mend it and upload again")
