"""Predictions on the event loop when something goes wrong: keys, callers that hang up, versions, Redis, workers."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from api.ending import ENDING_S
from cli.stack import Stack
from storage.live import Live
from storage.records import Records, Role
from tests.integration.fronted import (
    FIRST,
    ROW,
    SECOND,
    WAY,
    Answer,
    Line,
    beside,
    create,
    fronted,
    predict,
    processes,
    put_iris,
    request,
    train,
    until,
)
from tests.services import free_port

pytestmark = [pytest.mark.servers, pytest.mark.timeout(200)]

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_iris(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stack(data: Path) -> Iterator[Stack]:
    """Two prediction workers, and keys in force."""
    with fronted(data, is_doubled=True, api_threads=8, predict_timeout_s=TIMEOUT_S) as stack:
        yield stack


@pytest.fixture(scope="module")
def records(stack: Stack) -> Iterator[Records]:
    made = Records.connect(stack.settings.database_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def key(stack: Stack, records: Records, data: Path) -> str:
    """A key of the account that has the service `iris`."""
    secret = records.keys.create("alice")[1]
    time.sleep(1.1)  # that no key is in force is believed for a second
    with closing(Line(stack.settings.port)) as line:
        create(line, "iris", data, f"X-API-KEY: {secret}")
        train(line, "iris", data, f"X-API-KEY: {secret}")
    return secret


@pytest.fixture
def line(stack: Stack) -> Iterator[Line]:
    with closing(Line(stack.settings.port)) as made:
        yield made


def ask(line: Line, key: str, **changes: Any) -> Answer:
    return line.ask("POST", "/predict", predict(**changes), f"X-API-KEY: {key}")


def warmed(line: Line, key: str, **changes: Any) -> Answer:
    """The answer of the loop, which Flask taught what it takes."""

    def found() -> Answer | None:
        answer = ask(line, key, **changes)
        return answer if answer.headers.get(WAY) == "loop" and answer.code == 200 else None

    answer: Answer = until(found)
    return answer


@contextlib.contextmanager
def stopped(stack: Stack, name: str) -> Iterator[None]:
    """Hold all processes of a service."""
    held = processes(stack, name)
    for each in held:
        each.suspend()
    try:
        yield
    finally:
        for each in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()


@contextlib.contextmanager
def without_workers(stack: Stack) -> Iterator[None]:
    with stopped(stack, FIRST), stopped(stack, SECOND):
        yield


def log_since(path: Path, begin: int) -> str:
    with path.open("rb") as lines:
        lines.seek(begin)
        return lines.read().decode()


# Keys


def test_key_is_taken_in_every_form_on_both_ways(line: Line, key: str):
    user = base64.b64encode(f"{key}:".encode()).decode()
    password = base64.b64encode(f"anybody:{key}".encode()).decode()
    for header in (
        f"X-API-KEY: {key}",
        f"x-api-key:  {key} ",
        f"Authorization: Bearer {key}",
        f"Authorization: bearer {key}",
        f"Authorization: Basic {user}",
        f"Authorization: Basic {password}",
    ):
        line.ask("POST", "/predict", predict(), header)
        answers = [line.ask("POST", "/predict", predict(), header, chunked=chunked) for chunked in (True, False)]
        assert [each.code for each in answers] == [200, 200], header
        assert [each.headers[WAY] for each in answers] == ["flask", "loop"], header
        assert answers[0].json["body"] == answers[1].json["body"]


def test_what_is_no_key_in_force_is_refused_on_both_ways(line: Line, key: str):
    warmed(line, key)
    for headers in (
        (),
        ("X-API-KEY: wrong",),
        ("X-API-KEY:",),
        (f"X-API-KEY: {key}x",),
        (f"X-API-KEY: {key[:-1]}",),
        ("X-API-KEY: \xff",),
        (f"X_API_KEY: {key}",),
        (f"Authorization: Bearer {key}x",),
        (f"Authorization: Digest {key}",),
        (f"Authorization: {key}",),
        ("Authorization: Basic %%%",),
        # A proxy that puts a key before the caller's own must not be outwitted, nor the other way round.
        (f"X-API-KEY: {key}", "X-API-KEY: wrong"),
        ("X-API-KEY: wrong", f"X-API-KEY: {key}"),
        (f"X-API-KEY: {key}", f"X-API-KEY: {key}"),
        (f"Authorization: Bearer {key}", "Authorization: Bearer wrong"),
        ("X-API-KEY: wrong", f"Authorization: Bearer {key}"),
    ):
        answers = [line.ask("POST", "/predict", predict(), *headers, chunked=chunked) for chunked in (True, False)]
        answers.append(line.ask("POST", "/predict", predict(), *headers))
        assert [each.code for each in answers] == [401] * 3, headers
        assert len({each.content for each in answers}) == 1, headers


def test_revoked_key_ends_within_a_second(line: Line, key: str, records: Records):
    made, secret = records.keys.create("alice")
    warmed(line, secret)
    records.keys.revoke(made.id)
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = ask(line, secret)
        if answer.code != 200:
            break
        assert asked - began < 1.5
    assert answer.code == 401
    assert ask(line, key).code == 200


def test_service_of_another_account_is_not_there(line: Line, key: str, records: Records, data: Path):
    other = records.keys.create("bob")[1]
    warmed(line, key)
    for _ in range(3):
        answer = ask(line, other)
        assert (answer.code, answer.json["status"]["dd_code"]) == (404, 1002)
    folder = data / "of-bob"
    folder.mkdir()
    put_iris(folder)
    create(line, "iris", folder, f"X-API-KEY: {other}")
    train(line, "iris", folder, f"X-API-KEY: {other}", iterations=9)
    [mine, theirs] = [warmed(line, each).json["body"] for each in (key, other)]
    assert mine != theirs
    for _ in range(20):
        assert ask(line, key).json["body"] == mine
        assert ask(line, other).json["body"] == theirs


# Callers that hang up


@pytest.mark.parametrize(("role", "code"), [(Role.READ, 403), (Role.PREDICT, 200), (Role.ADMIN, 200)])
def test_role_of_a_key_holds_on_both_ways(line: Line, key: str, records: Records, role: Role, code: int):
    other = records.keys.create("alice", role=role)[1]
    warmed(line, key)
    if code == 200:
        warmed(line, other)
    by_loop, by_flask = ask(line, other), ask(line, other, chain=[])
    assert [by_loop.code, by_flask.code] == [code, code]
    assert code == 200 or by_loop.content == by_flask.content
    assert code == 200 or "needs a key with the role predict" in by_loop.json["status"]["message"]


def test_quota_of_requests_holds_on_both_ways_together(line: Line, key: str, records: Records):
    alice = records.accounts.ensure("alice")
    warmed(line, key)
    try:
        records.quotas.set(alice, {"requests_per_minute": 300})
        first = until(lambda: (found := ask(line, key)).headers.get("ratelimit") and found)
        assert first.headers["ratelimit-policy"] == '"requests";q=300;w=60'
        ways, refused = [first.headers[WAY]], None
        for number in range(400):
            answer = ask(line, key) if number % 10 else line.ask("GET", "/account", None, f"X-API-KEY: {key}")
            if answer.code == 429:
                refused = answer
                break
            assert answer.code == 200
            ways.append(answer.headers[WAY])
        # What was asked before the quota was seen is not counted.
        assert refused is not None
        assert len(ways) == 300
        assert ways.count("loop") > 100

        def by_way() -> dict[str, Answer] | None:
            found = {each.headers[WAY]: each for each in (ask(line, key), ask(line, key, chain=[]))}
            return found if set(found) == {"loop", "flask"} else None

        answers: dict[str, Answer] = until(by_way)
        for each in answers.values():
            assert each.code == 429
            assert each.headers["ratelimit"].startswith('"requests";r=0;t=')
            assert 1 <= int(each.headers["retry-after"]) <= 61
            assert "may send 300 requests a minute" in each.json["status"]["message"]
        figures = line.ask("GET", "/metrics", None, f"X-API-KEY: {records.keys.create('bob')[1]}").content.decode()
        assert "modelyard_quota_refusals_total{" in figures
    finally:
        records.quotas.set(alice, {"requests_per_minute": None})
    assert until(lambda: ask(line, key).code == 200)


def test_prediction_that_meets_a_change_takes_one_request_of_the_quota(
    stack: Stack, line: Line, key: str, records: Records
):
    alice = records.accounts.ensure("alice")
    changes = Live(stack.settings.live_url).changes

    def rest(answer: Answer) -> int:
        return int(answer.headers["ratelimit"].split("r=")[1].split(";")[0])

    def met() -> bool:
        before = warmed(line, key)
        changes.note()
        answer = ask(line, key)
        assert answer.code == 200
        assert rest(answer) == rest(before) - 1
        return answer.headers[WAY] == "flask"

    try:
        records.quotas.set(alice, {"requests_per_minute": 100_000})
        until(lambda: ask(line, key).headers.get("ratelimit"))
        until(met)
    finally:
        records.quotas.set(alice, {"requests_per_minute": None})
    until(lambda: "ratelimit" not in ask(line, key).headers)


def statistics(line: Line, key: str) -> dict[str, Any]:
    answer = line.ask("GET", "/services/iris", None, f"X-API-KEY: {key}")
    found: dict[str, Any] = answer.json["body"]["service_stats"]
    return found


@pytest.mark.parametrize(
    ("output", "count"), [({}, 30), ({"template": "{{head.service}}"}, 4)], ids=["on the loop", "on threads"]
)
def test_nothing_is_computed_for_callers_that_hang_up(
    stack: Stack, line: Line, key: str, output: dict[str, str], count: int
):
    warmed(line, key)
    asked = {"data": [ROW] * 7, "parameters": {"output": output}}
    assert ask(line, key, **asked).code == 200  # so that the loop knows these parameters
    time.sleep(2.5)  # counts are told once a second
    before, log = statistics(line, key), stack.log_of("api").stat().st_size
    with redis.Redis.from_url(stack.settings.live_url) as client, without_workers(stack):
        callers = [Line(stack.settings.port) for _ in range(count)]
        for each in callers:
            each.send(request("POST", "/predict", predict(**asked), f"X-API-KEY: {key}"))
        until(lambda: len(list(client.scan_iter("lane:*:request:*"))) == count)
        for each in callers:
            each.close()
        until(lambda: list(client.scan_iter("lane:*:request:*")) == [], TIMEOUT_S - 2)  # not at their deadline
    assert ask(line, key).code == 200
    until(lambda: statistics(line, key)["predict_failure"] == before["predict_failure"] + count)
    after = statistics(line, key)
    # What a worker held when it was stopped is computed at most once more; the others, never.
    assert after["predict_success"] == before["predict_success"] + 1
    until(lambda: log_since(stack.log_of("api"), log).count(" 499 ") == count)
    assert "Traceback" not in log_since(stack.log_of("api"), log)


# Versions


def test_new_versions_take_over_under_load_without_a_failed_or_mixed_answer(
    stack: Stack, line: Line, key: str, data: Path
):
    seen: list[tuple[float, float, int, str, str]] = []
    over = threading.Event()

    def call() -> None:
        with closing(Line(stack.settings.port)) as mine:
            while not over.is_set():
                began = time.monotonic()
                answer = ask(mine, key, data=[ROW, "6.3,3.3,6.0,2.5"])
                told = json.dumps(answer.json.get("body")) if answer.code == 200 else answer.content.decode()
                seen.append((began, time.monotonic(), answer.code, told, answer.headers[WAY]))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    published: list[tuple[float, str]] = []
    try:
        for iterations in (4, 5, 6, 7):
            train(line, "iris", data, f"X-API-KEY: {key}", iterations=iterations)
            told = json.dumps(ask(line, key, data=[ROW, "6.3,3.3,6.0,2.5"]).json["body"])
            published.append((time.monotonic(), told))
            time.sleep(0.3)
            until(lambda told=told: any(each[3] == told for each in list(seen)))
    finally:
        over.set()
        for each in callers:
            each.join()
    assert {each[2] for each in seen} == {200}, [each for each in seen if each[2] != 200][:3]
    versions = [told for _, told in published]
    assert len(set(versions)) == 4
    first = seen[0][3]
    assert {each[3] for each in seen} == {first, *versions}
    for when, told in published:
        late = [each for each in seen if each[0] > when and each[3] in (first, *versions[: versions.index(told)])]
        assert late == []
    assert sum(each[4] == "loop" for each in seen) > len(seen) * 0.5


def test_deleted_service_is_gone_at_once_and_one_of_its_name_is_another(line: Line, key: str, data: Path):
    folder = data / "gone"
    folder.mkdir()
    put_iris(folder)
    header = f"X-API-KEY: {key}"
    bodies = []
    for iterations in (2, 8):
        create(line, "gone", folder, header)
        train(line, "gone", folder, header, iterations=iterations)
        bodies.append(warmed(line, key, service="gone").json["body"])
        assert line.ask("DELETE", "/services/gone?clear=full", None, header).code == 200
        assert ask(line, key, service="gone").code == 404
        until(lambda: not folder.joinpath("gone").exists() or not os.listdir(folder / "gone"))
        shutil.rmtree(folder / "gone", ignore_errors=True)
    assert bodies[0] != bodies[1]


# Workers


def drains(stack: Stack, which: str) -> dict[str, int]:
    """The worker process behind each drain that has a key such as `lane:*:flight:<drain>`, `which` being `flight`."""
    with redis.Redis.from_url(stack.settings.live_url) as client:
        keys = [each.decode() for each in client.scan_iter(f"lane:*:{which}:*")]
    return {name: int(name.split("-")[-2]) for name in (each.split(f":{which}:")[1] for each in keys)}


def test_prediction_whose_worker_is_killed_is_answered_by_another(stack: Stack, line: Line, key: str):
    expected = warmed(line, key).json["body"]
    with contextlib.ExitStack() as left:
        callers = [left.enter_context(closing(Line(stack.settings.port))) for _ in range(10)]
        with without_workers(stack):
            for each in callers:
                each.send(request("POST", "/predict", predict(), f"X-API-KEY: {key}"))
            [victim, *_] = until(lambda: drains(stack, "flight").values())
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
        answers = [each.answer() for each in callers]
        assert time.monotonic() - began < TIMEOUT_S + 5
    assert {answer.code for answer in answers} <= {200, 503}
    assert all(answer.json["body"] == expected for answer in answers if answer.code == 200)
    assert all(answer.headers["retry-after"] for answer in answers if answer.code == 503)
    assert sum(answer.code == 200 for answer in answers) >= 8, [answer.content for answer in answers]
    assert warmed(line, key).json["body"] == expected


def test_prediction_that_nobody_answers_is_refused_at_its_deadline(stack: Stack, line: Line, key: str):
    warmed(line, key)
    with without_workers(stack):
        began = time.monotonic()
        answer = ask(line, key)
        took_s = time.monotonic() - began
    assert (answer.code, answer.headers[WAY]) == (503, "loop")
    assert int(answer.headers["retry-after"]) >= 1
    assert TIMEOUT_S - 0.1 < took_s < TIMEOUT_S + 5
    until(lambda: ask(line, key).code == 200, 30)


# The end of the API


def wait_both_ways(stack: Stack, lines: Sequence[Line], key: str) -> None:
    """Send a prediction on each line, by turns one that the loop answers and one that holds a thread, until all wait.

    No worker may be running.
    """
    with redis.Redis.from_url(stack.settings.live_url) as client:
        before = set(client.scan_iter("lane:*:request:*"))
        for number, each in enumerate(lines):
            each.send(request("POST", "/predict", predict(), f"X-API-KEY: {key}", chunked=number % 2 == 1))
        until(lambda: len(set(client.scan_iter("lane:*:request:*")) - before) == len(lines))


def is_refused(port: int) -> bool:
    """Whether nobody listens."""
    try:
        Line(port).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("held_s", [0.5, 6.0])
def test_api_that_is_told_to_end_answers_what_waits(stack: Stack, key: str, held_s: float):
    settings = dataclasses.replace(stack.settings, port=free_port(), predict_timeout_s=30.0)
    with contextlib.ExitStack() as left:
        process = left.enter_context(beside(stack, settings))
        lines = [left.enter_context(closing(Line(settings.port))) for _ in range(10)]
        expected = warmed(lines[0], key).json["body"]
        with without_workers(stack):
            wait_both_ways(stack, lines, key)
            process.terminate()
            time.sleep(held_s)
            until(lambda: is_refused(settings.port), 8)
        answers = []
        for each in lines:
            try:
                answers.append(each.answer())
            except (OSError, AssertionError):
                answers.append(None)
        process.wait(20)
    told = stack.log_of(f"api-{settings.port}").read_text()
    assert [each if each is None else each.code for each in answers] == [200] * 10, told[-3000:]
    assert all(each is not None and each.json["body"] == expected for each in answers)
    assert "Traceback" not in told


@pytest.mark.parametrize("timeout_s", [5.0, 60.0])
def test_api_that_is_told_to_end_waits_for_no_worker_for_long(stack: Stack, key: str, timeout_s: float):
    settings = dataclasses.replace(stack.settings, port=free_port(), predict_timeout_s=timeout_s)
    with contextlib.ExitStack() as left:
        process = left.enter_context(beside(stack, settings))
        lines = [left.enter_context(closing(Line(settings.port))) for _ in range(10)]
        warmed(lines[0], key)
        left.enter_context(without_workers(stack))
        wait_both_ways(stack, lines, key)
        process.terminate()
        began = time.monotonic()
        answers = [each.answer() for each in lines]
        process.wait(ENDING_S)
        took_s = time.monotonic() - began
    assert [answer.code for answer in answers] == [503] * 10
    assert all(answer.headers["retry-after"] for answer in answers)
    assert took_s < min(timeout_s, ENDING_S) + 6


def test_api_that_is_told_to_end_tells_who_waits_for_a_training_where_it_goes_on(stack: Stack, key: str, data: Path):
    settings = dataclasses.replace(stack.settings, port=free_port())
    training = {
        "service": "iris",
        "async": False,
        "parameters": {"mllib": {"iterations": 10_000_000}},
        "data": [str(data / "iris.csv")],
    }
    with contextlib.ExitStack() as left:
        process = left.enter_context(beside(stack, settings))
        line = left.enter_context(closing(Line(settings.port)))
        other = left.enter_context(closing(Line(stack.settings.port)))
        line.send(request("POST", "/train", json.dumps(training).encode(), f"X-API-KEY: {key}"))
        [number] = until(lambda: [each["task_id"] for each in tasks_of(other, key, "running")])
        process.terminate()
        answer = line.answer()
        process.wait(ENDING_S)
        assert (answer.code, f"poll task {number}," in answer.json["status"]["message"]) == (503, True), answer
        assert [each["task_id"] for each in tasks_of(other, key, "running")] == [number]
        other.ask("DELETE", f"/tasks/{number}", None, f"X-API-KEY: {key}")
        until(lambda: not tasks_of(other, key, "running"), 30)


@pytest.mark.usefixtures("key")
def test_refusals_that_were_only_counted_are_written_by_an_api_that_is_told_to_end(stack: Stack, records: Records):
    settings = dataclasses.replace(stack.settings, port=free_port())
    with beside(stack, settings) as process, closing(Line(settings.port)) as line:
        began = time.time()
        for _ in range(3):
            assert line.ask("GET", "/account", None, "X-API-KEY: modelyard_wrong").code == 401
        process.terminate()
        process.wait(ENDING_S)
    noted = records.audit.page(limit=10, since=began, action="refused.")
    assert sorted(each.count for each in noted) == [1, 2], "the first at once, the other two together"


def tasks_of(line: Line, key: str, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = line.ask("GET", f"/tasks?state={state}", None, f"X-API-KEY: {key}").json["tasks"]
    return found


# Redis


def test_redis_that_is_away_is_told_within_a_second_and_forgotten_when_it_is_back(stack: Stack, line: Line, key: str):
    expected = warmed(line, key).json["body"]
    log = stack.log_of("api").stat().st_size
    with stopped(stack, "redis"):
        for _ in range(3):
            began = time.monotonic()
            answer = ask(line, key)
            assert time.monotonic() - began < TIMEOUT_S / 2
            assert answer.code == 503
            assert int(answer.headers["retry-after"]) >= 1
    until(lambda: ask(line, key).code == 200, 10)
    pid = stack.pid_of("redis")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    codes = set()
    deadline = time.monotonic() + 30
    while (answer := ask(line, key)).code != 200:
        codes.add(answer.code)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert codes <= {503}
    assert answer.json["body"] == expected
    assert warmed(line, key).json["body"] == expected
    told = log_since(stack.log_of("api"), log)
    assert "never retrieved" not in told
    assert "Traceback" not in told


def test_redis_that_is_emptied_under_load_fails_no_prediction_for_good(stack: Stack, line: Line, key: str):
    expected = warmed(line, key).json["body"]
    with redis.Redis.from_url(stack.settings.live_url) as client:
        for _ in range(5):
            client.flushall()
            client.script_flush()
            began = time.monotonic()
            answer = ask(line, key)
            assert time.monotonic() - began < TIMEOUT_S + 5
            assert answer.code in (200, 503)
            if answer.code == 200:
                assert answer.json["body"] == expected
    assert warmed(line, key).json["body"] == expected
