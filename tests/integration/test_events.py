"""Event streams of tasks on a running stack, over plain sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.unread import Connection, connection_of, unread_bytes
from cli.stack import Stack
from storage.live import Live
from storage.records import Kind, Records, State
from tests.integration.fronted import Line, beside, create, fronted, processes, put_iris, until
from tests.services import free_port

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

Json = dict[str, Any]
MOST = 40
"""Event streams of one account."""
ENDLESS = 2_000_000


@dataclasses.dataclass(frozen=True)
class Event:
    """What came: the name of a comment is empty, and its data the text."""

    name: str
    id: str
    data: Any


class Stream:
    """A stream that is read event by event, as the standard says, with `last_id` kept as a browser keeps it."""

    def __init__(self, port: int, path: str, key: str, last_id: str | None = None, *more: tuple[str, str]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.connect()
        self.socket = self.connection.sock
        headers = {"X-API-KEY": key, "Accept-Encoding": "gzip", **dict(more)}
        self.connection.request(
            "GET", path, headers=headers if last_id is None else headers | {"Last-Event-ID": last_id}
        )
        self.answer = self.connection.getresponse()
        self.last_id = last_id or ""

    def close(self) -> None:
        self.answer.close()
        self.connection.close()

    def __iter__(self) -> Iterator[Event]:
        while (block := self._block()) is not None:
            yield from block

    def until(self, name: str) -> Event:
        """The next event of that name."""
        return next(each for each in self if each.name == name)

    def _block(self) -> list[Event] | None:
        fields: dict[str, str] = {}
        while (line := self.answer.readline().decode()) != "\n":
            if not line:
                return None
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        self.last_id = fields.get("id", self.last_id)
        if "" in fields:
            return [Event("", self.last_id, fields[""])]
        if "data" not in fields:
            return []
        return [Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))]


def events_of(task_id: int) -> str:
    return f"/tasks/{task_id}/events"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_iris(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stack(data: Path) -> Iterator[Stack]:
    with fronted(data, api_threads=8, event_streams=2 * MOST) as stack:
        yield stack


@pytest.fixture(scope="module")
def records(stack: Stack) -> Iterator[Records]:
    made = Records.connect(stack.settings.database_url)
    yield made
    made.close()


@dataclasses.dataclass(frozen=True)
class Client:
    """An account with a service `iris`."""

    stack: Stack
    data: Path
    key: str

    @property
    def port(self) -> int:
        return self.stack.settings.port

    def call(self, method: str, path: str, body: Json | None = None, key: str | None = None) -> tuple[int, Any]:
        with closing(Line(self.port)) as line:
            answer = line.ask(
                method, path, None if body is None else json.dumps(body).encode(), f"X-API-KEY: {key or self.key}"
            )
        return answer.code, answer.json

    def train(self, iterations: int, *, test_interval: int = 1) -> tuple[int, int]:
        """Task and job of a training under way."""
        mllib = {"iterations": iterations, "test_interval": test_interval}
        output = {"measure": ["acc", "mcll"]}
        parameters = {"input": {"test_split": 0.2, "shuffle": True, "seed": 7}, "mllib": mllib, "output": output}
        body = {"service": "iris", "async": True, "parameters": parameters, "data": [str(self.data / "iris.csv")]}
        code, answer = self.call("POST", "/train", body)
        assert code == 201, answer
        return answer["head"]["task_id"], answer["head"]["job"]

    def history(self, job: int) -> list[Json]:
        """What GET /train tells of an ended training, one object for each test."""
        code, answer = self.call("GET", f"/train?service=iris&job={job}&timeout=60")
        assert code == 200
        hist = answer["body"]["measure_hist"]
        names = ("iteration", "acc", "mcll")
        return [dict(zip(names, each, strict=True)) for each in zip(*(hist[f"{n}_hist"] for n in names), strict=True)]

    @contextlib.contextmanager
    def endless(self) -> Iterator[int]:
        """A training that is cancelled at the end of the block."""
        task_id, _ = self.train(ENDLESS, test_interval=1000)
        try:
            yield task_id
        finally:
            self.call("DELETE", f"/tasks/{task_id}")
            until(lambda: self.call("GET", f"/tasks/{task_id}")[1]["finished_at"], 60)

    def watch(self, task_id: int, last_id: str | None = None) -> Stream:
        return Stream(self.port, events_of(task_id), self.key, last_id)


@pytest.fixture(scope="module")
def client(stack: Stack, records: Records, data: Path) -> Client:
    secret = records.keys.create("alice")[1]
    with closing(Line(stack.settings.port)) as line:
        until(lambda: line.ask("GET", "/info").code == 401)  # that no key is in force is believed for a second
        create(line, "iris", data, f"X-API-KEY: {secret}")
    return Client(stack, data, secret)


def told(events: list[Event], name: str) -> list[Any]:
    return [each.data for each in events if each.name == name]


def test_training_is_watched_to_its_end_and_every_measure_comes_once(client: Client):
    task_id, job = client.train(60)
    with closing(client.watch(task_id)) as stream:
        assert stream.answer.status == 200
        headers = stream.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"
        assert "content-encoding" not in headers
        events = list(stream)
    assert [each.name for each in events if each.name in ("state", "end")][-1] == "end"
    assert told(events, "state")[0]["task_id"] == task_id
    states = [each["state"] for each in told(events, "state")]
    assert states[-1] == "finished"
    assert states == sorted(states, key=["queued", "running", "finished"].index)
    measures = told(events, "measure")
    assert [{name: each[name] for name in ("iteration", "acc", "mcll")} for each in measures] == client.history(job)
    ids = [each.id.split("-")[:2] for each in events if each.name == "measure"]
    assert ids == [["1", str(number)] for number in range(1, len(measures) + 1)]
    lines = told(events, "log")
    assert [each["number"] for each in lines] == list(range(1, len(lines) + 1))
    said = [each["message"] for each in lines]
    # Each has its place: what is said before the training comes before its first measure.
    names = [each.data["message"] if each.name == "log" else each.name for each in events]
    assert said[0] == "attempt 1 begins"
    assert said[-1] == "the work is done"
    [begins] = [each for each in said if each.startswith("training begins")]
    [saving] = [each for each in said if "saving the model" in each]
    assert names.index(begins) < names.index("measure") < names.index(saving) < names.index("end")
    [end] = told(events, "end")
    _, task = client.call("GET", f"/tasks/{task_id}")
    assert (end["state"], end["percent"], end["measure"]) == ("finished", 100.0, task["measure"])
    assert {name: end[name] for name in ("created_at", "started_at", "finished_at")} == {
        name: task[name] for name in ("created_at", "started_at", "finished_at")
    }


def test_stream_that_broke_off_goes_on_behind_the_last_event(client: Client):
    task_id, job = client.train(400)
    measures: list[Json] = []
    lines: list[Json] = []
    last_id = None
    for most in (5, 20, 100):
        with closing(client.watch(task_id, last_id)) as stream:
            for each in stream:
                measures += [each.data] if each.name == "measure" else []
                lines += [each.data] if each.name == "log" else []
                if each.name == "end" or len(measures) >= most:
                    break
            last_id = stream.last_id
    until(lambda: client.call("GET", f"/tasks/{task_id}")[1]["state"] == "finished", 60)
    with closing(client.watch(task_id, last_id)) as stream:
        events = list(stream)
        assert [each.name for each in events if each.name not in ("measure", "log")] == ["state", "end"]
        measures += told(events, "measure")
        lines += told(events, "log")
    assert [each["number"] for each in lines] == list(range(1, len(lines) + 1))
    polled = client.call("GET", f"/tasks/{task_id}/logs?after=2&limit=3")[1]
    assert (polled["logs"], polled["dropped"], polled["after"]) == (lines[2:5], 0, 5)
    assert [{name: each[name] for name in ("iteration", "acc", "mcll")} for each in measures] == client.history(job)
    with closing(client.watch(task_id, stream.last_id)) as again:
        assert (again.answer.status, again.answer.read()) == (204, b"")


def test_ended_task_is_told_whole_to_who_comes_late(client: Client):
    task_id, job = client.train(10)
    history = client.history(job)
    with closing(client.watch(task_id)) as stream:
        events = list(stream)
    assert [each["iteration"] for each in told(events, "measure")] == [each["iteration"] for each in history]
    assert events[-1].name == "end"


def test_another_process_goes_on_with_the_same_ids(client: Client):
    task_id, job = client.train(50)
    client.history(job)
    settings = dataclasses.replace(client.stack.settings, port=free_port())
    with (
        beside(client.stack, settings),
        closing(Stream(settings.port, events_of(task_id), client.key, "1-45")) as other,
    ):
        assert other.until("measure").id.startswith("1-46-")


def test_killed_training_tells_each_measure_once_over_its_attempts(client: Client):
    task_id, job = client.train(20_000, test_interval=200)
    with closing(client.watch(task_id)) as stream:
        events = [stream.until("measure")]
        program = {"ml.training.run", "xgboost"}
        [child] = [each for each in processes(client.stack, "train1") if program <= command(each)]
        child.kill()
        events += list(stream)
    states = told(events, "state")
    assert states[-1]["attempt"] == 2
    measures = [{name: each[name] for name in ("iteration", "acc", "mcll")} for each in told(events, "measure")]
    assert measures == client.history(job)


def command(process: psutil.Process) -> set[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return set(process.cmdline())
    return set()


def test_task_of_another_account_is_not_there(client: Client, records: Records):
    with client.endless() as task_id:
        bob = records.keys.create("bob")[1]
        for path in (events_of(task_id), "/tasks/999999/events", "/tasks/first/events"):
            whole = path.removesuffix("/events")
            assert client.call("GET", path, key=bob) == client.call("GET", whole, key=bob)
            assert client.call("GET", path, key=bob)[0] == 404
        assert client.call("GET", events_of(task_id), key="wrong")[0] == 401


@pytest.mark.parametrize("last_id", ["first", "1", "-1-3", "1-2-3-4", "1-3-End", "1-" + "9" * 30])
def test_last_event_id_that_no_stream_gave_is_refused(client: Client, last_id: str):
    with client.endless() as task_id, closing(client.watch(task_id, last_id)) as stream:
        assert stream.answer.status == 400
        assert json.loads(stream.answer.read())["error"]["kind"] == "bad_header"


def test_query_of_a_stream_is_refused_and_head_tells_its_headers(client: Client):
    with client.endless() as task_id:
        code, answer = client.call("GET", f"{events_of(task_id)}?from=3")
        assert (code, answer["error"]["kind"]) == (400, "bad_query")
        with closing(Line(client.port)) as line:
            head = line.ask("HEAD", events_of(task_id), None, f"X-API-KEY: {client.key}")
            assert (head.code, head.headers["cache-control"]) == (200, "no-store")
            assert line.ask("GET", "/healthz").code == 200


def test_cancel_is_seen(client: Client):
    with client.endless() as task_id, closing(client.watch(task_id)) as stream:
        assert stream.until("progress").data["attempt"] == 1
        client.call("DELETE", f"/tasks/{task_id}")
        events = list(stream)
    assert told(events, "end")[0]["state"] == "cancelled"
    assert told(events, "end")[0]["cancel_requested"] is True


def test_task_that_is_cancelled_while_it_waits_ends_its_stream(client: Client):
    with client.endless():
        task_id, _ = client.train(5)
        with closing(client.watch(task_id)) as stream:
            assert stream.until("state").data["state"] == "queued"
            client.call("DELETE", f"/tasks/{task_id}")
            assert stream.until("end").data["state"] == "cancelled"


def connections(client: Client) -> int:
    return sum(
        each.laddr.port == client.port and each.status == psutil.CONN_ESTABLISHED
        for process in processes(client.stack)
        for each in process.net_connections("tcp")
    )


def test_too_many_streams_of_an_account_are_refused_and_who_hangs_up_makes_room(client: Client):
    before = connections(client)
    with client.endless() as task_id:
        streams = [client.watch(task_id) for _ in range(MOST)]
        assert {each.answer.status for each in streams} == {200}
        with closing(client.watch(task_id)) as refused:
            assert (refused.answer.status, refused.answer.headers["retry-after"]) == (429, "5")
            error = json.loads(refused.answer.read())["error"]
            assert error["kind"] == "too_many_streams"
            assert f"{MOST} event streams of this account" in error["message"]
        # None of them holds one of the 8 threads.
        assert client.call("GET", "/services/iris")[0] == 200
        for each in streams:
            each.close()
        until(lambda: connections(client) <= before)

        def comes_in() -> bool:
            with closing(client.watch(task_id)) as stream:
                return stream.answer.status == 200

        until(comes_in)


def test_streams_outlive_a_redis_that_is_away(client: Client):
    redis = psutil.Process(client.stack.pid_of("redis"))
    with client.endless() as task_id, closing(client.watch(task_id)) as stream:
        stream.until("measure")
        redis.suspend()
        try:
            assert "Redis does not answer" in stream.until("").data
        finally:
            redis.resume()
        before = int(stream.last_id.split("-")[1])
        assert stream.until("measure").id.startswith(f"1-{before + 1}-")


def test_stream_ends_when_its_key_is_revoked(client: Client, records: Records):
    made, secret = records.keys.create("alice")
    with client.endless() as task_id, closing(Stream(client.port, events_of(task_id), secret)) as stream:
        stream.until("progress")
        records.keys.revoke(made.id)
        assert "not in force" in [each.data for each in stream][-1]


def test_streams_end_when_the_process_is_told_to_end(client: Client):
    settings = dataclasses.replace(client.stack.settings, port=free_port())
    with client.endless() as task_id, beside(client.stack, settings) as process:
        with closing(Stream(settings.port, events_of(task_id), client.key)) as stream:
            stream.until("progress")
            process.send_signal(signal.SIGTERM)
            assert "end" not in [each.name for each in stream]
        assert process.wait(30) == 0
        # What is still open after a while, granian gives up and kills.
        assert "Killing" not in client.stack.log_of(f"api-{settings.port}").read_text()


def test_reader_that_falls_asleep_is_sent_no_more_than_it_may_leave_unread(client: Client, records: Records):
    """A history of 2.5 MB, and a client whose kernel takes next to none of it."""
    account = records.accounts.ensure("alice")

    task, _ = records.tasks.add(account.id, Kind.TRAIN, "nobody.cpu", {})
    attempt = records.tasks.claim(task.id, "nobody", 600.0)
    assert attempt is not None
    live = Live(client.stack.settings.live_url)
    points = [{"iteration": n, "acc": 0.5, "text": "x" * 200} for n in range(10_000)]
    live.progress.append_history(task.id, 1, points, 0)
    [api] = [each for each in processes(client.stack) if not each.children()][-1:]
    with closing(client.watch(task.id)) as warm:  # what is kept once for each task
        warm.until("measure")
        before = api.memory_info().rss
        sleepers = [asleep(client, task.id) for _ in range(MOST // 2)]
        until(lambda: all((unread_bytes() or {}).get(each, 0) > 0 for _, each in sleepers))
        iterations = [each.data["iteration"] for each in warm_rest(warm, 9_999)]
        assert iterations == list(range(1, 10_000))
        assert api.memory_info().rss - before < MOST // 2 * 2**20
        for each, _ in sleepers:
            each.close()
    live.close()

    records.tasks.end(attempt, State.CANCELLED, phases={})


def warm_rest(stream: Stream, count: int) -> Iterator[Event]:
    for each in stream:
        if each.name == "measure":
            yield each
            count -= 1
            if not count:
                return


def asleep(client: Client, task_id: int) -> tuple[socket.socket, Connection]:
    """A client that asks and never reads; and its connection."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", client.port))
    made.sendall(f"GET {events_of(task_id)} HTTP/1.1\r\nHost: x\r\nX-API-KEY: {client.key}\r\n\r\n".encode())
    connection = connection_of(f"127.0.0.1:{client.port}", f"127.0.0.1:{made.getsockname()[1]}")
    assert connection is not None
    return made, connection
