"""Redis, the records, the object store, and whether their clocks agree with this machine's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.doctor.findings import Found, fail, ok, warn
from cli.ready import without_password
from settings import Settings, is_loopback
from storage.errors import LiveUnavailable, RecordsUnavailable, StorageError
from storage.live import Live
from storage.objects import connect
from storage.records import Records

_OLDEST_REDIS = (6, 2)
_FULL = 0.9
_SKEW_WARN_S, _SKEW_FAIL_S = 1.0, 5.0
_CONTENT = b"written by modelyard doctor"
_WORDS_OF_A_PASSWORD = ("NOAUTH", "WRONGPASS", "Authentication", "AUTH", "password")
_WORDS_OF_A_ROLE = ("password authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")
_WORDS_OF_A_KEY = (
    *("AccessDenied", "Forbidden", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("Unable to locate credentials", "Partial credentials"),
)


@contextmanager
def live_of(settings: Settings) -> Iterator[Live]:
    """The live state, closed afterwards."""
    live = Live(settings.live_url)
    try:
        yield live
    finally:
        live.close()


@contextmanager
def records_of(settings: Settings) -> Iterator[Records]:
    """The records, closed afterwards. Raises RecordsUnavailable; makes no file where none is."""
    records = Records.connect(settings.database_url, settings.quotas)
    try:
        file = records.database.url.database
        if records.database.is_sqlite and file and not Path(file).exists():
            raise RecordsUnavailable(f"{file} is not there yet; run `modelyard db upgrade`")
        yield records
    finally:
        records.close()


# Redis


def redis(settings: Settings) -> Found:
    """Reachable, let in, new enough, not evicting, writable, and not open to others."""
    shown = without_password(settings.live_url)
    try:
        with live_of(settings) as live:
            facts = live.facts()
    except LiveUnavailable as error:
        yield fail(f"{shown}: {error}", _redis_cure(settings, str(error)))
        return
    yield from _redis_version(shown, facts)
    yield from _redis_keeps(facts)
    yield from _redis_writes(facts)
    yield from _redis_door(settings, shown)


def _redis_cure(settings: Settings, error: str) -> str:
    if any(word in error for word in _WORDS_OF_A_PASSWORD):
        return "put user and password into MODELYARD_REDIS_URL, as in redis://:PASSWORD@HOST:6379/0"
    if settings.redis_url is None:
        return "start it with everything else: modelyard up; or name a running one in MODELYARD_REDIS_URL"
    return "start it, or correct MODELYARD_REDIS_URL"


def _redis_version(shown: str, facts: dict[str, Any]) -> Found:
    version = str(facts.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_REDIS:
        yield fail(f"{shown} is Redis {version}", "install Redis 6.2 or later")
    else:
        yield ok(f"Redis {version} at {shown}")


def _redis_keeps(facts: dict[str, Any]) -> Found:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield fail(f"it throws keys away when it is full ({policy})", "set maxmemory-policy noeviction in redis.conf")
    else:
        yield ok("it throws nothing away (noeviction)")
    most, used = int(facts.get("maxmemory", 0)), int(facts.get("used_memory", 0))
    if most and used > _FULL * most:
        yield warn(f"it uses {used / most:.0%} of its maxmemory", "raise maxmemory: it refuses writes when it is full")


def _redis_writes(facts: dict[str, Any]) -> Found:
    if facts.get("role") not in {None, "master"}:
        yield fail(f"it is a {facts['role']}, which takes no writes", "name the primary in MODELYARD_REDIS_URL")
    if "err" in {facts.get("rdb_last_bgsave_status"), facts.get("aof_last_write_status")}:
        cure = 'free its disk, or turn persistence off (save "", appendonly no): Modelyard needs none'
        yield fail("it cannot save to its disk, and may refuse writes until it can", cure)
    elif facts.get("aof_enabled"):
        yield ok("it keeps a log of its writes (appendonly), which Modelyard does not need")
    else:
        yield ok("it keeps no log of its writes, and none is needed")


def _redis_door(settings: Settings, shown: str) -> Found:
    address = urlsplit(settings.live_url)
    if address.scheme == "unix" or address.password or is_loopback(address.hostname or ""):
        return
    cure = "set requirepass and name it in MODELYARD_REDIS_URL: whoever can write to Redis can command the workers"
    yield warn(f"{shown} asks for no password", cure)


# Records


def records(settings: Settings) -> Found:
    """Reachable, and of the form that this program needs."""
    shown = without_password(settings.database_url)
    try:
        with records_of(settings) as found:
            found.check()
            if found.database.is_sqlite:
                _check_sqlite(Path(str(found.database.url.database)))
    except RecordsUnavailable as error:
        yield fail(f"{shown}: {str(error).partition('; run')[0]}", _records_cure(str(error)))
    except StorageError as error:
        yield fail(f"{shown}: {error}", "free some space")
    except PermissionError as error:
        yield fail(f"{error.filename} cannot be written", "give it to the user who runs Modelyard (chown)")
    else:
        yield ok(f"{shown} answers and its tables are up to date")


def _records_cure(error: str) -> str:
    if "db upgrade" in error:
        return "run: modelyard db upgrade"
    if any(word in error for word in _WORDS_OF_A_ROLE):
        return "correct user, password and database in MODELYARD_DATABASE_URL; pg_hba.conf must let this machine in"
    return "start the database, or correct MODELYARD_DATABASE_URL"


def _check_sqlite(file: Path) -> None:
    for path in (file, file.with_name(f"{file.name}-wal")):
        if path.exists():
            path.open("ab").close()


# Objects


def objects(settings: Settings) -> Found:
    """What is written can be read and deleted again."""
    shown = without_password(settings.objects_url)
    place = Path(settings.objects_url.removeprefix("file://"))
    if settings.objects_url.startswith("file://") and not place.is_dir():
        yield warn(f"{place} is not there yet", "start a part (modelyard up), which makes it")
        return
    try:
        store = connect(settings.objects_url, endpoint_url=settings.s3_endpoint_url)
        key = f"doctor/{secrets.token_hex(8)}"
        store.put_bytes(key, _CONTENT)
        is_same = store.get_bytes(key) == _CONTENT
        store.delete([key])
        is_gone = not store.exists(key)
    except (StorageError, ValueError) as error:
        yield fail(f"{shown}: {error}", _objects_cure(settings, str(error)))
        return
    if not is_same or not is_gone:
        what = "gives back what was deleted" if is_same else "gives back something else than was written"
        yield fail(f"{shown} {what}", "use a store that is consistent; a cache may stand before it")
    else:
        yield ok(f"{shown} writes, reads and deletes")


def _objects_cure(settings: Settings, error: str) -> str:
    if not settings.objects_url.startswith("s3://"):
        return "give the folder to the user who runs Modelyard, or name another one in MODELYARD_OBJECTS_URL"
    if "NoSuchBucket" in error:
        return "create the bucket, or correct MODELYARD_OBJECTS_URL"
    if any(word in error for word in _WORDS_OF_A_KEY):
        return (
            "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and give that key the right to read, write and delete"
        )
    return "start the S3 server, or correct MODELYARD_S3_ENDPOINT_URL and MODELYARD_OBJECTS_URL"


# Clocks


def clocks(settings: Settings) -> Found:
    """How far the clocks of Redis and of the database are from this machine's."""
    yield from _skew("Redis", lambda: _redis_clock(settings))
    yield from _skew("the database", lambda: _database_clock(settings))


def _redis_clock(settings: Settings) -> tuple[float, float]:
    with live_of(settings) as live:
        live.check()  # connecting takes time that says nothing
        return _between(lambda: float(live.facts()["clock_s"]))


def _database_clock(settings: Settings) -> tuple[float, float]:
    with records_of(settings) as found:
        found.clock_s()
        return _between(found.clock_s)


def _between(ask: Callable[[], float]) -> tuple[float, float]:
    """Seconds that another clock is ahead, and how wrong that may be."""
    before = time.time()
    there = ask()
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2


def _skew(name: str, measure: Callable[[], tuple[float, float]]) -> Found:
    try:
        ahead_s, unsure_s = measure()
    except StorageError:
        yield fail(f"the clock of {name} cannot be asked", f"mend {name} first")
        return
    off_s = max(0.0, abs(ahead_s) - unsure_s)
    text = f"this machine's clock and that of {name} are {abs(ahead_s):.2f} s apart"
    cure = "let NTP set both (chrony, systemd-timesyncd)"
    yield fail(text, cure) if off_s > _SKEW_FAIL_S else warn(text, cure) if off_s > _SKEW_WARN_S else ok(text)
