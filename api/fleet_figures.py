"""What records and Redis tell of the whole installation, looked up when Prometheus asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from storage.errors import LiveUnavailable, RecordsUnavailable
from storage.live import Ending, Heartbeat, Live
from storage.live.endings import BOUNDS_S
from storage.records import OpenTasks, Records, State

_KEPT_S = 1.0
_log = logging.getLogger(__name__)


class FleetFigures(Collector):
    """Queues, tasks, leases, workers. Every API process shows the same. Safe to share between threads."""

    def __init__(self, records: Records, live: Live) -> None:
        self._records, self._live = records, live
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Metric]] | None = None

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus_client. Looked up at most once a second, however many ask."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > _KEPT_S:
                self._kept = time.monotonic(), self._look_up()
            found = self._kept[1]
        yield from found

    def _look_up(self) -> list[Metric]:
        tasks, beats = self._tasks(), self._beats()
        served = {queue for beat in beats or () for queue in beat.queues}
        found: list[Metric] = [_gauge("modelyard_records_up", "Whether the records told of tasks", tasks is not None)]
        if tasks is not None:
            found += _of_tasks(tasks, served)
            found += self._of_webhooks()
        if beats is not None:
            found += _of_workers(beats)
            try:
                found += self._of_live(served | {each.queue for each in tasks or ()})
            except LiveUnavailable as error:
                _log.warning("no figures of queues: %s", error)
        return found

    def _tasks(self) -> list[OpenTasks] | None:
        try:
            return self._records.tasks.open_tasks()
        except RecordsUnavailable as error:
            _log.warning("no figures of tasks: %s", error)
            return None

    def _of_webhooks(self) -> list[Metric]:
        try:
            waiting = self._records.deliveries.waiting()
        except RecordsUnavailable as error:
            _log.warning("no figures of webhooks: %s", error)
            return []
        return [
            _gauge("modelyard_webhook_deliveries_waiting", "Deliveries to webhooks that wait", waiting.count),
            _gauge(
                "modelyard_webhook_deliveries_oldest_seconds",
                "Seconds since the oldest delivery that waits was made",
                waiting.oldest_s,
            ),
        ]

    def _beats(self) -> list[Heartbeat] | None:
        try:
            return self._live.heartbeats.all()
        except LiveUnavailable as error:
            _log.warning("no figures of workers: %s", error)
            return None

    def _of_live(self, queues: Collection[str]) -> list[Metric]:
        """Messages, requests, the sweep and the ends of attempts. Raises LiveUnavailable."""
        messages = GaugeMetricFamily("modelyard_messages", "Messages that no worker has taken yet", labels=["queue"])
        for queue, count in self._live.waiting_by_queue(sorted(queues)).items():
            messages.add_metric([queue], count)
        found: list[Metric] = [messages, *self._of_lanes(queues)]
        age_s = self._live.heartbeats.sweep_age_s()
        if age_s is not None:
            found.append(_gauge("modelyard_sweep_age_seconds", "Seconds since the last sweep ended", age_s))
        return found + _of_endings(self._live.endings.all())

    def _of_lanes(self, queues: Collection[str]) -> list[Metric]:
        waiting = GaugeMetricFamily("modelyard_requests_waiting", "Predictions that wait", labels=["lane"])
        computed = GaugeMetricFamily("modelyard_requests_in_flight", "Predictions under way", labels=["lane"])
        oldest = GaugeMetricFamily(
            "modelyard_requests_oldest_seconds", "How long the oldest prediction waits", labels=["lane"]
        )
        for lane in sorted(queue for queue in queues if queue.startswith("predict.")):
            depth = self._live.lane.depth(lane)
            waiting.add_metric([lane], depth.waiting)
            computed.add_metric([lane], depth.in_flight)
            oldest.add_metric([lane], depth.oldest_s)
        return [waiting, computed, oldest]


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=float(value))


def _of_workers(beats: Collection[Heartbeat]) -> list[Metric]:
    workers = GaugeMetricFamily("modelyard_workers", "Workers that live", labels=["queue"])
    memory = GaugeMetricFamily(
        "modelyard_worker_memory_bytes",
        "Anonymous memory of a worker and the processes under it",
        labels=["worker"],
    )
    for queue in sorted({queue for beat in beats for queue in beat.queues}):
        workers.add_metric([queue], sum(queue in beat.queues for beat in beats))
    for beat in beats:
        memory.add_metric([beat.worker], beat.memory_bytes)
    return [workers, memory]


def _of_tasks(tasks: Collection[OpenTasks], served: Collection[str]) -> list[Metric]:
    """Tasks that are not over. A queue that a worker serves is told when it is empty too, or nothing could be learned
    from the last task leaving it.
    """
    counts = GaugeMetricFamily("modelyard_tasks", "Tasks that are not over", labels=["kind", "queue", "state"])
    startable = GaugeMetricFamily(
        "modelyard_tasks_startable",
        "Queued tasks that could start now: the first of their repository",
        labels=["queue"],
    )
    running = GaugeMetricFamily("modelyard_tasks_running", "Tasks that run", labels=["queue"])
    oldest = GaugeMetricFamily(
        "modelyard_tasks_oldest_queued_seconds", "Seconds since the oldest queued task was accepted", labels=["queue"]
    )
    leases = GaugeMetricFamily(
        "modelyard_leases", "Leases of running tasks: held, or run_out and not taken back yet", labels=["state"]
    )
    for each in tasks:
        counts.add_metric([each.kind, each.queue, each.state], each.count)
    holding = {queue for queue in served if not queue.startswith("predict.")}
    for queue in sorted(holding | {each.queue for each in tasks}):
        of_queue = [each for each in tasks if each.queue == queue]
        startable.add_metric([queue], sum(each.startable for each in of_queue))
        running.add_metric([queue], sum(each.count for each in of_queue if each.state is State.RUNNING))
        waits_s = [each.oldest_s for each in of_queue if each.state is State.QUEUED]
        oldest.add_metric([queue], max(waits_s, default=0.0))
    run_out = sum(each.run_out for each in tasks)
    leases.add_metric(["held"], sum(each.count for each in tasks if each.state is State.RUNNING) - run_out)
    leases.add_metric(["run_out"], run_out)
    return [counts, startable, running, oldest, leases]


def _of_endings(endings: dict[tuple[str, str], Ending]) -> list[Metric]:
    count = CounterMetricFamily(
        "modelyard_attempts", "Attempts at tasks that ended, by how they did", labels=["kind", "outcome"]
    )
    seconds = HistogramMetricFamily(
        "modelyard_attempt_seconds", "Seconds that attempts at tasks took", labels=["kind", "outcome"]
    )
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    for (kind, outcome), ending in sorted(endings.items()):
        count.add_metric([kind, outcome], ending.count)
        if any(ending.timed):
            buckets = list(zip(bounds, accumulate(ending.timed), strict=True))
            seconds.add_metric([kind, outcome], buckets, ending.seconds)
    return [count, seconds]
