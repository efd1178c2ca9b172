"""What quotas refuse, what is told of them, and how seldom Redis is asked."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from flask.testing import FlaskClient

from api.allowance import Allowances
from storage.live import Live
from storage.objects.base import Objects
from storage.records import Records
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive


def limit(records: Records, **changes: int) -> None:
    records.quotas.set(records.accounts.ensure("local"), changes)


# Requests per minute


def test_requests_over_the_quota_are_refused_until_the_minute_is_over(
    client: FlaskClient, records: Records, live: FakeLive, monkeypatch: pytest.MonkeyPatch
):
    limit(records, requests_per_minute=3)
    for rest in (2, 1, 0):
        answer = client.get("/account")
        assert answer.status_code == 200
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert answer.headers["RateLimit"].startswith(f'"requests";r={rest};t=')
        assert "Retry-After" not in answer.headers
    for path, kind in (("/account", "too_many_requests"), ("/info", None)):
        refused = client.get(path)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 31
        assert kind is None or refused.json["error"]["kind"] == kind
        assert "may send 3 requests a minute" in refused.text
    assert client.get("/healthz").status_code == 200
    now = time.monotonic()
    monkeypatch.setattr("api.allowance.time.monotonic", lambda: now + 61)
    live.allowance.given.clear()
    assert client.get("/account").status_code == 200


def test_refused_requests_are_counted_for_prometheus(client: FlaskClient, records: Records):
    limit(records, requests_per_minute=1, queued_tasks=1)
    client.get("/account")
    client.get("/account")
    figures = client.application.extensions["modelyard"].figures.told().decode()
    assert 'modelyard_quota_refusals_total{quota="requests"} 1.0' in figures


def test_account_without_a_quota_costs_no_way_to_redis(client: FlaskClient, live: FakeLive):
    assert "RateLimit" not in client.get("/account").headers
    assert live.allowance.wanted == []


def test_redis_is_asked_for_a_fiftieth_of_the_quota_at_a_time(live: FakeLive):
    allowances = Allowances(cast(Live, live), processes=2)
    for _ in range(1000):
        assert allowances.take(1, 10_000).is_allowed
    assert live.allowance.wanted == [100] * 10


def test_every_request_of_a_quota_is_let_through_once_whoever_asks(live: FakeLive):
    several = [Allowances(cast(Live, live), processes=3) for _ in range(3)]
    barrier = threading.Barrier(6)

    def ask(number: int) -> int:
        barrier.wait(30)
        # more by each process than there are: who stops earlier keeps what is left of its share
        return sum(several[number % 3].take(7, 500).is_allowed for _ in range(300))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ask, range(6))) == 500


def test_what_is_known_here_is_told_without_asking(live: FakeLive):
    allowances = Allowances(cast(Live, live))
    assert allowances.take_kept(1, 100) is None
    allowances.take(1, 100)
    kept = allowances.take_kept(1, 100)
    assert kept is not None
    assert (kept.is_allowed, kept.rest) == (True, 98)
    assert allowances.take_kept(1, 100) is None, "its share of two is used up"
    assert allowances.take_kept(1, 50) is None, "the quota was changed"
    assert len(live.allowance.wanted) == 1


def test_refused_account_is_told_so_without_asking_again(live: FakeLive):
    allowances = Allowances(cast(Live, live))
    while allowances.take(1, 5).is_allowed:
        pass
    asked = len(live.allowance.wanted)
    for _ in range(10):
        kept = allowances.take_kept(1, 5)
        assert kept is not None
        assert not kept.is_allowed
        assert not allowances.take(1, 5).is_allowed
    assert len(live.allowance.wanted) == asked


def test_requests_are_let_through_while_redis_is_away(client: FlaskClient, records: Records, live: FakeLive):
    limit(records, requests_per_minute=2)
    live.is_down = True
    reads = live.reads
    assert [client.get("/account").status_code for _ in range(2)] == [200, 200]
    assert live.reads - reads <= 4, "asked once a second, besides the use that is told"


# Tasks and bytes


def test_tasks_over_the_quota_are_refused_and_leave_no_inputs(
    client: FlaskClient, yard: Yard, records: Records, objects: Objects
):
    yard.create()
    yard.finish(yard.train())
    limit(records, queued_tasks=1)
    yard.train()
    lines = ["1,2"] * 100_000
    for answer in (
        client.post("/train", json=yard.train_body(data=["a,b,target", *lines])),
        client.post("/predict", json={"service": "iris", "async": True, "parameters": {}, "data": lines}),
    ):
        assert answer.status_code == 429, answer.text
        assert answer.headers["Retry-After"] == "10"
        assert "as many tasks of this account wait as its quota allows, 1;" in answer.json["status"]["message"]
    assert list(objects.list("inputs")) == []
    assert client.post("/predict", json={"service": "iris", "parameters": {}, "data": ["1,2"]}).status_code == 200
    figures = client.application.extensions["modelyard"].figures.told().decode()
    assert 'modelyard_quota_refusals_total{quota="queued_tasks"} 2.0' in figures


def test_archive_that_no_task_takes_is_not_counted_as_stored(client: FlaskClient, yard: Yard, records: Records):
    client.put("/datasets/flowers")
    yard.create()
    yard.finish(yard.train())
    limit(records, queued_tasks=1)
    yard.train()
    used = client.get("/account").json["quotas"]["stored_bytes"]["used"]
    for _ in range(2):
        files = {"file": (io.BytesIO(b"PK" + bytes(1000)), "a.zip")}
        refused = client.post("/datasets/flowers/files?unpack=true", data=files)
        assert (refused.status_code, refused.json["error"]["kind"]) == (429, "too_many_queued")
    assert client.get("/account").json["quotas"]["stored_bytes"]["used"] == used


def test_bytes_over_the_quota_are_refused(client: FlaskClient, yard: Yard, records: Records):
    limit(records, stored_bytes=10)
    client.put("/datasets/flowers")
    put = client.post("/datasets/flowers/files", data={"file": (io.BytesIO(b"a\n1\n2\n"), "a.csv")})
    assert put.status_code == 201, put.text
    too_much = client.post("/datasets/flowers/files", data={"file": (io.BytesIO(b"a\n1\n2\n"), "b.csv")})
    begun = client.post("/datasets/flowers/uploads", json={"path": "b.csv", "bytes": 5})
    for answer in (too_much, begun):
        assert (answer.status_code, answer.json["error"]["kind"]) == (413, "too_much_stored")
        assert "Retry-After" not in answer.headers
    yard.create()
    yard.finish(yard.train())
    refused = client.post("/train", json=yard.train_body())
    assert refused.status_code == 413
    assert "its quota is 10" in refused.json["status"]["message"]
