"""Walk the main job through the REST API of a running service; the API key comes on stdin.

usage: python3 deploy/smoke.py API_URL STORAGE_URL <key

It needs nothing but Python, so that it runs wherever the service is deployed from. Everything it
makes it deletes again, from the report back to the dataset.
"""
# ruff: noqa: INP001, S310 - a script; http to the given host

import hashlib
import io
import json
import random
import struct
import sys
import time
import urllib.request
import zipfile
import zlib
from email.message import Message
from typing import Any

LABELS = ("glioma", "meningioma")
IMAGES_PER_LABEL, SIDE_PX = 24, 64
TRAINING = {
    "image_size": 64,
    "total_images": 64,
    "snapshot_images": 32,
    "batch_size": 8,
    "latent_size": 16,
    "generator_channels": 16,
    "discriminator_channels": 8,
}
TIMEOUT_S = 300.0


# With these two handlers alone it follows no redirect, raises at no status and asks no proxy.
_opener = urllib.request.OpenerDirector()
_opener.add_handler(urllib.request.HTTPHandler())
_opener.add_handler(urllib.request.HTTPSHandler())


def main(api: str, storage: str, key: str) -> None:
    """Walk dataset, generator, sample batch and report; raise at the first wrong answer."""
    request("GET", f"{api}/v1/datasets", None, expect=401)
    request("GET", f"{storage}/gliaforge", None, expect=403)

    def call(method: str, path: str, body: object = None, *, expect: int) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        answer, _ = request(method, f"{api}{path}", key, data, expect=expect)
        return json.loads(answer) if answer else {}

    def finish(path: str) -> dict[str, Any]:
        start = time.monotonic()
        while time.monotonic() - start < TIMEOUT_S:
            resource = call("GET", path, expect=200)
            if resource["status"] == "ready":
                say(f"{path.split('/')[2]} ready after {time.monotonic() - start:.1f} s")
                return resource
            check(resource["status"] not in {"failed", "cancelled"}, f"{path}: {resource['job']}")
            time.sleep(0.5)
        raise SystemExit(f"smoke: {path} is {resource['status']} after {TIMEOUT_S:.0f} s")

    made = []
    dataset = call("POST", "/v1/datasets", {"name": "smoke", "kind": "real"}, expect=201)
    made.append(f"/v1/datasets/{dataset['id']}")
    call("PUT", f"{made[-1]}/content?filename=smoke.zip", dataset_zip(), expect=202)
    dataset = finish(made[-1])
    check(set(dataset["labels"]) == set(LABELS), f"labels {dataset['labels']}")
    check(dataset["rejected_count"] == 1, "the text file among the images was not rejected")

    wish = {"name": "smoke", "dataset_id": dataset["id"], "preset": "demo", "config": TRAINING}
    generator = call("POST", "/v1/generators", wish, expect=202)
    made.append(f"/v1/generators/{generator['id']}")
    generator = finish(made[-1])
    check(generator["images_seen"] >= TRAINING["total_images"], "it saw too few images")

    counts = dict.fromkeys(LABELS, 4)
    wish = {"generator_id": generator["id"], "counts": counts, "seed": 1, "format": "png"}
    made.append(f"/v1/sample-batches/{call('POST', '/v1/sample-batches', wish, expect=202)['id']}")
    batch = finish(made[-1])
    check_archive(api, storage, key, made[-1], released=batch["released"])

    wish = {"real_dataset_id": dataset["id"], "sample_batch_id": batch["id"], "profile": "quick"}
    made.append(f"/v1/reports/{call('POST', '/v1/reports', wish, expect=202)['id']}")
    report = finish(made[-1])
    check(bool(report["metrics"]) and bool(report["verdicts"]), "the report is empty")
    for path in reversed(made):
        call("DELETE", path, expect=204)
    say("deleted what was made")


def check_archive(api: str, storage: str, key: str, path: str, *, released: int) -> None:
    """Fetch the batch through a presigned URL of the public endpoint and check every digest."""
    _, headers = request("GET", f"{api}{path}/archive", key, expect=307)
    location = headers["Location"]
    check(location.startswith(f"{storage}/"), f"signed for {location.split('?')[0]}")
    data, _ = request("GET", location, None, expect=200)
    request("GET", location.replace("Signature=", "Signature=0"), None, expect=403)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        images = [name for name in archive.namelist() if name.endswith(".png")]
        digests = {hashlib.sha256(archive.read(name)).hexdigest() for name in images}
        manifest = archive.read("manifest.csv").decode()
    check(len(images) == released == len(LABELS) * 4, f"{len(images)} images, {released} released")
    check(all(digest in manifest for digest in digests), "the manifest knows other images")
    say(f"{len(images)} images of {len(data)} bytes came from the storage")


def request(
    method: str, url: str, key: str | None, data: bytes | None = None, *, expect: int
) -> tuple[bytes, Message]:
    """Return body and headers of an answer whose status is `expect`; leave at any other."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if data is not None:
        headers["Content-Type"] = "application/zip" if data[:2] == b"PK" else "application/json"
    asked = urllib.request.Request(url, data, headers, method=method)
    answer = _opener.open(asked, timeout=60)
    assert answer is not None, "one of the handlers knows http"
    with answer:
        status, body = answer.status, answer.read()
    place = url.partition("?")[0]
    check(status == expect, f"{method} {place}: {status}, not {expect}: {body[:300]!r}")
    return body, answer.headers


def dataset_zip() -> bytes:
    """Return a zip of small images of two labels, and one file that is no image."""
    drawing = random.Random(0)  # noqa: S311 - pictures, not secrets
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for label in LABELS:
            for number in range(IMAGES_PER_LABEL):
                name = f"{label}/patient{number:02d}_slice0.png"
                archive.writestr(name, png(head(drawing, bright=label == LABELS[0])))
        archive.writestr(f"{LABELS[0]}/notes.txt", "not an image")
    return packed.getvalue()


def head(drawing: random.Random, *, bright: bool) -> list[list[int]]:
    """Return rows of grey values: an ellipse with a round spot, and coarse noise."""
    wide, high = drawing.uniform(16, 28), drawing.uniform(18, 30)
    spot = drawing.uniform(20, 44), drawing.uniform(20, 44), drawing.uniform(3, 9)
    grain = [[drawing.gauss(0, 25) for _ in range(SIDE_PX // 4)] for _ in range(SIDE_PX // 4)]

    def grey(x: int, y: int) -> int:
        if ((x - 32) / wide) ** 2 + ((y - 32) / high) ** 2 > 1:
            return 0
        is_spot = (x - spot[0]) ** 2 + (y - spot[1]) ** 2 < spot[2] ** 2
        tissue = (230 if bright else 40) if is_spot else 120
        return min(255, max(1, round(tissue + grain[y // 4][x // 4])))

    return [[grey(x, y) for x in range(SIDE_PX)] for y in range(SIDE_PX)]


def png(rows: list[list[int]]) -> bytes:
    """Return an 8-bit grayscale PNG (ISO/IEC 15948), every line without a filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        size, checksum = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", size) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(row) for row in rows)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def check(holds: bool, message: str) -> None:  # noqa: FBT001 - it is what an assertion takes
    """Leave with `message` unless the claim holds."""
    if not holds:
        raise SystemExit(f"smoke: {message}")


def say(text: str) -> None:
    """Tell the operator."""
    sys.stdout.write(f"smoke: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2].rstrip("/"), sys.stdin.readline().strip())
