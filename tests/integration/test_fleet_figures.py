"""What /metrics tells of queues, tasks, leases and workers, beside numbers counted by hand; real Redis and records."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.fleet_figures import FleetFigures
from storage.live import Heartbeat, Live, Request, Spread
from storage.records import LOCAL, Kind, Records, Task
from tests.services import RedisServer

pytestmark = pytest.mark.servers

LANE = "predict.toy.cpu"


def shown(records: Records, live: Live) -> dict[str, float]:
    """Values by name and labels, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(FleetFigures(records, live))
    found = {}
    for metric in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in metric.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def add(records: Records, kind: Kind, queue: str, repository: str | None = None) -> Task:
    account = records.accounts.ensure(LOCAL)
    made = None if repository is None else records.repositories.ensure(account.id, repository).id
    return records.tasks.add(account.id, kind=kind, queue=queue, spec={}, repository_id=made)[0]


def test_tasks_are_counted_by_queue_and_state(records: Records, live: Live):
    for name in ("one", "one", "two"):
        add(records, Kind.TRAIN, "train.cpu", name)
    running = add(records, Kind.TRAIN, "train.cpu", "three")
    silent = add(records, Kind.PREDICT, "batch.toy.cpu")
    assert records.tasks.claim(running.id, "here", 60.0)
    assert records.tasks.claim(silent.id, "here", -1.0)
    figures = shown(records, live)
    assert figures["modelyard_tasks{kind=train,queue=train.cpu,state=queued}"] == 3
    assert figures["modelyard_tasks{kind=train,queue=train.cpu,state=running}"] == 1
    assert figures["modelyard_tasks{kind=predict,queue=batch.toy.cpu,state=running}"] == 1
    # Of the two of repository `one` only the first may start.
    assert figures["modelyard_tasks_startable{queue=train.cpu}"] == 2
    assert figures["modelyard_tasks_startable{queue=batch.toy.cpu}"] == 0
    assert figures["modelyard_tasks_running{queue=train.cpu}"] == 1
    assert figures["modelyard_leases{state=held}"] == 1
    assert figures["modelyard_leases{state=run_out}"] == 1
    assert 0 < figures["modelyard_tasks_oldest_queued_seconds{queue=train.cpu}"] < 30
    assert figures["modelyard_tasks_oldest_queued_seconds{queue=batch.toy.cpu}"] == 0
    assert figures["modelyard_records_up{}"] == 1


def test_messages_requests_and_workers_are_counted(records: Records, live: Live):
    live.heartbeats.beat(Heartbeat("train1@here", ("train.cpu",), memory_bytes=3 << 20))
    live.heartbeats.beat(Heartbeat("train2@here", ("train.cpu",), memory_bytes=5 << 20))
    live.heartbeats.beat(Heartbeat("toys@here", (LANE,)))
    live.heartbeats.note_sweep()
    live.server.redis.rpush("train.cpu", "a", "b")
    requests = [Request(name, f"{name[0]}.cpu:x", "replies:test", 30.0, b"{}") for name in ("a1", "a2", "a3", "b1")]
    live.lane.append(LANE, requests, Spread())
    drain = live.lane.drain(LANE, "here", lease_s=30.0)
    try:
        batch = drain.turn(most=2)
        assert batch is not None
        assert len(batch.requests) == 2
        figures = shown(records, live)
    finally:
        drain.close()
    assert figures["modelyard_messages{queue=train.cpu}"] == 2
    assert figures[f"modelyard_messages{{queue={LANE}}}"] == 0
    assert figures[f"modelyard_requests_waiting{{lane={LANE}}}"] == 2
    assert figures[f"modelyard_requests_in_flight{{lane={LANE}}}"] == 2
    assert 0 < figures[f"modelyard_requests_oldest_seconds{{lane={LANE}}}"] < 30
    assert figures["modelyard_workers{queue=train.cpu}"] == 2
    assert figures[f"modelyard_workers{{queue={LANE}}}"] == 1
    assert figures["modelyard_worker_memory_bytes{worker=train2@here}"] == 5 << 20
    assert 0 <= figures["modelyard_sweep_age_seconds{}"] < 30
    # A queue that is served and empty is told too.
    assert figures["modelyard_tasks_startable{queue=train.cpu}"] == 0
    assert "modelyard_tasks_startable{queue=predict.toy.cpu}" not in figures


def test_attempts_are_counted_by_their_end_and_their_seconds(records: Records, live: Live):
    for seconds in (0.1, 0.4, 2.0, 100_000.0):
        live.endings.note("train", "finished", seconds)
    live.endings.note("train", "lost")
    figures = shown(records, live)
    assert figures["modelyard_attempts_total{kind=train,outcome=finished}"] == 4
    assert figures["modelyard_attempts_total{kind=train,outcome=lost}"] == 1
    of = "modelyard_attempt_seconds_bucket{kind=train"
    classes = {"0.1": 1, "0.5": 2, "1": 2, "5": 3, "86400": 3, "+Inf": 4}
    assert {bound: figures[f"{of},le={bound},outcome=finished}}"] for bound in classes} == classes
    assert figures["modelyard_attempt_seconds_sum{kind=train,outcome=finished}"] == pytest.approx(100_002.5)
    assert not any("lost" in name for name in figures if "seconds" in name)


def test_an_empty_installation_has_figures_too(records: Records, live: Live):
    figures = shown(records, live)
    assert figures["modelyard_leases{state=held}"] == 0
    assert "modelyard_sweep_age_seconds{}" not in figures


def test_what_redis_would_tell_is_left_out_while_it_is_away(records: Records, own_redis: RedisServer):
    add(records, Kind.TRAIN, "train.cpu")
    live = Live(own_redis.url)
    own_redis.kill()
    figures = shown(records, live)
    assert figures["modelyard_tasks_startable{queue=train.cpu}"] == 1
    assert not any(name.startswith(("modelyard_messages", "modelyard_workers")) for name in figures)
    live.close()


def test_what_the_records_would_tell_is_left_out_while_they_are_away(live: Live, tmp_path: Path):
    live.heartbeats.beat(Heartbeat("train1@here", ("train.cpu",)))
    away = Records.connect(f"sqlite:///{tmp_path}/no/folder/records.db")
    figures = shown(away, live)
    assert figures["modelyard_records_up{}"] == 0
    assert figures["modelyard_workers{queue=train.cpu}"] == 1
    assert not any(name.startswith("modelyard_tasks") for name in figures)
    away.close()


def test_they_are_looked_up_once_a_second(records: Records, live: Live, monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("api.fleet_figures.time", SimpleNamespace(monotonic=lambda: now[0]))
    figures = FleetFigures(records, live)
    before = list(figures.collect())
    monkeypatch.setattr(records.tasks, "open_tasks", lambda: pytest.fail("looked up again"))
    now[0] += 0.9
    assert list(figures.collect()) == before
    now[0] += 0.2
    with pytest.raises(pytest.fail.Exception):
        list(figures.collect())
