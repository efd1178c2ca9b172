"""Objects in a bucket of AWS S3 or of any server that speaks its protocol. Needs boto3 (extra `s3`)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage.errors import ArtifactExists, ArtifactNotFound, ChecksumMismatch, StorageFull, StoreUnavailable
from storage.landing import copy_hashing
from storage.objects.base import Content, Listed, Objects, Stored, check_key

_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull"})
_UPLOADS_AT_ONCE = 4
_PARTS_MAX = 10_000


@dataclass(frozen=True)
class S3Options:
    """How to reach a server; what is None is found as boto3 does, from AWS_* variables, files and roles."""

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    profile: str | None = None
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 20.0
    attempts: int = 3
    part_bytes: int = 16 * 2**20  # larger files go in parts of this size
    page_keys: int = 1000  # keys listed or deleted at once


class S3Objects(Objects):
    """A key is an object below `prefix`; its SHA-256 is kept in the object's metadata.

    Keys are looked at before they are written, and written with If-None-Match. A server that ignores this
    header (rclone, older Ceph) leaves a moment in which two writers of one key are not told apart.
    """

    def __init__(self, bucket: str, prefix: str = "", options: S3Options | None = None) -> None:
        self.bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self._options = options or S3Options()
        self._place = f"S3 bucket {bucket!r} at {self._options.endpoint_url or 'AWS'}"
        self._clients: dict[tuple[int, bool], Any] = {}

    def put_file(self, key: str, path: Path) -> Stored:
        check_key(key)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= self._options.part_bytes:
                return self.put_bytes(key, file.read())
            # Read twice: the metadata, which carries the digest, goes before the content.
            stored = Stored(key, size, hashlib.file_digest(file, "sha256").hexdigest())
            file.seek(0)
            return self._put(stored, lambda condition: self._put_parts(stored, file, condition))

    def put_bytes(self, key: str, data: bytes) -> Stored:
        check_key(key)
        stored = Stored(key, len(data), hashlib.sha256(data).hexdigest())

        def send(condition: dict[str, str]) -> None:
            self._client().put_object(**self._at(key), Body=data, Metadata={"sha256": stored.sha256}, **condition)

        return self._put(stored, send)

    def exists(self, key: str) -> bool:
        check_key(key)
        with self._errors():
            if self._head(key) is not None:
                return True
            self._client().head_bucket(Bucket=self.bucket)  # 404 to a key says nothing about the bucket
        return False

    def list(self, prefix: str = "") -> Iterator[Listed]:
        below = self._prefix + (f"{check_key(prefix)}/" if prefix else "")
        with self._errors():
            pages = (
                self._client()
                .get_paginator("list_objects_v2")
                .paginate(
                    Bucket=self.bucket,
                    Prefix=below,
                    PaginationConfig={"PageSize": self._options.page_keys},
                )
            )
            for page in pages:
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # what some consoles put in place of a folder
                        yield Listed(item["Key"].removeprefix(self._prefix), item["Size"])

    def clean(self, older_than_s: float) -> int:
        count, limit = 0, time.time() - older_than_s
        with self._errors():
            client = self._client()
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._prefix)
            with _no_upload_is_none():
                for page in pages:
                    for upload in page.get("Uploads", []):
                        if upload["Initiated"].timestamp() <= limit:
                            place = {"Bucket": self.bucket, "Key": upload["Key"]}
                            with _no_upload_is_none():
                                client.abort_multipart_upload(**place, UploadId=upload["UploadId"])
                                count += 1
        return count

    def check(self) -> None:
        with self._errors():
            self._client(hasty=True).head_bucket(Bucket=self.bucket)

    def upload_link(self, key: str, lifetime_s: int, size_bytes: int) -> str | None:
        check_key(key)
        # The length becomes one of the signed headers, which whoever writes has to send as it was signed.
        told = {**self._at(key), "ContentLength": size_bytes}
        with self._errors():
            link: str = self._client().generate_presigned_url(
                "put_object", Params=told, ExpiresIn=lifetime_s, HttpMethod="PUT"
            )
        return link

    def download_link(self, key: str, lifetime_s: int, disposition: str, media_type: str) -> str | None:
        check_key(key)
        told = {"ResponseContentDisposition": disposition, "ResponseContentType": media_type}
        with self._errors():
            link: str = self._client().generate_presigned_url(
                "get_object", Params={**self._at(key), **told}, ExpiresIn=lifetime_s, HttpMethod="GET"
            )
        return link

    def _open(self, key: str, start: int) -> Content:
        return _Content(self._options.attempts, lambda at: self._body(key, at), start)

    def _body(self, key: str, start: int) -> tuple[Any, int]:
        """The body of an answer that begins at the byte `start`, and where it ends."""
        wanted = {"Range": f"bytes={start}-"} if start else {}
        with self._errors(key):
            try:
                answer = self._client().get_object(**self._at(key), **wanted)
            except ClientError as error:
                if start and _code(error) == "InvalidRange":  # nothing lies behind the end
                    return io.BytesIO(), start
                raise
        return answer["Body"], start + int(answer["ContentLength"])

    def _read(self, key: str, target: BinaryIO, limit_bytes: int | None) -> Stored:
        for attempt in itertools.count(1):
            with self._errors(key):
                answer = self._client().get_object(**self._at(key))
            size = answer["ContentLength"]
            with contextlib.closing(answer["Body"]) as body:
                if limit_bytes is not None and size > limit_bytes:
                    raise ChecksumMismatch(f"{key!r} holds {size} bytes, at most {limit_bytes} were expected")
                try:
                    stored = Stored(key, *copy_hashing(body, target))
                    if stored.size == size:
                        break
                    failure = f"the answer ended after {stored.size} of {size} bytes"
                except BotoCoreError as error:
                    failure = str(error)
            if attempt >= self._options.attempts:
                raise StoreUnavailable(f"{self._place}: {key!r}: {failure}")
            target.seek(0)
            target.truncate()
        kept = _kept_digest(answer)
        if kept is not None and kept != stored.sha256:
            raise ChecksumMismatch(f"{key!r} has the SHA-256 {stored.sha256}, was stored with {kept}")
        return stored

    def _delete(self, keys: Iterable[str]) -> None:
        waiting = iter(keys)
        while some := list(itertools.islice(waiting, self._options.page_keys)):
            wanted = {"Objects": [{"Key": self._prefix + key} for key in some], "Quiet": True}
            with self._errors():
                answer = self._client().delete_objects(Bucket=self.bucket, Delete=wanted)
            for error in answer.get("Errors", []):
                if error.get("Code") not in _MISSING:
                    raise StoreUnavailable(
                        f"{self._place}: {error.get('Key')!r} cannot be deleted: {error.get('Message')}"
                    )

    def _put(self, stored: Stored, send: Callable[[dict[str, str]], None]) -> Stored:
        """Write unless the key is taken, by this content or another."""
        with self._errors(full=True):
            if self._is_taken(stored):
                return stored
            try:
                send({"IfNoneMatch": "*"})
            except ClientError as error:
                code = _code(error)
                if code == "NotImplemented":
                    send({})
                # Taken meanwhile; also by ourselves, when an answer was lost and botocore asked again. Servers that
                # do not know the condition answer the loser of a race with an error of their own (rclone: 500).
                elif not (code in _TAKEN or _is_server_error(error)) or not self._is_taken(stored):
                    raise
        return stored

    def _is_taken(self, stored: Stored) -> bool:
        """Whether this content is under its key already; raises ArtifactExists when other content is."""
        head = self._head(stored.key)
        if head is None:
            return False
        kept = _kept_digest(head)
        if kept is None and head["ContentLength"] == stored.size:
            # Not our writing, or the server forgot: rclone does when restarted.
            kept = self.read_through(stored.key).sha256
        if kept != stored.sha256 or head["ContentLength"] != stored.size:
            raise ArtifactExists(f"other content is stored under {stored.key!r}; keys are written once")
        return True

    def _put_parts(self, stored: Stored, file: BinaryIO, condition: dict[str, str]) -> None:
        client, place = self._client(), self._at(stored.key)
        upload = client.create_multipart_upload(**place, Metadata={"sha256": stored.sha256})["UploadId"]
        try:
            parts = self._send_parts(stored, file, upload)
            client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:
            # What cannot be aborted now is left to `clean`.
            with contextlib.suppress(ClientError, BotoCoreError):
                client.abort_multipart_upload(**place, UploadId=upload)
            raise

    def _send_parts(self, stored: Stored, file: BinaryIO, upload: str) -> Sequence[dict[str, Any]]:
        client, place = self._client(), self._at(stored.key)
        part_bytes = max(self._options.part_bytes, -(-stored.size // _PARTS_MAX))
        digest, parts = hashlib.sha256(), []
        waiting: deque[tuple[int, Future[Any]]] = deque()

        def finish_one() -> None:
            number, future = waiting.popleft()
            parts.append({"PartNumber": number, "ETag": future.result()["ETag"]})

        file.seek(0)
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="s3-upload") as pool:
            for number in itertools.count(1):
                data = file.read(part_bytes)
                if not data:
                    break
                digest.update(data)
                if len(waiting) == _UPLOADS_AT_ONCE:
                    finish_one()
                send = pool.submit(client.upload_part, **place, UploadId=upload, PartNumber=number, Body=data)
                waiting.append((number, send))
            while waiting:
                finish_one()
        if digest.hexdigest() != stored.sha256:
            raise ChecksumMismatch(f"the file for {stored.key!r} changed while it was stored")
        return parts

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            head: dict[str, Any] = self._client().head_object(**self._at(key))
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise
        return head

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._prefix + key}

    def _client(self, hasty: bool = False) -> Any:
        """The client of this process; connections must not be shared with the parent after a fork."""
        place = (os.getpid(), hasty)
        if place not in self._clients:
            try:
                self._clients[place] = client_of(self._options, hasty=hasty)
            except ValueError as error:  # what botocore says of an address that is none
                raise StoreUnavailable(f"{self._place}: {error}") from error
        return self._clients[place]

    @contextlib.contextmanager
    def _errors(self, key: str | None = None, full: bool = False) -> Iterator[None]:
        """Turn what boto3 raises into our errors; `key` is what an answer of 404 would be about."""
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if key is not None and code in _MISSING:
                raise ArtifactNotFound(key) from None
            text = f"{self._place}: {code}: {error.response.get('Error', {}).get('Message', '')}"
            raise (StorageFull(text) if full and code in _FULL else StoreUnavailable(text)) from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"{self._place}: {error}") from error


@contextlib.contextmanager
def _no_upload_is_none() -> Iterator[None]:
    """rclone says of a bucket that never had an upload in parts what others say of one that is gone, or was ended."""
    try:
        yield
    except ClientError as error:
        if _code(error) != "NoSuchUpload":
            raise


def client_of(options: S3Options, *, hasty: bool = False) -> Any:
    """A client of boto3. hasty : whether it gives up at once, for checks. Raises BotoCoreError and ValueError."""
    session = boto3.session.Session(
        profile_name=options.profile,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        region_name=options.region,
    )
    config = Config(
        signature_version="s3v4",
        connect_timeout=min(1.0, options.connect_timeout_s) if hasty else options.connect_timeout_s,
        read_timeout=min(2.0, options.read_timeout_s) if hasty else options.read_timeout_s,
        retries={"total_max_attempts": 1 if hasty else options.attempts, "mode": "standard"},
        max_pool_connections=16,
        # Servers differ in the newer checksums; the signature covers a digest of the content in any case.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if options.endpoint_url else "auto",
            "payload_signing_enabled": True,
        },
    )
    return session.client(
        "s3",
        endpoint_url=options.endpoint_url,
        region_name=session.region_name or "us-east-1",
        config=config,
    )


class _Content:
    """An object on its way; when the connection breaks, another one goes on from there: keys are written once."""

    def __init__(self, attempts: int, ask: Callable[[int], tuple[Any, int]], start: int) -> None:
        """ask : the body from a place on, and where it ends."""
        self._attempts = attempts
        self._ask = ask
        self._at = start
        self._body, self._end = ask(start)

    def read(self, amount: int, /) -> bytes:
        for attempt in itertools.count(1):
            try:
                data: bytes = self._body.read(amount)
                if data or self._at >= self._end or not amount:
                    self._at += len(data)
                    return data
                failure = f"the answer ended at byte {self._at} of {self._end}"
            except BotoCoreError as error:
                failure = str(error)
            if attempt >= self._attempts:
                break
            self._body.close()
            self._body, _ = self._ask(self._at)
        raise StoreUnavailable(f"an object cannot be read: {failure}")

    def close(self) -> None:
        self._body.close()


def _kept_digest(answer: dict[str, Any]) -> str | None:
    """The SHA-256 in the metadata; None for objects that others wrote, or whose metadata the server forgot."""
    for name, value in answer.get("Metadata", {}).items():
        if name.lower() == "sha256":  # servers differ in the case of names
            return str(value)
    return None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_server_error(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return bool(status >= 500)
