"""What one API process works with, made once per app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar, cast

from flask import current_app, g

from api.access import Access
from api.access_log import AccessLog
from api.allowance import Allowances
from api.auditor import Auditor
from api.cors import Cors
from api.ending import Ending
from api.estimates import Estimates
from api.figures import ApiFigures
from api.fleet_figures import FleetFigures
from api.known import KnownServices
from api.tally import Tally
from api.waiting import SharedSlots
from logs.context import Ids
from settings import Settings
from storage.data_roots import DataRoots
from storage.live import Live, Spread
from storage.objects import connect
from storage.objects.base import Objects
from storage.records import Caller, Records, Repository, Service, Task
from workers.asked import Answer, Asked
from workers.scratch import Scratch
from workers.tracing import RequestSpan

T = TypeVar("T")

IS_CONNECTED = "modelyard.is_connected"
"""Where the environment of a request has the function that tells whether its caller is still there."""

IS_SLOW = "modelyard.is_slow"
"""Where the environment of a request tells that its body did not come in time."""

COUNTED = "modelyard.counted"
"""Where the environment of a request that was counted already has how, as `Counted`."""

_KEPT = 10_000

TRANSFERS = 64
"""How many files and archives may be sent at one time."""


class Sender(Protocol):
    """What the API needs of `workers.queue.Queue`."""

    def send_task(self, task: Task) -> bool:
        """Tell the workers that a task waits; False when Redis did not take it."""

    def wake(self, lane: str, wake: str) -> bool:
        """Wake a worker of a lane."""

    def kept_spread(self, lane: str) -> Spread | None:
        """How far requests of a lane are spread, if that was looked up lately."""

    def look_up_spread(self, lane: str) -> Spread:
        """How far requests of a lane are spread; raises LiveUnavailable."""

    def predict(
        self,
        asked: Asked,
        lane: str,
        batch: str,
        timeout_s: float,
        mark: str | None = None,
        is_connected: Callable[[], bool] = ...,
        request_id: str = "",
    ) -> Answer:
        """Have a worker answer a prediction; raises NoAnswer, Overloaded, CallerGone, Changed, LiveUnavailable."""


@dataclass
class Parts:
    """Settings, the three kinds of memory, the way to the workers, and who may wait how long."""

    settings: Settings
    records: Records
    live: Live
    queue: Sender
    waits: SharedSlots
    slots: SharedSlots
    access: Access
    data_roots: DataRoots
    given_objects: Objects | None = None
    ending: Ending = field(default_factory=Ending)
    _names: dict[int, str] = field(default_factory=dict)
    _repositories: dict[int, Repository] = field(default_factory=dict)

    @cached_property
    def access_log(self) -> AccessLog:
        """Where every request leaves a line."""
        return AccessLog()

    @cached_property
    def cors(self) -> Cors:
        """Which pages of other origins may read answers."""
        return Cors(self.settings.cors_origins)

    @cached_property
    def figures(self) -> ApiFigures:
        """What is counted for Prometheus."""
        return ApiFigures(self.live, FleetFigures(self.records, self.live))

    def note(
        self,
        method: str,
        route: str,
        target: str,
        status: int,
        seconds: float,
        account: str,
        about: Ids | None = None,
    ) -> None:
        """Note a request that was answered; see `AccessLog.note` and `ApiFigures.note`."""
        self.access_log.note(method, target, status, seconds, account, about)
        self.figures.note(method, route, status, seconds)

    @cached_property
    def services(self) -> KnownServices:
        """What is known of the services that are asked for predictions."""
        return KnownServices(self.records, self.live)

    @cached_property
    def estimates(self) -> Estimates:
        """When tasks will start and end."""
        return Estimates(self.records, self.live)

    @cached_property
    def allowances(self) -> Allowances:
        """How many requests accounts may still send in this minute."""
        return Allowances(self.live, self.settings.api_workers)

    @cached_property
    def auditor(self) -> Auditor:
        """Who writes the audit log."""
        return Auditor(self.records)

    @cached_property
    def tally(self) -> Tally:
        """Counts of predictions."""
        return Tally(self.live)

    @cached_property
    def objects(self) -> Objects:
        """The object store, connected to when it is used first: its drivers are heavy and seldom needed here."""
        if self.given_objects is not None:
            return self.given_objects
        return connect(self.settings.objects_url, endpoint_url=self.settings.s3_endpoint_url)

    @cached_property
    def transfers(self) -> SharedSlots:
        """How many files and archives are sent at one time; each of them may hold a few MiB on its way."""
        return SharedSlots(
            TRANSFERS,
            "{} downloads go on already; try again in a second",
            "{} downloads of this account go on already, half of what may; try again when one has ended",
        )

    @cached_property
    def downloads(self) -> Scratch:
        """Where results lie for as long as they are sent."""
        return Scratch(self.settings.home / "downloads")

    def finish(self) -> None:
        """The process ends: write what was only counted so far."""
        self.figures.stop()
        self.tally.stop()
        self.auditor.stop()
        self.access_log.flush()

    def service_name(self, service_id: int) -> str:
        """The name of a service, deleted or not; names never change, so each is read once."""
        name = self._names.get(service_id)
        if name is None:
            name = self.records.services.get(service_id).name
            _keep(self._names, service_id, name)
        return name

    def repository(self, service: Service) -> Repository:
        """Where the versions of a service belong; of the row only what never changes may be used."""
        found = self._repositories.get(service.repository_id)
        if found is None:
            found = self.records.repositories.get(service.repository_id)
            _keep(self._repositories, service.repository_id, found)
        return found


def _keep(kept: dict[int, T], number: int, value: T) -> None:
    """Remember a value, all others given up when there are too many. Each step is one of the interpreter's own."""
    if len(kept) >= _KEPT:
        kept.clear()
    kept[number] = value


def trace_carried() -> str:
    """What the queue takes along for the trace of the current request; empty without one."""
    span: RequestSpan | None = g.get("span")
    return str(g.get("carried", "")) if span is None else span.carried


def parts() -> Parts:
    """The parts of the app that answers now."""
    return cast(Parts, current_app.extensions["modelyard"])


def account() -> Caller:
    """Who the current request acts for."""
    return cast(Caller, g.account)
