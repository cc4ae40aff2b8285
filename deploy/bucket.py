"""Write every object of the bucket to standard output as a tar, or put them back from one.

deploy/backup.sh and deploy/restore.sh hand it to the API's image, whose settings it takes:
`python -I -c "$(cat deploy/bucket.py)" save >objects.tar`, `load <objects.tar`, `fingerprint`,
`check REVISION FINGERPRINT`.
"""
# ruff: noqa: INP001 - a script

import sys
import tarfile
from typing import IO, cast

from botocore.exceptions import ClientError

from app import migrations
from app.parts import make_parts
from app.secrecy import Secrecy
from app.settings import settings
from app.storage import Storage

CONTENT_TYPE = "GLIAFORGE.content_type"


class Stream:
    """What can be read once; a member of a streamed tar says that it can seek, and cannot."""

    def __init__(self, body: IO[bytes]) -> None:
        """Read from `body`."""
        self.read = body.read


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    match arguments:
        case ["save"]:
            count, size_bytes = save(make_parts(settings()).storage, sys.stdout.buffer)
            sys.stderr.write(f"{count} objects of {size_bytes} bytes\n")
        case ["load"]:
            count, size_bytes = load(make_parts(settings()).storage, sys.stdin.buffer)
            sys.stderr.write(f"{count} objects of {size_bytes} bytes\n")
        case ["fingerprint"]:
            sys.stdout.write(_fingerprint() + "\n")
        case ["check", revision, fingerprint]:
            if not migrations.knows(revision):
                raise SystemExit(f"this version does not know the tables of revision {revision}")
            if _fingerprint() != fingerprint:
                raise SystemExit(
                    "DATA_KEY in .env is not the one of this backup: names of files could not be"
                    " read, and patients would get other pseudonyms. See deploy/data-key.sh"
                )
        case _:
            raise SystemExit(__doc__)


def save(storage: Storage, out: IO[bytes]) -> tuple[int, int]:
    """Write the objects, in the order of their keys; return their number and size in bytes.

    One that is deleted meanwhile is left out: while nothing deletes what a row refers to, it was
    an upload that somebody gave up.
    """
    count = size_bytes = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for key in storage.keys(""):
            try:
                found = storage.client.get_object(Bucket=storage.bucket, Key=key)
            except ClientError as error:
                if error.response["Error"].get("Code") != "NoSuchKey":
                    raise
                continue
            entry = tarfile.TarInfo(key)
            entry.size = found["ContentLength"]
            entry.mtime = int(found["LastModified"].timestamp())
            entry.pax_headers = {CONTENT_TYPE: found["ContentType"]}
            archive.addfile(entry, cast("IO[bytes]", found["Body"]))
            count += 1
            size_bytes += entry.size
    return count, size_bytes


def load(storage: Storage, source: IO[bytes]) -> tuple[int, int]:
    """Store the objects of a tar in an empty bucket; return their number and size in bytes.

    Raises:
        SystemExit: if the bucket holds an object already, or not all of these in the end.
    """
    storage.ensure_bucket()
    if next(storage.keys(""), None) is not None:
        raise SystemExit("the bucket is not empty")
    count = size_bytes = 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for entry in archive:
            body = archive.extractfile(entry)
            assert body is not None, "save writes files alone"
            extra = {"ContentType": entry.pax_headers[CONTENT_TYPE]}
            stream = cast("IO[bytes]", Stream(body))
            storage.client.upload_fileobj(stream, storage.bucket, entry.name, ExtraArgs=extra)
            count += 1
            size_bytes += entry.size
    stored = sum(1 for _ in storage.keys(""))
    if stored != count:
        raise SystemExit(f"the bucket holds {stored} of {count} objects")
    return count, size_bytes


def _fingerprint() -> str:
    return Secrecy(settings().data_key.get_secret_value()).fingerprint()


if __name__ == "__main__":
    main(sys.argv[1:])
