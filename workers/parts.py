"""What a worker process works with, made from the settings once per process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ml import isolation
from settings import Settings
from storage.data_roots import DataRoots
from storage.errors import StorageError
from storage.live import Live
from storage.objects import connect as connect_objects
from storage.objects.base import Objects
from storage.objects.cache import Cache
from storage.records import Records, Task
from workers import saying
from workers.queue import Queue


class Names:
    """Names of accounts and services, which never change, for the lines of a log."""

    def __init__(self, records: Records) -> None:
        self._account = lru_cache(maxsize=1024)(records.accounts.name)
        self._service = lru_cache(maxsize=1024)(lambda service_id: records.services.get(service_id).name)

    def of(self, task: Task) -> tuple[str | None, str | None]:
        """Those of a task; None when the records do not tell them: a line is not worth a failure."""
        try:
            service = None if task.service_id is None else self._service(task.service_id)
            return self._account(task.account_id), service
        except StorageError:
            return None, None


@dataclass(frozen=True)
class Parts:
    """The settings and the three kinds of memory, with the queue beside them."""

    settings: Settings
    records: Records
    live: Live
    objects: Objects
    cache: Cache
    data_roots: DataRoots
    queue: Queue

    @classmethod
    def make(cls, settings: Settings) -> Parts:
        """Connect to nothing yet: each part connects when it is used first."""
        saying.hide(settings.scratch, settings.cache)
        isolation.require(settings.isolation == "required")
        records = Records.connect(settings.database_url, settings.quotas)
        live = Live(settings.live_url)
        return cls(
            settings=settings,
            records=records,
            live=live,
            objects=connect_objects(settings.objects_url, endpoint_url=settings.s3_endpoint_url),
            cache=Cache(settings.cache, settings.cache_limit_bytes),
            data_roots=DataRoots(settings.data_roots),
            queue=Queue(settings.broker_url, records, live),
        )

    @cached_property
    def names(self) -> Names:
        """Names for the lines of a log."""
        return Names(self.records)

    @property
    def owner(self) -> str:
        """Who holds leases, for people: host and process."""
        return f"{socket.gethostname()}:{os.getpid()}"
