"""Files in buckets of S3 that requests may name. Needs boto3 (extra `s3`)."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

from storage.errors import FetchAbandoned, FetchFailed, NoSuchFile
from storage.fetch import Fetched, Known, Seen
from storage.landing import CHUNK, landing, local_errors
from storage.objects.s3 import S3Options, client_of
from storage.remote import Limits
from storage.remote_address import Place

FILES_MAX = 10_000
_PIECE = 1 << 14
_RANGE = re.compile(r"bytes 0-[0-9]{1,18}/([0-9]{1,18})")
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_TRANSIENT = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})


class Buckets:
    """A server of S3. Safe to share between threads, not with a process that is forked."""

    def __init__(self, endpoint_url: str | None, profile: str | None, *, hurry_s: float | None = None) -> None:
        """endpoint_url : None for AWS. profile : of the files with credentials; None to find them as boto3 does.

        hurry_s : seconds that it has to answer, once; None for patience.
        """
        self._options = S3Options(endpoint_url=endpoint_url, profile=profile)
        if hurry_s is not None:
            half = hurry_s / 2  # to connect, and to answer
            self._options = replace(self._options, connect_timeout_s=half, read_timeout_s=half, attempts=1)
        self._making = threading.Lock()

    def files_in(self, place: Place) -> list[Place]:
        """The objects right in a folder, by name, but for those whose names begin with a dot. Raises FetchFailed."""
        prefix = place.key if place.is_folder else f"{place.key}/"
        found: list[str] = []
        with _told():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=place.bucket, Prefix=prefix, Delimiter="/"):
                found += [each["Key"] for each in page.get("Contents", [])]
                if len(found) > FILES_MAX:
                    raise FetchFailed(f"it holds more than {FILES_MAX} objects")
        # What some consoles put in place of a folder ends with a slash.
        names = [key for key in found if not key.endswith("/") and not key.removeprefix(prefix).startswith(".")]
        return [Place(place.bucket, key) for key in sorted(names)]

    def holds(self, place: Place) -> bool:
        """Whether there is an object of that name. Raises FetchFailed."""
        try:
            with _told():
                self._client.head_object(Bucket=place.bucket, Key=place.key)
        except NoSuchFile:
            return False
        return True

    def look(self, place: Place, count: int, timeout_s: float) -> Seen:
        """Size and first bytes of an object; what this server is not told, or not within that time, is not seen.

        Raises NoSuchFile, and FetchFailed when there is no such bucket.
        """
        until, seen = time.monotonic() + timeout_s, Seen()
        try:
            with _told():
                answer = self._first(place, count)
            with contextlib.closing(answer["Body"]) as body:
                seen = Seen(_size(answer))
                # Who packed it may have meant it to be unpacked: then these are not the bytes of the file.
                if seen.size is None or answer.get("ContentEncoding"):
                    return seen
                limits = Limits(count, until - time.monotonic(), lambda: True)
                found = _first_of(body, min(count, seen.size), limits)
            return seen if found is None else Seen(seen.size, found)
        except NoSuchFile:
            raise
        except FetchFailed as error:
            # Not when it may not be read: who fetches it may have other credentials.
            if isinstance(error.__cause__, ClientError) and _code(error.__cause__) == "NoSuchBucket":
                raise
            return seen

    def _first(self, place: Place, count: int) -> Any:
        """The answer with the first bytes of an object; with all where there are none, or a server gives no parts."""
        try:
            return self._client.get_object(Bucket=place.bucket, Key=place.key, Range=f"bytes=0-{count - 1}")
        except ClientError as error:
            if _status(error) != 416:
                raise
            return self._client.get_object(Bucket=place.bucket, Key=place.key)

    def fetch(self, place: Place, path: Path, known: Known | None, limits: Limits) -> Fetched | None:
        """The object at `path`; None when it is still the one that `known` tells of. Raises FetchFailed."""
        with _told():
            condition = {} if known is None else {"IfNoneMatch": known.etag}
            try:
                answer = self._client.get_object(Bucket=place.bucket, Key=place.key, **condition)
            except ClientError as error:
                if known is not None and _status(error) == 304:
                    return None
                raise
        with contextlib.closing(answer["Body"]) as body:
            if answer["ContentLength"] > limits.bytes:
                raise FetchFailed(f"it is larger than {limits.bytes} bytes")
            size, digest = 0, hashlib.sha256()
            with local_errors(f"{path.name} cannot be written"), landing(path, durable=False) as file:
                for chunk in _chunks(body, limits):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                if size != answer["ContentLength"]:
                    raise FetchFailed(f"it broke off after {size} bytes", is_transient=True)
        etag = str(answer.get("ETag", ""))
        return Fetched(size, digest.hexdigest(), Known(str(place), etag, "") if etag else None)

    @cached_property
    def _made(self) -> Any:
        return client_of(self._options)

    @property
    def _client(self) -> Any:
        with self._making:  # clients may be shared between threads, but not made by two at once
            return self._made


@dataclass(frozen=True)
class BucketOrigin:
    """An object in a bucket, as `storage.remote.Origin` has it. server : its endpoint; empty for AWS."""

    buckets: Buckets
    place: Place
    server: str

    @property
    def name(self) -> str:
        """The address, with the server: buckets of two servers may have the same name."""
        return f"{self.server} {self.place}"

    @property
    def shown(self) -> str:
        """The address as it was written."""
        return str(self.place)

    def fetch(self, path: Path, known: Known | None, limits: Limits) -> Fetched | None:
        """See `storage.remote.Origin`."""
        return self.buckets.fetch(self.place, path, known, limits)


def _chunks(body: Any, limits: Limits, size: int = CHUNK) -> Iterator[bytes]:
    clock = limits.clock()
    while True:
        if not limits.is_wanted():
            raise FetchAbandoned("it is not wanted any more")
        if clock() <= 0:
            raise FetchFailed(f"it did not come in full within {limits.timeout_s:g} seconds")
        with _told():
            chunk: bytes = body.read(size)
        if not chunk:
            return
        yield chunk


def _first_of(body: Any, count: int, limits: Limits) -> bytes | None:
    """So many bytes; None when there are fewer. Raises FetchFailed."""
    found = bytearray()
    for chunk in _chunks(body, limits, _PIECE):
        found += chunk
        if len(found) >= count:
            return bytes(found[:count])
    return None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what boto3 raises into FetchFailed."""
    try:
        yield
    except ClientError as error:
        _fail(error)
    except (NoCredentialsError, ProfileNotFound) as error:
        raise FetchFailed("this server has no credentials for it") from error
    except (BotoCoreError, OSError) as error:
        raise FetchFailed("the S3 server does not answer, or broke off", is_transient=True) from error
    except ValueError as error:  # what botocore says of an address that is none
        raise FetchFailed("the address of the S3 server cannot be used") from error


def _fail(error: ClientError) -> NoReturn:
    code, status = _code(error), _status(error)
    if code in _MISSING:
        raise NoSuchFile("there is no such object") from error
    if code == "NoSuchBucket":
        raise FetchFailed("there is no such bucket") from error
    if status in (401, 403):
        raise FetchFailed("the S3 server does not let this server read it") from error
    raise FetchFailed(
        f"the S3 server answered {code[:80] or status}", is_transient=status >= 500 or code in _TRANSIENT
    ) from error


def _size(answer: Mapping[str, Any]) -> int | None:
    """Bytes of the object of which an answer holds the first, or all; None where that is not told."""
    if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
        return int(answer["ContentLength"])
    found = _RANGE.fullmatch(answer.get("ContentRange", ""))
    return None if found is None else int(found[1])


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
