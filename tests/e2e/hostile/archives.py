"""Archives: names that lead elsewhere, links, bombs, torn ends, and directories that lie."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence

from tests.e2e.hostile.exhibits import GOOD, Answer, encoded, good_files, picture, zipped

ACCEPTED, DUPLICATE = "accepted", "same pixels as file"
LEAVES, SYSTEM, LINK, IRREGULAR = (
    "path leaves the archive",
    "system file",
    "links are not followed",
    "not a regular file",
)
BOMB = "suspicious compression ratio"
TORN = "the archive is damaged or truncated here"
LONG = "its path is longer than 1000 characters or deeper"
NO_IMAGE = "not an image"
END = "(end of the archive)"
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_ZEROS = bytes(1 << 20)
good = tuple((path, ACCEPTED) for path in GOOD)


def archives() -> dict[str, tuple[bytes, Answer]]:
    """Return archives and what is said of each, by what is wrong with it."""
    return dict([*_mixed(), *_bombs(), *_torn(), *_liars(), *_useless()])


def refused() -> dict[str, tuple[bytes, int]]:
    """Return bodies that are not taken at all, and the status of the answer."""
    return {
        "nothing": (b"", 422),
        "an empty tar": (_tar([]), 415),
        "a picture": (encoded(picture(1)) * 4, 415),
        "text": (b"no archive " * 99, 415),
        "rar": (b"Rar!\x1a\7\1\0" + bytes(600), 415),
        "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(600), 415),
        "a zip's signature, shifted": (b"\0PK\x03\x04" + bytes(600), 415),
    }


def _mixed() -> Iterator[tuple[str, tuple[bytes, Answer]]]:
    files, verdicts = _bad_names()
    specials, more = _specials()
    verdicts |= more
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (good_files() | files).items():
            archive.writestr(name, data)
        for info, data in specials:
            archive.writestr(info, data)
    content = _encrypted(buffer.getvalue(), b"set/x/encrypted.png")
    yield "a zip of all kinds", (content, Answer(verdicts=(*good, *verdicts.items())))
    yield "a tar of all kinds", _tar_of_all_kinds()
    yield "names twice, and in other cases", _colliding()


def _bad_names() -> tuple[dict[str, bytes], dict[str, str]]:
    text = b"not looked at"
    leaving = (
        *("../../outside.png", "/etc/outside.png", "C:\\outside.png", "set\\..\\..\\outside.png"),
        *("set/../../outside.png", "//host/share/outside.png", "\\\\host\\share\\outside.png"),
    )
    system = ("__MACOSX/set/._0.png", "set/.DS_Store", "set/Thumbs.db", ".ssh/authorized_keys")
    files = dict.fromkeys((*leaving, *system), text)
    # Python's zipfile writes a backslash as it is, and reads it as one where it runs on Linux.
    verdicts = dict.fromkeys(leaving, LEAVES) | dict.fromkeys(system, SYSTEM)
    files |= {"set/\x1b[31mred\x07.png": text, "set/\u202egnp.exe": text, "set/a\nb.png": text}
    verdicts |= {
        f"set/{_REPLACED}[31mred{_REPLACED}.png": NO_IMAGE,
        f"set/{_REPLACED}gnp.exe": NO_IMAGE,
        f"set/a{_REPLACED}b.png": NO_IMAGE,
    }
    files |= {f"set/{'n' * 65_000}.png": text, "set/CON.png": text, "set/ .png": text}
    verdicts |= {
        f"set/{'n' * 65_000}.png"[:300]: LONG,
        "set/CON.png": NO_IMAGE,
        "set/ .png": NO_IMAGE,
    }
    folder = "<script>alert(1)</script>"
    files[f"{folder}/x.png"] = encoded(picture(10))
    verdicts[f"{folder}/x.png"] = NO_IMAGE_FOLDER
    return files, verdicts


NO_IMAGE_FOLDER = "the name of its folder cannot be a label"


def _specials() -> tuple[list[tuple[zipfile.ZipInfo, bytes]], dict[str, str]]:
    found, verdicts = [], {}
    inner = zipped({"set/inner/0.png": encoded(picture(11))})
    for name, mode, data, verdict in (
        ("link.png", stat.S_IFLNK, b"/etc/passwd", LINK),
        ("device.png", stat.S_IFBLK, b"", IRREGULAR),
        ("pipe.png", stat.S_IFIFO, b"", IRREGULAR),
        ("encrypted.png", stat.S_IFREG, encoded(picture(12)), "encrypted"),
        ("nested.zip", stat.S_IFREG, inner, NO_IMAGE),
        ("nested.tar.gz", stat.S_IFREG, gzip.compress(_tar([("0.png", b"x")])), "gzip"),
        ("bomb.png", stat.S_IFREG, _ZEROS * 24, BOMB),
        ("zeros.png", stat.S_IFREG, _ZEROS, NO_IMAGE),
        ("empty.png", stat.S_IFREG, b"", "the file is empty"),
    ):
        info = zipfile.ZipInfo(f"set/x/{name}")
        info.external_attr = (mode | 0o777) << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        found.append((info, data))
        verdicts[info.filename] = verdict
    other = zipfile.ZipInfo("set/x/bzip2.png")
    other.compress_type = zipfile.ZIP_BZIP2
    found.append((other, encoded(picture(13))))
    verdicts[other.filename] = "compressed by a method other than deflate"
    return found, verdicts


def _encrypted(content: bytes, name: bytes) -> bytes:
    """Set the flag of encryption of one entry, in both of its headers."""
    data = bytearray(content)
    data[data.index(name) - 30 + 6] |= 1
    data[data.rindex(name) - 46 + 8] |= 1
    return bytes(data)


def _tar_of_all_kinds() -> tuple[bytes, Answer]:
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    verdicts: list[tuple[str, str]] = []

    def add(name: str, kind: bytes, verdict: str, data: bytes = b"", target: str = "") -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, len(data), target
        members.append((info, data))
        verdicts.append((name[:300], verdict))

    for path, data in good_files().items():
        add(path, tarfile.REGTYPE, ACCEPTED, data)
    add("set/symbolic.png", tarfile.SYMTYPE, LINK, target="/etc/passwd")
    add("set/hard.png", tarfile.LNKTYPE, LINK, target="set/good/0.png")
    add("set/outward.png", tarfile.LNKTYPE, LINK, target="../../../etc/shadow")
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        add(f"set/device-{kind.decode()}.png", kind, IRREGULAR)
    add("/etc/outside.png", tarfile.REGTYPE, LEAVES, b"x")
    add("../outside.png", tarfile.REGTYPE, LEAVES, b"x")
    add(f"set/{'n' * 70_000}.png", tarfile.REGTYPE, LONG, b"x")
    add("set/unknown-type.png", b"Z", IRREGULAR, b"x")
    add(f"set/{'folder/' * 60}deep.png", tarfile.REGTYPE, LONG, b"x")
    add("set/good/again.png", tarfile.REGTYPE, DUPLICATE, good_files()[GOOD[0]])
    return _tar(members), Answer(verdicts=tuple(verdicts))


def _tar(members: Sequence[tuple[tarfile.TarInfo | str, bytes]], *, end: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for named, data in members:
            info = tarfile.TarInfo(named) if isinstance(named, str) else named
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        size_bytes = archive.offset
    return buffer.getvalue() if end else buffer.getvalue()[:size_bytes]


def _colliding() -> tuple[bytes, Answer]:
    """Have names come twice, with other pixels; names are never paths, so each is a file."""
    entries = [
        *good_files().items(),
        (GOOD[0], encoded(picture(20))),
        ("set/good/0.PNG", encoded(picture(21))),
        ("SET/GOOD/0.png", encoded(picture(22))),
        ("set/good/caf\u00e9.png", encoded(picture(23))),
        ("set/good/cafe\u0301.png", encoded(picture(24))),
    ]
    return _tar(entries), Answer(verdicts=tuple((name, ACCEPTED) for name, _ in entries))


def _bombs() -> Iterator[tuple[str, tuple[bytes, Answer]]]:
    members = [(name, data) for name, data in good_files().items()]
    info = tarfile.TarInfo("set/bomb.png")
    info.size = 64 << 20
    bomb = gzip.compress(_tar(members, end=False) + info.tobuf() + _ZEROS * 64, 9)
    yield "a tar.gz that is a bomb", (bomb, Answer(verdicts=(*good, ("set/bomb.png", BOMB))))
    yield "entries that overlap", _overlapping()
    yield "a directory of a million files", (_many(1_000_000), Answer("too_many_entries"))
    names = [(f"set/{number}/{'n' * 900_000}", b"x") for number in range(8)]
    long_names = gzip.compress(_tar([*members, *names]), 9)
    verdicts = [(name[:300], LONG) for name, _ in names]
    yield "names of a megabyte", (long_names, Answer(verdicts=(*good, *verdicts)))
    yield "headers in a chain", _chained_headers()


def _overlapping() -> tuple[bytes, Answer]:
    """Let a thousand entries share the bytes of one, which inflates to 9 MB."""
    content = zipped({"set/x/zeros.png": _ZEROS * 9})
    at = content.index(_CENTRAL)
    central = content[at : content.index(_END)]
    return _closed(content[:at], central * 1000, 1000), Answer(OVERLAP_ERROR)


OVERLAP_ERROR = (
    # Newer Pythons refuse to open such an entry, others read it and the total is bounded.
    "no_usable_images" if hasattr(zipfile.ZipInfo("x"), "_end_offset") else "archive_too_large"
)


def crowd(count: int) -> tuple[bytes, Answer]:
    """Return a zip of very many files that are no images."""
    names = [f"set/crowd/{number}.png" for number in range(count)]
    files = good_files() | dict.fromkeys(names, b"no image")
    return zipped(files), Answer(verdicts=(*good, *((name, NO_IMAGE) for name in names)))


def _many(count: int) -> bytes:
    content = zipped({"x": b""})
    at = content.index(_CENTRAL)
    central = content[at : content.index(_END)]
    return _closed(content[:at], central * count, count)


def _closed(front: bytes, central: bytes, count: int) -> bytes:
    """Write a directory, and the record at the end in both of its forms."""
    size_bytes, start = len(central), len(front)
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size_bytes, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + size_bytes, 1)
    few = min(count, 0xFFFF)
    end = struct.pack("<4s4H2LH", _END, 0, 0, few, few, size_bytes, start, 0)
    return front + central + (zip64 + locator if few < count else b"") + end


def _chained_headers() -> tuple[bytes, Answer]:
    """Put ten thousand extended headers before one file: a reader may recurse for each."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 12
    record = header.tobuf() + b"12 path=abc\n".ljust(512, b"\0")
    front = _tar([(name, data) for name, data in good_files().items()], end=False)
    torn = (GOOD[-1], TORN)
    return front + record * 10_000, Answer(verdicts=(*good, torn))


def _torn() -> Iterator[tuple[str, tuple[bytes, Answer]]]:
    files = good_files() | {"set/x/last.png": encoded(picture(30))}
    content = zipped(files)
    torn = (END, TORN)
    short = content[: content.index(b"set/x/last.png") + 100]
    yield "a truncated zip", (short, Answer(verdicts=(*good, torn)))
    no_end = content[: content.index(_END)]
    last = ("set/x/last.png", ACCEPTED)
    yield "a zip without its end", (no_end, Answer(verdicts=(*good, last, torn)))
    tar = _tar(list(files.items()))
    packed = gzip.compress(tar)
    yield (
        "a truncated tar.gz",
        (packed[:-400], Answer(verdicts=(*good, ("set/x/last.png", TORN)))),
    )
    damaged = bytearray(tar)
    damaged[tar.index(b"set/x/last.png") + 150] ^= 0xFF  # its checksum
    yield "a tar with a damaged header", (bytes(damaged), Answer(verdicts=(*good, torn)))


def _liars() -> Iterator[tuple[str, tuple[bytes, Answer]]]:
    files = good_files() | {"set/x/liar.png": encoded(picture(31))}
    liar = ("set/x/liar.png", "damaged in the archive")
    for what, offset, value in (
        ("too small a size", 24, struct.pack("<I", 10)),
        ("another checksum", 16, b"\1\2\3\4"),
        ("an offset beyond the file", 42, struct.pack("<I", 0x7FFFFFFF)),
    ):
        data = bytearray(zipped(files))
        at = data.rindex(b"set/x/liar.png") - 46 + offset
        data[at : at + 4] = value
        yield f"a zip with {what}", (bytes(data), Answer(verdicts=(*good, liar)))
    yield (
        "a zip64 that lies",
        (_lying_zip64(files), Answer(verdicts=(*good, ("set/x/liar.png", ACCEPTED)))),
    )
    data = bytearray(zipped(files))
    end = data.index(_END)
    data[end + 12 : end + 20] = struct.pack("<2I", 0xFFFFFF00, 0xFFFFFF00)
    whole = (*good, ("set/x/liar.png", ACCEPTED), (END, TORN))
    yield "a directory beyond the file", (bytes(data), Answer(verdicts=whole))


def _lying_zip64(files: dict[str, bytes]) -> bytes:
    """Claim sizes of 2^63 in an extra field of the last entry, in its two headers."""
    name = b"set/x/liar.png"
    content = zipped(files)
    local = content.rindex(_LOCAL, 0, content.index(name))
    front, central_at = content[:local], content.index(_CENTRAL)
    central = content[central_at : content.index(_END)]
    extra = struct.pack("<2H2Q", 1, 16, 1 << 63, 1 << 63)
    most = b"\xff" * 4
    entry = bytearray(content[local : local + 30])
    entry[18:26], entry[28:30] = most * 2, struct.pack("<H", len(extra))
    body = content[local + 30 + len(name) : central_at]
    listed = bytearray(central)
    at = listed.rindex(name) - 46
    listed[at + 20 : at + 28], listed[at + 30 : at + 32] = most * 2, struct.pack("<H", len(extra))
    return _closed(front + bytes(entry) + name + extra + body, bytes(listed) + extra, len(files))


def _useless() -> Iterator[tuple[str, tuple[bytes, Answer]]]:
    yield "an empty zip", (zipped({}), Answer("no_usable_images"))
    yield "a gzip of text", (gzip.compress(b"text" * 999), Answer("unsupported_archive"))
    only_nested = zipped({"set/0.zip": zipped(good_files())})
    yield "only an archive", (only_nested, Answer("no_usable_images", (("set/0.zip", NO_IMAGE),)))
    labels = {f"label {number}/x.png": encoded(picture(2000 + number)) for number in range(101)}
    yield "too many labels", (zipped(labels), Answer("too_many_labels"))
