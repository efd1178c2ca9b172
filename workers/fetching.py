"""Data of other hosts for one piece of work: fetched into the cache of the machine, and held there until it is done."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import Retrying, retry_if_exception, wait_random_exponential

from logs.context import carried
from ml.errors import BadInput
from settings import Settings
from storage.errors import FetchAbandoned, FetchFailed
from storage.objects.cache import Cache
from storage.remote import Limits, Origin, RemoteFiles, WebOrigin
from storage.remote_address import FOLDER, Place, is_bucket, place_of, shown

if TYPE_CHECKING:
    from storage.buckets import Buckets

_TRIES, _AT_ONCE = 3, 4
Json = dict[str, Any]
_Found = TypeVar("_Found")

Fetch = Callable[[Sequence[str], bool], list[list[Json]]]
"""From addresses to the files that each names, as {"path", "name"}; the flag says whether it may name a folder."""


class Fetching:
    """Fetches into a room of the cache; made by `fetching`.

    within_s : seconds for all of it; inf to give each file the time that the settings say.
    """

    def __init__(
        self, settings: Settings, files: RemoteFiles, room: Path, within_s: float, is_wanted: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._files = files
        self._room = room
        self._deadline = time.monotonic() + within_s
        self._is_wanted = is_wanted
        self._counting = threading.Lock()
        self._count = self._bytes = 0

    def __call__(self, entries: Sequence[str], with_folders: bool) -> list[list[Json]]:
        """What each entry names, fetched a few at once.

        Raises BadInput when something cannot be fetched, FetchAbandoned when nobody wants it any more, StorageFull,
        StoreUnavailable.
        """
        failed = threading.Event()
        origins = [_told(entry, partial(self._origins, entry, with_folders)) for entry in entries]

        def one(entry: str, origin: Origin) -> Json:
            try:
                return _told(entry, lambda: self._file(origin, lambda: not failed.is_set()))
            except BaseException:
                failed.set()  # what else is under way is of no use then
                raise

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
            jobs = [
                [pool.submit(carried(one), entry, origin) for origin in named]
                for entry, named in zip(entries, origins, strict=True)
            ]
        errors = [error for each in jobs for job in each if (error := job.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, FetchAbandoned)):
            raise error
        return [[job.result() for job in each] for each in jobs]

    def _origins(self, entry: str, with_folders: bool) -> Sequence[Origin]:
        if not is_bucket(entry):
            return [WebOrigin(entry, self._settings.fetch_allow)]
        place, server = place_of(entry, self._settings.data_s3_buckets), self._settings.data_endpoint_url
        from storage.buckets import BucketOrigin

        buckets = _buckets(server, self._settings.data_s3_profile)
        limits = self._limits(self._is_wanted)
        places: Sequence[Place] = [place]
        if place.is_folder and not with_folders:
            raise FetchFailed(FOLDER)
        if place.is_folder or (with_folders and not _again(lambda _: buckets.holds(place), limits)):
            places = _again(lambda _: buckets.files_in(place), limits)
            if not places:
                raise FetchFailed("there is no such object, nor a folder of that name with objects")
        return [BucketOrigin(buckets, each, server or "") for each in places]

    def _file(self, origin: Origin, is_wanted: Callable[[], bool]) -> Json:
        with self._counting:
            self._count += 1
            path = self._room / str(self._count)
        limits = self._limits(lambda: is_wanted() and self._is_wanted())
        size = _again(lambda limits: self._files.provide(origin, path, limits), limits)
        with self._counting:
            self._bytes += size
            if self._bytes > self._settings.fetch_limit_bytes:
                raise FetchFailed(f"with it more than {self._settings.fetch_limit_bytes} bytes are fetched in all")
        return {"path": str(path), "name": origin.shown}

    def _limits(self, is_wanted: Callable[[], bool]) -> Limits:
        left_s = max(0.001, self._deadline - time.monotonic())
        left_bytes = max(0, self._settings.fetch_limit_bytes - self._bytes)
        return Limits(left_bytes, min(left_s, self._settings.fetch_timeout_s), is_wanted)


@contextlib.contextmanager
def fetching(
    settings: Settings, cache: Cache, *, within_s: float = float("inf"), is_wanted: Callable[[], bool]
) -> Iterator[Fetch]:
    """What fetches for one piece of work; what it fetched is kept from eviction until the block ends."""
    made: Fetching | None = None
    with contextlib.ExitStack() as held:

        def fetch(entries: Sequence[str], with_folders: bool) -> list[list[Json]]:
            nonlocal made
            if made is None:  # most work fetches nothing, and needs no room
                room = held.enter_context(cache.room())
                made = Fetching(settings, _files(cache, settings.cache / "remote"), room, within_s, is_wanted)
            return made(entries, with_folders)

        yield fetch


@cache
def _files(cache: Cache, folder: Path) -> RemoteFiles:
    return RemoteFiles(cache, folder)


@cache
def _buckets(endpoint_url: str | None, profile: str | None) -> Buckets:
    try:
        from storage.buckets import Buckets
    except ImportError as error:
        if error.name not in {"boto3", "botocore"}:
            raise
        raise FetchFailed("s3:// needs boto3; install modelyard[s3]") from error
    return Buckets(endpoint_url, profile)


def _again(do: Callable[[Limits], _Found], limits: Limits) -> _Found:
    """What `do` returns, tried again after what may pass."""
    left_s = limits.clock()
    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, FetchFailed) and error.is_transient),
        stop=lambda state: state.attempt_number >= _TRIES or left_s() <= 0 or not limits.is_wanted(),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    )(lambda: do(replace(limits, timeout_s=max(0.001, left_s()))))


def _told(entry: str, do: Callable[[], _Found]) -> _Found:
    """What `do` returns. Raises BadInput, with the address as far as it may be told."""
    try:
        return do()
    except FetchAbandoned:
        raise
    except FetchFailed as error:
        raise BadInput(f"data cannot be read from {shown(entry)!r}: {error}") from None
