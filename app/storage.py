"""Objects in S3: keys, streaming uploads, uploads by signed parts, ranges, presigned downloads.

Two endpoints: the internal one moves bytes, the public one is signed into URLs, since a presigned
URL signs its host. Keys are `tenants/<tenant>/<kind>/<id>/...`, and `incoming/<tenant>/<id>/...`
for what was uploaded and not yet ingested; a name from an archive is never part of a key.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import structlog
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header
from botocore.loaders import Loader

from app.errors import UnavailableError, UploadIncompleteError
from app.threads import Pool

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        LifecycleRuleTypeDef,
        ObjectIdentifierTypeDef,
    )

log = structlog.get_logger()
PART_BYTES = 8 << 20
"""Size of an uploaded part; S3 takes at most 10,000, so objects of up to 78 GiB."""

INCOMING = "incoming/"
STORAGE_ERRORS = (BotoCoreError, ClientError, Boto3Error)
"""What a storage that fails raises; the last is of transfers in parts."""
UPLOAD_LIFETIME_S = 86400.0
"""Unless the settings say otherwise."""
_ABORT_RULE = "abort-incomplete-uploads"
_GONE = {"NoSuchUpload", "NoSuchKey", "404"}


def resource_prefix(tenant_id: str, kind: str, resource_id: str) -> str:
    """Return the key prefix below which everything of one resource lies."""
    return f"tenants/{tenant_id}/{kind}/{resource_id}/"


def incoming_prefix(tenant_id: str, resource_id: str) -> str:
    """Return the key prefix below which what was uploaded for a resource waits for its ingest."""
    return f"{INCOMING}{tenant_id}/{resource_id}/"


@dataclass(frozen=True)
class StoredPart:
    """A part of an upload that the server has; its ETag is without quotes."""

    number: int
    etag: str
    size_bytes: int


class _Descriptions(Loader):
    """Botocore's descriptions of services, without the addresses of AWS's three hundred others.

    They take 7 MB for good, in a process of which half is no more than its code.
    """

    def load_data_with_path(self, name: str) -> tuple[dict[str, Any], str]:
        described, path = super().load_data_with_path(name)
        if name == "endpoints":
            for partition in described["partitions"]:
                services = partition["services"]
                partition["services"] = {"s3": services["s3"]} if "s3" in services else {}
        return described, path


class Storage:
    """One bucket of an S3 server."""

    def __init__(
        self,
        *,
        endpoint_internal: str,
        endpoint_public: str,
        region: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        ca: Path | None = None,
    ) -> None:
        """Prepare two clients; nothing is connected before the first call.

        By TLS, the storage's certificate must be signed by one of `ca`, or of botocore's own.
        """
        self.bucket = bucket
        core = botocore.session.Session()
        core.register_component("data_loader", _Descriptions())
        session = boto3.Session(access_key, secret_key, region_name=region, botocore_session=core)
        config = Config(
            signature_version="s3v4",
            user_agent="gliaforge",  # to compose one takes a fifth of a small request
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 4},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=20,
            # Trailing checksums on every part cost a third of the throughput and not every server
            # knows them; TLS, or loopback, and the ETags of the parts guard the way.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self.client: S3Client = session.client(
            "s3",
            endpoint_url=endpoint_internal,
            config=config,
            verify=None if ca is None else str(ca),
        )
        # To ask whether a body is welcome costs a way there and back for each; ours are.
        self.client.meta.events.unregister("before-call.s3", add_expect_header)
        self._public: S3Client = session.client("s3", endpoint_url=endpoint_public, config=config)

    def close(self) -> None:
        """Close the connections of both clients."""
        self.client.close()
        self._public.close()

    def ensure_bucket(self, *, upload_lifetime_s: float = UPLOAD_LIFETIME_S) -> None:
        """Create the bucket if it is not there, and have it forget uploads that nobody completes.

        A server, or a key, that takes no rules is taken as it is: retention does the same.
        """
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError:
            self.client.create_bucket(Bucket=self.bucket)
        try:
            self._drop_uploads_after(upload_lifetime_s)
            self._allow_browsers()
        except ClientError as error:
            log.info("bucket_rules_refused", error=error.response["Error"].get("Code"))

    def _drop_uploads_after(self, lifetime_s: float) -> None:
        """Have the server drop incomplete uploads itself, after whole days; other rules stay."""
        rule: LifecycleRuleTypeDef = {
            "ID": _ABORT_RULE,
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {
                "DaysAfterInitiation": max(1, math.ceil(lifetime_s / 86400))
            },
        }
        try:
            known = self.client.get_bucket_lifecycle_configuration(Bucket=self.bucket)["Rules"]
        except ClientError as error:
            if error.response["Error"].get("Code") != "NoSuchLifecycleConfiguration":
                raise
            known = []
        if rule not in known:
            others = [one for one in known if one.get("ID") != _ABORT_RULE]
            self.client.put_bucket_lifecycle_configuration(
                Bucket=self.bucket, LifecycleConfiguration={"Rules": [*others, rule]}
            )

    def _allow_browsers(self) -> None:
        """Let pages of any origin use signed URLs, which need no cookie; other rules stay."""
        try:
            self.client.get_bucket_cors(Bucket=self.bucket)
        except ClientError as error:
            if error.response["Error"].get("Code") != "NoSuchCORSConfiguration":
                raise
            rule = {
                "AllowedMethods": ["GET", "HEAD", "PUT"],
                "AllowedOrigins": ["*"],
                "AllowedHeaders": ["*"],
                "ExposeHeaders": ["ETag"],  # which completing an upload asks for
                "MaxAgeSeconds": 3600,
            }
            self.client.put_bucket_cors(
                Bucket=self.bucket,
                CORSConfiguration={"CORSRules": [rule]},  # type: ignore[list-item]  # it is one
            )

    def is_reachable(self) -> bool:
        """Tell whether the bucket answers."""
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except STORAGE_ERRORS:
            return False
        return True

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store `data` under `key`; complete or absent."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type)

    def put_file(
        self,
        key: str,
        path: Path,
        content_type: str = "application/octet-stream",
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Store a file under `key`, in parts and in parallel when it is large.

        `on_bytes` is told, in other threads, how many more bytes went.
        """
        extra = {"ContentType": content_type}
        self.client.upload_file(str(path), self.bucket, key, ExtraArgs=extra, Callback=on_bytes)

    def get(self, key: str) -> bytes:
        """Return a whole small object."""
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes of the object from offset `start`."""
        span = f"bytes={start}-{start + length - 1}"
        return self.client.get_object(Bucket=self.bucket, Key=key, Range=span)["Body"].read()

    def size_of(self, key: str) -> int | None:
        """Return the size of the object in bytes, or None if there is none."""
        try:
            return self.client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if _is_gone(error):
                return None
            raise

    def get_file(self, key: str, path: Path) -> None:
        """Fetch the object into a file."""
        self.client.download_file(self.bucket, key, str(path))

    def presigned_get(self, key: str, *, lifetime_s: int, filename: str | None = None) -> str:
        """Return a URL that fetches the object for `lifetime_s` seconds without a key."""
        parameters = {"Bucket": self.bucket, "Key": key}
        if filename:
            parameters["ResponseContentDisposition"] = f'attachment; filename="{filename}"'
        return self._public.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=lifetime_s
        )

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix`."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        ):
            for entry in page.get("Contents", ()):
                yield entry["Key"]

    def keys_older_than(self, prefix: str, age: timedelta) -> Iterator[str]:
        """Yield the keys below `prefix` that were written longer than `age` ago."""
        before = datetime.now(UTC) - age
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        ):
            for entry in page.get("Contents", ()):
                if entry["LastModified"] < before:
                    yield entry["Key"]

    def copy(self, source: str, key: str) -> None:
        """Store a second object like `source`, of at most 5 GiB, without the bytes coming here.

        It is complete or absent, and does not depend on the first.
        """
        self.client.copy_object(
            Bucket=self.bucket, Key=key, CopySource={"Bucket": self.bucket, "Key": source}
        )

    def delete(self, key: str) -> None:
        """Delete the object; one that is not there is no error."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def abort_uploads_older_than(self, age: timedelta) -> int:
        """Drop the parts of uploads that nobody completed or aborted; return how many there were.

        They belong to processes that were killed, and no listing of objects shows them.
        """
        return self._abort_uploads("", datetime.now(UTC) - age)

    def abort_uploads_below(self, prefix: str) -> int:
        """Drop the parts of every upload to a key below `prefix`; return how many there were."""
        return self._abort_uploads(prefix, datetime.max.replace(tzinfo=UTC))

    def _abort_uploads(self, prefix: str, before: datetime) -> int:
        stale = [
            upload
            for page in self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=prefix
            )
            for upload in page.get("Uploads", ())
            if upload["Initiated"] < before
        ]
        for upload in stale:
            self.abort_upload(upload["Key"], upload["UploadId"])
        return len(stale)

    def begin_upload(self, key: str) -> str:
        """Begin an upload by signed parts and return what the server calls it."""
        return self.client.create_multipart_upload(
            Bucket=self.bucket, Key=key, ContentType="application/octet-stream"
        )["UploadId"]

    def signed_part(
        self, key: str, upload_id: str, number: int, size_bytes: int, *, lifetime_s: int
    ) -> str:
        """Return a URL to PUT one part at for `lifetime_s` seconds; its size is signed too."""
        return self._public.generate_presigned_url(
            "upload_part",
            Params={
                "Bucket": self.bucket,
                "Key": key,
                "UploadId": upload_id,
                "PartNumber": number,
                "ContentLength": size_bytes,
            },
            ExpiresIn=lifetime_s,
        )

    def stored_parts(self, key: str, upload_id: str) -> list[StoredPart] | None:
        """Return the parts that the server has, by number; None if it knows no such upload.

        SeaweedFS lists a part that was sent twice twice; others know the last alone.
        """
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=key, UploadId=upload_id
        )
        try:
            found = [
                StoredPart(part["PartNumber"], part["ETag"].strip('"'), part["Size"])
                for page in pages
                for part in page.get("Parts", ())
            ]
        except ClientError as error:
            if _is_gone(error):
                return None
            raise
        return sorted(set(found), key=lambda part: (part.number, part.etag))

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        """Make one object of the parts, each a number and an ETag; again is no error.

        Raises:
            UploadIncompleteError: if the server has them no more.
        """
        named: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in parts
        ]
        try:
            self.client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": named}
            )
        except ClientError as error:
            if error.response["Error"].get("Code") not in {"InvalidPart", *_GONE}:
                raise
            if self.size_of(key) is None:
                raise UploadIncompleteError("the storage lacks parts that were named") from error

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop the parts of an upload; one that is not there is no error."""
        try:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if not _is_gone(error):
                raise

    def delete_prefix(self, prefix: str) -> int:
        """Delete every object below `prefix`; return how many there were.

        Raises:
            UnavailableError: if the server kept one of them.
        """
        keys = list(self.keys(prefix))
        self.delete_all(keys)
        return len(keys)

    def delete_all(self, keys: Sequence[str]) -> None:
        """Delete the objects; one that is not there is no error.

        Raises:
            UnavailableError: if the server kept one of them.
        """
        for start in range(0, len(keys), 1000):  # the most that one request takes
            batch: list[ObjectIdentifierTypeDef] = [
                {"Key": key} for key in keys[start : start + 1000]
            ]
            answer = self.client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}
            )
            if kept := answer.get("Errors"):
                raise UnavailableError(f"object storage kept {len(kept)} of {len(batch)} objects")

    def multipart(self, key: str, content_type: str) -> "MultipartUpload":
        """Start an upload whose size is not known; see `MultipartUpload`."""
        return MultipartUpload(self, key, content_type)


def _is_gone(error: ClientError) -> bool:
    return error.response["Error"].get("Code") in _GONE


class MultipartUpload:
    """Store a stream in parts: the object exists only once `complete` returns.

    At most `IN_FLIGHT` parts are held in memory, so a 1 GB body costs some 32 MB.
    """

    IN_FLIGHT = 3

    def __init__(self, storage: Storage, key: str, content_type: str) -> None:
        """Open the upload on the server."""
        self._storage = storage
        self._key = key
        self._id = storage.client.create_multipart_upload(
            Bucket=storage.bucket, Key=key, ContentType=content_type
        )["UploadId"]
        self._pool = Pool(self.IN_FLIGHT, thread_name_prefix="part")
        self._pending: list[Future[CompletedPartTypeDef]] = []
        self._parts: list[CompletedPartTypeDef] = []
        self._count = 0

    def close(self) -> None:
        """Abort what was not completed, so that no part is left behind."""
        self._pool.shutdown(cancel_futures=True)
        if self._id:
            self._storage.client.abort_multipart_upload(
                Bucket=self._storage.bucket, Key=self._key, UploadId=self._id
            )
            self._id = ""

    def add(self, part: bytes | bytearray) -> None:
        """Send one part of at least 5 MiB (the last may be smaller), waiting while too many are."""
        self._count += 1
        self._pending.append(self._pool.submit(self._send, self._count, part))
        while len(self._pending) >= self.IN_FLIGHT:
            self._parts.append(self._pending.pop(0).result())

    def _send(self, number: int, part: bytes | bytearray) -> "CompletedPartTypeDef":
        answer = self._storage.client.upload_part(
            Bucket=self._storage.bucket,
            Key=self._key,
            UploadId=self._id,
            PartNumber=number,
            Body=part,  # type: ignore[arg-type]  # botocore takes a bytearray; the stubs do not
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def complete(self) -> None:
        """Make the object appear.

        Raises:
            UnavailableError: if the server did not take it; nothing is left behind.
        """
        try:
            self._parts.extend(pending.result() for pending in self._pending)
            self._storage.client.complete_multipart_upload(
                Bucket=self._storage.bucket,
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={"Parts": self._parts},
            )
        except STORAGE_ERRORS as error:
            raise UnavailableError("object storage did not take the upload; try again") from error
        self._id = ""
