"""Where each microsecond of a prediction goes: one row of 30 numbers for 100 trees, in the interactive lane.

First the whole: what each process spends of processor time for a request under load, and what a caller waits. Then the
steps of the API and of the worker, each called again and again alone, on warm caches and with one row. Redis tells
itself what its commands took.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import hiredis
import orjson
import psutil
import redis
from sklearn.datasets import load_breast_cancer

from api import predicting
from api.app import create_app
from api.body import parse_object
from api.hot import Hot
from api.parts import Parts as ApiParts
from benchmarks import wrk
from benchmarks.yard import Client, running_stack
from cli.stack import Stack
from settings import Settings
from storage.live import Request, Spread, Taken
from storage.live.lane import replies_in, told_of
from workers.asked import Answer, Asked, told
from workers.data import inline
from workers.figures import PredictionFigures
from workers.parts import Parts
from workers.predicting import Predictor

_SERVICE, _LANE = "hotpath", "predict.xgboost.cpu"
_CONNECTIONS = (1, 8, 64)
_SECONDS = 6


def main() -> None:
    """Print both tables."""
    if missing := wrk.missing():
        raise SystemExit(missing)
    with running_stack(threads=1) as (stack, settings, client):
        body = _ready(client, settings)
        _print_whole(stack, settings, body)
        _print_steps(settings, body)


def _ready(client: Client, settings: Settings) -> bytes:
    """Trains; returns the body of a prediction of one row."""
    features, labels = load_breast_cancer(return_X_y=True)
    names = [f"f{number}" for number in range(features.shape[1])]
    lines = [",".join([*names, "label"])]
    lines += [",".join([*map(str, row), str(label)]) for row, label in zip(features.tolist(), labels, strict=True)]
    data = settings.data_roots[0] / "data.csv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {
        "nclasses": 2,
        "iterations": 100,
        "objective": "binary:logistic",
        "booster_params": {"max_depth": 6, "tree_method": "hist"},
    }
    client.create(_SERVICE, "label", options)
    client.wait(client.train(_SERVICE, data, {}))
    asked = {"service": _SERVICE, "parameters": {}, "data": [",".join(map(str, features[0].tolist()))]}
    client.call("POST", "/predict", asked)
    return json.dumps(asked).encode()


def _print_whole(stack: Stack, settings: Settings, body: bytes) -> None:
    redis_client = redis.Redis.from_url(settings.live_url)
    url = f"http://127.0.0.1:{settings.port}/predict"
    processes = {"API": "api", "worker": "predict-xgboost", "Redis": "redis"}
    wrk.post(url, body, {}, connections=8, seconds=2)
    print("connections  requests/s  p50 ms  p99 ms  " + "  ".join(f"{name} us" for name in processes))
    for connections in _CONNECTIONS:
        redis_client.config_resetstat()
        before = {name: _cpu_s(stack.pid_of(service)) for name, service in processes.items()}
        load = wrk.post(url, body, {}, connections=connections, seconds=_SECONDS)
        spent = {name: _cpu_s(stack.pid_of(service)) - before[name] for name, service in processes.items()}
        count = load.rate * _SECONDS
        row = "  ".join(f"{spent[name] / count * 1e6:{len(name) + 3}.0f}" for name in processes)
        print(f"{connections:11}  {load.rate:10.0f}  {load.p50_ms:6.2f}  {load.p99_ms:6.2f}  {row}", flush=True)
        if load.errors:
            raise SystemExit(f"{load.errors} requests failed")
    print("\nin Redis, us of a request at 64 connections:")
    stats = cast("dict[str, dict[str, float]]", redis_client.info("commandstats"))
    for name in ("evalsha", "blpop"):
        told = stats.get(f"cmdstat_{name}", {"usec": 0.0, "calls": 0})
        print(f"  {name:28} {told['usec'] / count:8.1f}  ({told['calls'] / count:.2f} calls)")
    redis_client.close()


def _print_steps(settings: Settings, body: bytes) -> None:
    for where, steps in (("API", _api_steps(settings, body)), ("worker", _worker_steps(settings, body))):
        print(f"\nin the {where}, us a request:")
        whole = 0.0
        for name, step in steps:
            took = _us(step)
            whole += took
            print(f"  {name:28} {took:8.1f}", flush=True)
        print(f"  {'together':28} {whole:8.1f}")


def _api_steps(settings: Settings, body: bytes) -> Iterator[tuple[str, Callable[[], Any]]]:
    app = create_app(settings)
    parts: ApiParts = app.extensions["modelyard"]
    client = app.test_client()
    headers = SimpleNamespace(get={"host": "localhost"}.get)
    assert client.post("/predict", data=body).status_code == 200, "Flask looks everything up"
    account = parts.access.account_of(headers)
    known = parts.services.find(account.id, _SERVICE)
    question = predicting.kept_question(known, {})
    assert question is not None
    entries = orjson.dumps(orjson.loads(body)["data"])
    asked = Asked(question.encoded, entries)
    request = Request("0" * 32, question.batch, "replies:x", 20.0, asked.joined())
    command = ["EVALSHA", "0" * 40, 1, "lane:x", *told_of([request], Spread())]
    answer = told(
        SimpleNamespace(
            predictions=[{"uri": "1", "classes": [{"prob": 0.5, "cat": "1", "last": True}]}], measure=None, warnings=[]
        ),  # type: ignore[arg-type]
        dict.fromkeys(("queued", "load", "input", "compute", "output"), 0.1),
        1,
    )
    reply = b"%b\t%d\n%b" % (b"0" * 32, len(answer), answer)
    split = Answer.split(answer)
    hot = Hot(app, cast(Any, None))
    yield "who asks", lambda: parts.access.account_of(headers)
    yield "read the body", lambda: parse_object(body)
    yield "what is asked", lambda: _run(hot._understood(account, body))
    yield "write for the queue", lambda: (asked.joined(), told_of([request], Spread()))
    yield "pack the command", lambda: hiredis.pack_command(cast(Any, tuple(command)))
    yield "take the reply apart", lambda: ([*replies_in(reply)], Answer.split(answer))
    yield (
        "count and log",
        lambda: (
            predicting.count(parts, known.service.id, split),
            parts.note("POST", "/predict", "/predict", 200, 0.001, "local"),
        ),
    )
    yield (
        "write the answer",
        lambda: predicting.enveloped(predicting.head_of(_SERVICE, question, split, (), time.perf_counter()), split),
    )


def _run(waiting: Any) -> Any:
    """Run a coroutine that has nothing to wait for."""
    with suppress(StopIteration):
        waiting.send(None)


def _worker_steps(settings: Settings, body: bytes) -> Iterator[tuple[str, Callable[[], Any]]]:
    app = create_app(settings)
    parts: ApiParts = app.extensions["modelyard"]
    assert app.test_client().post("/predict", data=body).status_code == 200
    account = parts.access.account_of(SimpleNamespace(get={"host": "localhost"}.get))
    question = predicting.kept_question(parts.services.find(account.id, _SERVICE), {})
    assert question is not None
    entries = orjson.dumps(orjson.loads(body)["data"])
    content = Asked(question.encoded, entries).joined()
    predictor = Predictor(Parts.make(settings))
    predictor.figures = PredictionFigures().of(_LANE)
    assert predictor.answer([Taken(b"0", 0.0, content)])[0][1].startswith(b'{"name":"predictions"')
    request, options = predictor._loaded(question.encoded)
    model = predictor._model(request["version_id"], request["device"])
    found = inline(entries, predictor._parts.data_roots)
    rows = model.read(found, options)
    outputs = model.compute([rows])
    made = model.answer(rows, outputs[0])
    timings = dict.fromkeys(("queued", "load", "input", "compute", "output"), 0.1)
    yield "take the request apart", lambda: Asked.split(content)
    yield (
        "options and model",
        lambda: (predictor._loaded(question.encoded), predictor._model(request["version_id"], request["device"])),
    )
    yield "lines or paths", lambda: inline(entries, predictor._parts.data_roots)
    yield "rows of numbers", lambda: model.read(found, options)
    yield "the library computes", lambda: model.compute([rows])
    yield "shape the answer", lambda: model.answer(rows, outputs[0])
    yield "write and count", lambda: (told(made, timings, 1), predictor.figures.note_request(timings))


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process and its children."""
    main = psutil.Process(pid)
    times = [each.cpu_times() for each in (main, *main.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _us(step: Callable[[], Any]) -> float:
    """The median of a hundred times, each of fifty calls, in microseconds."""
    taken = []
    for _ in range(100):
        began = time.perf_counter()
        for _ in range(50):
            step()
        taken.append((time.perf_counter() - began) / 50 * 1e6)
    return sorted(taken)[50]
