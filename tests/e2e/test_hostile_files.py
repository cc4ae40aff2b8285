"""Hostile and broken files: each gets its verdict, the good ones beside it are taken, nobody dies.

The memory of all processes of the service together is watched meanwhile.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.laptop import Running
from tests.e2e.hostile import archives, dicoms, images, niftis, tables
from tests.e2e.hostile.exhibits import GOOD, Answer, Exhibit, among_good, good_files, zipped

MEMORY_BYTES = 3 << 30
"""Of all processes together, pages that they share counted once: 1.2 to 1.6 GiB were seen with an
ingest and a training under way."""
MEMORY_OF_LARGEST_BYTES = 4608 << 20
"""With volumes of 250 MB: the decoder has some copies of one, and the ingest two: 2 GiB."""
SAMPLE_S = 0.5
"""To count the pages of all processes takes a tenth of a second of a core. A decoder that takes
much for less long is stopped by its own limit (`CHILD_MEMORY_BYTES`)."""
TIMEOUT_S = 400.0
Resource = dict[str, Any]
Found = list[tuple[str, str]]


class MemoryWatch(threading.Thread):
    """Adds up the memory of all that this process has started, again and again.

    What forked processes share counts once among them.
    """

    def __init__(self) -> None:
        super().__init__(name="memory", daemon=True)
        self.peak_bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until told to end, and at what is left then."""
        while not self._ended.wait(SAMPLE_S):
            self._look()
        self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(map(_own_bytes, _processes())))

    def end(self) -> int:
        """Return the most that there was, in bytes."""
        self._ended.set()
        self.join()
        return self.peak_bytes


def _processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _own_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended, or is about to
        return 0


def _workers() -> set[int]:
    """Return the processes that take ingests."""
    return {one.pid for one in _processes() if any("cpu.ingest" in word for word in _words(one))}


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it has ended, perhaps unattended
        return []


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest, service: Running, api: httpx.Client) -> Iterator[None]:
    """Have the service live on with the same workers, and within its memory."""
    workers = _workers()
    assert workers
    watch = MemoryWatch()
    watch.start()
    yield
    peak_bytes = watch.end()
    is_large = request.node.get_closest_marker("slow") is not None
    most_bytes = MEMORY_OF_LARGEST_BYTES if is_large else MEMORY_BYTES
    assert 0 < peak_bytes < most_bytes, f"{peak_bytes / 2**20:.0f} MiB"
    assert _workers() == workers
    assert api.get("/livez").status_code == api.get("/readyz").status_code == 200


def ingest(api: httpx.Client, content: bytes) -> str:
    """Upload an archive and return the path of its dataset."""
    path: str = api.post("/v1/datasets", json={"name": "hostile"}).headers["location"]
    answer = api.put(f"{path}/content", content=content)
    assert answer.status_code == 202, answer.text
    return path


def ended(api: httpx.Client, path: str) -> Resource:
    """Follow an ingest to its end, whichever that is."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        dataset: Resource = api.get(path).raise_for_status().json()
        if dataset["job"]["status"] in {"succeeded", "failed"}:
            return dataset
        assert time.monotonic() < deadline_s, dataset
        time.sleep(0.1)


def verdicts(api: httpx.Client, path: str) -> Found:
    """Return the name of each file of a dataset, with its reason if it was not accepted."""
    found: Found = []
    after: int | None = -1
    while after is not None:
        answer = api.get(f"{path}/files", params={"limit": 100, "after": after})
        page = answer.raise_for_status().json()
        found += [(one["name"], one["reason"] or one["verdict"]) for one in page["data"]]
        after = page["next_cursor"]
    return found


def wrong(found: Found, expected: Sequence[tuple[str, str]]) -> Found:
    """Return what differs; an expected reason is some words of the one that was found."""
    found, expected = sorted(found), sorted(expected)
    different = [
        mine
        for mine, theirs in zip(found, expected, strict=False)
        if mine[0] != theirs[0] or theirs[1] not in mine[1]
    ]
    longer = max(found, expected, key=len)
    return different + longer[min(len(found), len(expected)) :]


def check_family(api: httpx.Client, exhibits: Sequence[Exhibit]) -> None:
    """Ingest all exhibits of a family among good files, and compare each verdict."""
    path = ingest(api, among_good(exhibits))
    dataset = ended(api, path)
    assert dataset["status"] == "ready", dataset["error"]
    expected = [(one.path, one.reason or "accepted") for one in exhibits]
    found = verdicts(api, path)
    assert wrong(found, [*expected, *((name, "accepted") for name in GOOD)]) == []


def check_archives(api: httpx.Client, cases: Mapping[str, tuple[bytes, Answer]]) -> None:
    """Ingest archives, several at a time, and compare what is said of each."""
    paths = {name: ingest(api, content) for name, (content, _) in cases.items()}
    different = {}
    for name, path in paths.items():
        answer = cases[name][1]
        dataset = ended(api, path)
        code = dataset["error"]["code"] if dataset["error"] else None
        files = verdicts(api, path)
        if code != answer.error or (answer.verdicts and wrong(files, answer.verdicts)):
            different[name] = (dataset["error"], wrong(files, answer.verdicts))
    assert different == {}


def test_images(api: httpx.Client) -> None:
    check_family(api, images.exhibits())


def test_dicom_files(api: httpx.Client) -> None:
    check_family(api, dicoms.exhibits())


def test_nifti_files(api: httpx.Client) -> None:
    check_family(api, niftis.exhibits())


def test_arrays_are_never_unpickled(api: httpx.Client, tmp_path: Path) -> None:
    trap = tmp_path / "unpickled"
    check_family(api, tables.arrays(trap))
    assert not trap.exists()


def test_manifests(api: httpx.Client) -> None:
    check_archives(api, tables.manifests())


def test_archives(api: httpx.Client) -> None:
    check_archives(api, archives.archives())


def test_what_is_no_archive_is_not_taken(api: httpx.Client) -> None:
    for name, (content, status) in archives.refused().items():
        path = api.post("/v1/datasets", json={"name": "hostile"}).headers["location"]
        answer = api.put(f"{path}/content", content=content)
        assert answer.status_code == status, name
        assert answer.headers["content-type"] == "application/problem+json"
        assert api.get(path).json()["status"] == "empty"
        api.delete(path).raise_for_status()


@pytest.mark.slow
def test_a_hundred_thousand_files(api: httpx.Client) -> None:
    check_archives(api, {"a hundred thousand": archives.crowd(100_000)})


@pytest.mark.slow
def test_volumes_as_large_as_are_accepted(api: httpx.Client) -> None:
    check_family(api, niftis.largest(8))


def test_good_files_are_taken_afterwards(api: httpx.Client) -> None:
    path = ingest(api, zipped(good_files()))
    assert ended(api, path)["image_count"] == len(GOOD)
