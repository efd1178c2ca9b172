"""One typed object with everything that an operator may set, read from the environment once."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


class BadSetting(Exception):
    """An environment variable holds a value that Modelyard cannot use; the text names the variable."""


def _setting(
    variable: str,
    text: str,
    read: Callable[[str], Any],
    default: Any = None,
    factory: Callable[[], Any] | None = None,
    is_secret: bool = False,
) -> Any:
    metadata = {"variable": variable, "text": text, "read": read, "is_secret": is_secret}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def _text(value: str) -> str:
    return value


def _path(value: str) -> Path:
    return Path(value).expanduser().absolute()


def _paths(value: str) -> tuple[Path, ...]:
    return tuple(_path(part) for part in value.split(os.pathsep) if part)


def _names(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _login(value: str) -> str:
    # Flower takes several, divided by commas.
    if not re.fullmatch(r"[^:,\s]+:[^,\s]{8,}", value):
        raise ValueError("must be user:password, the password of 8 characters or more, without commas and spaces")
    return value


def _word(*allowed: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.strip().lower() not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}")
        return value.strip().lower()

    return read


def _hosts(value: str) -> tuple[str, ...]:
    names = _names(value)
    for name in names:
        if "/" in name:
            ipaddress.ip_network(name, strict=False)  # its own error says what is wrong
        elif not re.fullmatch(r"[\w.-]+|\[?[0-9a-fA-F:.]+\]?", name):
            raise ValueError(f"{name!r} is no host, no address and no network")
    return names


def _origins(value: str) -> tuple[str, ...]:
    names = _names(value)
    if "*" in names and len(names) > 1:
        raise ValueError("'*' admits every origin already; leave the others out")
    return tuple(name if name == "*" else _origin(name) for name in names)


def _origin(name: str) -> str:
    """An origin as browsers write it: without a path, in lower case, and without the port that goes without saying."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", name.lower())
    if found is None:
        # Also `null`, which every page can make itself.
        raise ValueError(f"{name!r} is no origin; write scheme, host and port only, as in https://app.example.org")
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" + ("" if port in (None, {"http": ":80", "https": ":443"}.get(scheme)) else port)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"must lie between {low} and {high}")
        return number

    return read


def _seconds(low: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        number = float(value)
        if not low <= number < float("inf"):
            raise ValueError(f"must be at least {low} seconds")
        return number

    return read


def _delays(value: str) -> tuple[float, ...]:
    delays = tuple(_seconds(0.1)(name) for name in _names(value))
    if not delays:
        raise ValueError("must be seconds with commas between them, such as 5,30,120")
    return delays


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine only; any name but `localhost` may lead anywhere."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Settings:
    """Every setting, with its environment variable, its unit and its default."""

    home: Path = _setting(
        "MODELYARD_HOME",
        "Folder that holds the state of this machine: records, objects, caches, scratch folders, sockets and logs.",
        _path,
        factory=lambda: Path.home() / ".modelyard",
    )
    host: str = _setting(
        "MODELYARD_HOST",
        "Address the API listens on. Anything but a loopback address needs at least one key.",
        _text,
        "127.0.0.1",
    )
    port: int = _setting("MODELYARD_PORT", "Port the API listens on.", _whole(1, 65535), 8080)
    data_roots: tuple[Path, ...] = _setting(
        "MODELYARD_DATA_ROOTS",
        "Folders, separated by colons, that requests may read data from and keep repositories in. "
        "Default: the folder `data` inside MODELYARD_HOME.",
        _paths,
        (),
    )
    redis_url: str | None = _setting(
        "MODELYARD_REDIS_URL",
        "Redis for queues and live state, as redis://, rediss:// or unix://. "
        "Default: a private server that `modelyard up` starts inside MODELYARD_HOME.",
        _text,
    )
    database_url: str = _setting(
        "MODELYARD_DATABASE_URL",
        "SQLAlchemy address of the records: sqlite:///file or postgresql+psycopg://…. "
        "Default: records.db inside MODELYARD_HOME.",
        _text,
        "",
    )
    objects_url: str = _setting(
        "MODELYARD_OBJECTS_URL",
        "Where artifacts lie: file:///folder or s3://bucket/prefix. Default: the folder `objects` in MODELYARD_HOME.",
        _text,
        "",
    )
    s3_endpoint_url: str | None = _setting(
        "MODELYARD_S3_ENDPOINT_URL", "Address of an S3-compatible server; not needed for AWS.", _text
    )
    flower_port: int = _setting(
        "MODELYARD_FLOWER_PORT",
        "Port of Flower on the loopback address; 0 leaves Flower out.",
        _whole(0, 65535),
        5555,
    )
    flower_login: str = _setting(
        "MODELYARD_FLOWER_LOGIN",
        "User and password of Flower, with a colon between. "
        "Default: made once and kept in the file `flower-login` inside MODELYARD_HOME.",
        _login,
        "",
        is_secret=True,
    )
    fetch_allow: tuple[str, ...] = _setting(
        "MODELYARD_FETCH_ALLOW",
        "Hosts, addresses or networks, separated by commas, that data and archives may be fetched from and predictions "
        "and webhooks sent to although they are not public, e.g. files.local,10.0.0.0/8. What a name listed here leads "
        "to is not looked at.",
        _hosts,
        (),
    )
    fetch_limit_bytes: int = _setting(
        "MODELYARD_FETCH_LIMIT_BYTES",
        "Largest file in bytes that is fetched from another host; also what one call may fetch of data in all.",
        _whole(1024, 2**50),
        10 * 2**30,
    )
    fetch_timeout_s: float = _setting(
        "MODELYARD_FETCH_TIMEOUT_S",
        "Seconds that fetching a file from another host may take.",
        _seconds(0.1),
        600.0,
    )
    isolation: str = _setting(
        "MODELYARD_ISOLATION",
        "What becomes of models, archives and tables from elsewhere on a worker whose kernel does not let the process "
        "that looks into them leave the network: where_possible, they are looked into all the same, or required, they "
        "are refused.",
        _word("where_possible", "required"),
        "where_possible",
    )
    precheck_timeout_s: float = _setting(
        "MODELYARD_PRECHECK_TIMEOUT_S",
        "Seconds in which other hosts may tell, before a training is accepted, that they do not have its data, or how "
        "these begin; 0 asks them only when it starts.",
        _seconds(0.0),
        3.0,
    )
    data_s3_buckets: tuple[str, ...] = _setting(
        "MODELYARD_DATA_S3_BUCKETS",
        "Buckets, separated by commas, that any request may read data from as s3://bucket/key. Default: none. "
        "The one of MODELYARD_OBJECTS_URL is refused.",
        _names,
        (),
    )
    data_s3_endpoint_url: str | None = _setting(
        "MODELYARD_DATA_S3_ENDPOINT_URL",
        "Address of the S3-compatible server with these buckets. Default: MODELYARD_S3_ENDPOINT_URL.",
        _text,
    )
    data_s3_profile: str | None = _setting(
        "MODELYARD_DATA_S3_PROFILE",
        "Profile of the AWS files on the workers whose credentials read these buckets; give it the right to read them "
        "and nothing else. Default: the credentials of the object store.",
        _text,
    )
    archive_limit_bytes: int = _setting(
        "MODELYARD_ARCHIVE_LIMIT_BYTES",
        "Largest archive (`model.init`, or uploaded to a data set) in bytes that is unpacked, once it is unpacked.",
        _whole(1024, 2**50),
        20 * 2**30,
    )
    cors_origins: tuple[str, ...] = _setting(
        "MODELYARD_CORS_ORIGINS",
        "Origins, separated by commas, whose pages may read answers in a browser, e.g. https://app.example.org; "
        "* for every origin. Their requests need a key like all others, and browsers' own credentials are never used.",
        _origins,
        (),
    )
    dataset_file_limit_bytes: int = _setting(
        "MODELYARD_DATASET_FILE_LIMIT_BYTES",
        "Largest file in bytes that may be uploaded into a data set, in parts.",
        _whole(1024, 2**50),
        100 * 2**30,
    )
    push_timeout_s: float = _setting(
        "MODELYARD_PUSH_TIMEOUT_S",
        "Seconds that a host to which a prediction is sent (`output.network`) has to take it and answer.",
        _seconds(0.1),
        30.0,
    )
    webhook_timeout_s: float = _setting(
        "MODELYARD_WEBHOOK_TIMEOUT_S",
        "Seconds that the receiver of a webhook has to take an event and answer.",
        _seconds(0.1),
        10.0,
    )
    webhook_delays_s: tuple[float, ...] = _setting(
        "MODELYARD_WEBHOOK_DELAYS_S",
        "Seconds, separated by commas, from one attempt to send an event to a webhook to the next, each with some "
        "chance; there is one attempt more than delays.",
        _delays,
        (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 28800.0),
    )
    webhook_give_up_s: float = _setting(
        "MODELYARD_WEBHOOK_GIVE_UP_S",
        "Seconds after which a webhook that has done nothing but fail is switched off.",
        _seconds(1.0),
        5 * 86400.0,
    )
    webhook_kept_s: float = _setting(
        "MODELYARD_WEBHOOK_KEPT_S",
        "Seconds that what was sent to webhooks can be looked up and sent again.",
        _seconds(0.0),
        7 * 86400.0,
    )
    log_format: str = _setting(
        "MODELYARD_LOG_FORMAT",
        "How processes write their logs: text, for people, or json, one object a line, for what gathers them.",
        _word("text", "json"),
        "text",
    )
    service_start_list: Path | None = _setting(
        "MODELYARD_SERVICE_START_LIST",
        "File of services to create and predictions to make, one a line, when `modelyard up` is ready.",
        _path,
    )
    lease_s: float = _setting(
        "MODELYARD_LEASE_S",
        "Seconds after which a worker that renews no longer may be replaced.",
        _seconds(0.5),
        20.0,
    )
    renew_s: float = _setting("MODELYARD_RENEW_S", "Seconds between two renewals of a lease.", _seconds(0.1), 5.0)
    sweep_s: float = _setting("MODELYARD_SWEEP_S", "Seconds between two sweeps.", _seconds(0.1), 2.0)
    checkpoint_s: float = _setting(
        "MODELYARD_CHECKPOINT_S",
        "Shortest time in seconds between two recovery checkpoints; it grows so that they cost at most 2 %.",
        _seconds(0.0),
        10.0,
    )
    deaths_max: int = _setting(
        "MODELYARD_DEATHS_MAX",
        "Attempts without progress after which a training that keeps being killed is given up.",
        _whole(1, 100),
        3,
    )
    lost_max: int = _setting(
        "MODELYARD_LOST_MAX",
        "Attempts without progress after which a task whose workers keep vanishing is given up.",
        _whole(1, 1000),
        10,
    )
    models_limit_bytes: int = _setting(
        "MODELYARD_MODELS_LIMIT_BYTES",
        "Bytes that the loaded models of one prediction worker may take, as seen when they were loaded. "
        "A model that takes more is kept alone.",
        _whole(1, 2**50),
        2**31,
    )
    cancel_grace_s: float = _setting(
        "MODELYARD_CANCEL_GRACE_S",
        "Seconds a cancelled training has to stop by itself before TERM.",
        _seconds(0.0),
        10.0,
    )
    kill_grace_s: float = _setting("MODELYARD_KILL_GRACE_S", "Seconds between TERM and KILL.", _seconds(0.0), 5.0)
    shutdown_s: float = _setting(
        "MODELYARD_SHUTDOWN_S",
        "Seconds a stopping worker has to save a checkpoint and hand its task back.",
        _seconds(1.0),
        30.0,
    )
    predict_timeout_s: float = _setting(
        "MODELYARD_PREDICT_TIMEOUT_S",
        "Seconds after which an unanswered prediction is a 503.",
        _seconds(0.1),
        60.0,
    )
    threads: int = _setting(
        "MODELYARD_THREADS",
        "Threads one training or prediction may use. Default: the cores this process may use.",
        _whole(1, 1024),
        factory=_cores,
    )
    api_workers: int = _setting("MODELYARD_API_WORKERS", "API processes that `modelyard up` starts.", _whole(1, 64), 1)
    event_streams: int = _setting(
        "MODELYARD_EVENT_STREAMS",
        "Event streams that may be open in each API process, if it may open twice as many files; half of them by one "
        "account.",
        _whole(1, 30_000),
        4000,
    )
    api_threads: int = _setting(
        "MODELYARD_API_THREADS",
        "Threads of each API process for all but plain predictions, which need none; seven eighths of them may wait, "
        "half for trainings and hosts; three quarters and one quarter for one account.",
        _whole(2, 1024),
        128,
    )
    train_workers: int = _setting(
        "MODELYARD_TRAIN_WORKERS", "Training workers that `modelyard up` starts.", _whole(0, 64), 1
    )
    request_limit_bytes: int = _setting(
        "MODELYARD_REQUEST_LIMIT_BYTES", "Largest request body in bytes.", _whole(1024, 2**34), 256 * 2**20
    )
    answer_limit_bytes: int = _setting(
        "MODELYARD_ANSWER_LIMIT_BYTES",
        "Largest answer of a prediction that a client waits for, in bytes; a prediction task may have more.",
        _whole(1024, 2**28),
        32 * 2**20,
    )
    client_idle_s: float = _setting(
        "MODELYARD_CLIENT_IDLE_S",
        "Seconds within which a client must send its headers, and the next bytes of its body.",
        _seconds(0.1),
        30.0,
    )
    body_timeout_s: float = _setting(
        "MODELYARD_BODY_TIMEOUT_S",
        "Seconds within which the whole body of a request must have come.",
        _seconds(1),
        1800.0,
    )
    cache_limit_bytes: int = _setting(
        "MODELYARD_CACHE_LIMIT_BYTES",
        "Bytes a worker machine keeps of the object store and of data from other hosts, besides those in use.",
        _whole(2**20, 2**50),
        10 * 2**30,
    )
    versions_kept: int = _setting(
        "MODELYARD_VERSIONS_KEPT", "Versions kept per repository, besides pinned ones.", _whole(1, 10**6), 10
    )
    quota_trainings: int = _setting(
        "MODELYARD_QUOTA_TRAININGS",
        "Trainings of one account that may run at once; further ones wait. 0: no limit. Like all quotas, an account's "
        "own (`modelyard quotas set`) goes before it.",
        _whole(0, 10**6),
        0,
    )
    quota_queued_tasks: int = _setting(
        "MODELYARD_QUOTA_QUEUED_TASKS",
        "Tasks of one account that may wait at once; further ones are refused. 0: no limit.",
        _whole(0, 10**9),
        0,
    )
    quota_stored_bytes: int = _setting(
        "MODELYARD_QUOTA_STORED_BYTES",
        "Bytes that one account may keep in data sets, versions and results. 0: no limit.",
        _whole(0, 2**60),
        0,
    )
    quota_requests_per_minute: int = _setting(
        "MODELYARD_QUOTA_REQUESTS_PER_MINUTE",
        "Requests of one account that are answered in a minute; further ones are refused. 0: no limit.",
        _whole(0, 10**9),
        0,
    )
    audit_kept_days: int = _setting(
        "MODELYARD_AUDIT_KEPT_DAYS", "Days that lines of the audit log are kept.", _whole(1, 36_500), 365
    )
    attempts_kept_s: float = _setting(
        "MODELYARD_ATTEMPTS_KEPT_S",
        "Seconds that logs, checkpoints and files of ended attempts are kept.",
        _seconds(0.0),
        7 * 86400.0,
    )

    def __post_init__(self) -> None:
        chosen: dict[str, Any] = {
            "database_url": self.database_url or f"sqlite:///{self.home / 'records.db'}",
            "objects_url": self.objects_url or f"file://{self.home / 'objects'}",
            "data_roots": self.data_roots or (self.home / "data",),
        }
        for name, value in chosen.items():
            object.__setattr__(self, name, value)
        kept_in = self.objects_url.removeprefix("s3://").partition("/")[0]
        if self.objects_url.startswith("s3://") and kept_in in self.data_s3_buckets:
            # Whatever the server: two names of one may look different.
            raise BadSetting(
                f"MODELYARD_DATA_S3_BUCKETS names {kept_in}, where MODELYARD_OBJECTS_URL keeps models and results of "
                "all accounts; put data into a bucket of their own"
            )
        if self.renew_s * 2 > self.lease_s:
            raise BadSetting("MODELYARD_RENEW_S must be at most half of MODELYARD_LEASE_S, or leases run out in use")

    @property
    def quotas(self) -> dict[str, int]:
        """The quotas of accounts that have none of their own, by their names in the records; 0 is no limit."""
        return {
            "trainings": self.quota_trainings,
            "queued_tasks": self.quota_queued_tasks,
            "stored_bytes": self.quota_stored_bytes,
            "requests_per_minute": self.quota_requests_per_minute,
        }

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from `environment`; empty variables count as absent.

        Raises BadSetting, which names the variable and its meaning.
        """
        given: dict[str, Any] = {}
        for each in fields(cls):
            value = environment.get(each.metadata["variable"], "")
            if value == "":
                continue
            try:
                given[each.name] = each.metadata["read"](value)
            except ValueError as error:
                shown = "" if each.metadata["is_secret"] else f"={value!r}"
                raise BadSetting(
                    f"{each.metadata['variable']}{shown} cannot be used ({error}). {each.metadata['text']}"
                ) from None
        return cls(**given)

    def to_env(self) -> dict[str, str]:
        """The variables that make `from_env` give these settings again, for the processes that we start."""
        made: dict[str, str] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None:
                continue
            if each.name == "data_roots":
                value = os.pathsep.join(str(part) for part in value)
            elif isinstance(value, tuple):
                value = ",".join(map(str, value))
            made[each.metadata["variable"]] = str(value)
        return made

    @property
    def redis_socket(self) -> Path:
        """Socket of the embedded Redis server."""
        return self.home / "redis" / "redis.sock"

    @property
    def live_url(self) -> str:
        """Address of Redis as redis-py wants it."""
        return self.redis_url or f"unix://{self.redis_socket}"

    @property
    def broker_url(self) -> str:
        """Address of Redis as Celery wants it."""
        url = self.live_url
        if url.startswith("rediss://") and "ssl_cert_reqs" not in url:
            # kombu checks no certificate unless it is told to.
            return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
        return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url

    @property
    def flower_login_file(self) -> Path:
        """Where the user and the password of Flower are kept when no setting names them."""
        return self.home / "flower-login"

    @property
    def scratch(self) -> Path:
        """Folder of the running attempts on this machine."""
        return self.home / "scratch"

    @property
    def cache(self) -> Path:
        """Folder of the local copy of artifacts."""
        return self.home / "cache"

    @property
    def data_endpoint_url(self) -> str | None:
        """Address of the server whose buckets requests may read; None for AWS."""
        return self.data_s3_endpoint_url or self.s3_endpoint_url

    @property
    def is_loopback(self) -> bool:
        """Whether the API can be reached from this machine only."""
        return is_loopback(self.host)
