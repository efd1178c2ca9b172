"""The servers that a fleet shares, for the kill loop, and how each of them breaks for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import boto3

from tests.services import PostgresServer, S3Server, free_port, running_moto, running_postgres, running_rclone

RECORDS = ("sqlite", "postgresql")
OBJECTS = ("folder", "rclone", "moto")
_BUCKET = "chaos"
_STORES = {"rclone": running_rclone, "moto": running_moto}


@dataclass(frozen=True)
class Breakage:
    """Something that a server suffers: `begin` makes it, `end` returns when the server answers again."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]


@dataclass(frozen=True)
class Shared:
    """What the stack is told of the servers, and what can happen to them; nothing when it has stores of its own.

    settings : of the stack. environment : variables that its processes need besides.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    breakages: tuple[Breakage, ...]


@contextmanager
def running_shared(records: str, objects: str) -> Iterator[Shared]:
    """The servers for these kinds of records and objects, one of RECORDS and one of OBJECTS."""
    settings: dict[str, Any] = {}
    environment: dict[str, str] = {}
    breakages: list[Breakage] = []
    with ExitStack() as servers:
        if records == "postgresql":
            # Over TCP and durable, as a real one: what it has answered must outlive its death.
            postgres = servers.enter_context(running_postgres(port=free_port(), password="chaos", is_durable=True))
            settings["database_url"] = servers.enter_context(postgres.database())
            breakages += _of_postgres(postgres)
        if objects in _STORES:
            store = servers.enter_context(_STORES[objects]())
            _make_bucket(store)
            settings |= {"objects_url": f"s3://{_BUCKET}/yard", "s3_endpoint_url": store.endpoint_url}
            environment |= store.environment()
            breakages += _of_store(store, keeps_files=objects != "moto")
        yield Shared(settings, environment, tuple(breakages))


def _of_postgres(postgres: PostgresServer) -> list[Breakage]:
    return [
        Breakage("postgresql SIGKILL", postgres.kill, postgres.start),
        Breakage("postgresql restart", postgres.stop, postgres.start),
    ]


def _of_store(store: S3Server, *, keeps_files: bool) -> list[Breakage]:
    def hold() -> None:
        os.kill(store.server.pid, signal.SIGSTOP)

    def let_go() -> None:
        os.kill(store.server.pid, signal.SIGCONT)

    found = [Breakage("objects SIGSTOP", hold, let_go)]
    # One that keeps everything in memory cannot be killed without losing what was promised to be kept.
    return [*found, Breakage("objects SIGKILL", store.kill, store.start)] if keeps_files else found


def _make_bucket(store: S3Server) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key,
    )
    client.create_bucket(Bucket=_BUCKET)
