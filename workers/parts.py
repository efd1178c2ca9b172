"""What a worker process works with, made from the settings once per process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from settings import Settings
from storage.data_roots import DataRoots
from storage.live import Live
from storage.objects import connect as connect_objects
from storage.objects.base import Objects
from storage.objects.cache import Cache
from storage.records import Records
from workers.queue import Queue


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

    @property
    def owner(self) -> str:
        """Who holds leases, for people: host and process."""
        return f"{socket.gethostname()}:{os.getpid()}"
