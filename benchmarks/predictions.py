"""Predictions: many rows at once against the bare library, what computing requests together gains, and the first one.

- Rows per second of requests of 1,000 rows, loaded by wrk, against one process that does the same work with the bare
  library: it reads the JSON, the lines and predicts, and writes the same answer. In alternating rounds, on one thread.
- Requests per second of 8 clients against one client after another, with a network of many small layers,
  whose call takes about 10 ms for one row and hardly more for eight: computing requests together gains it.
- The first prediction with a model that lies in the cache of the machine but is not loaded, against loading the same
  file and predicting with the bare library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import wrk
from benchmarks.yard import Client, median, running_stack
from cli.stack import Stack
from settings import Settings

ROWS, COLUMNS, TREES, DEPTH = 1_000, 30, 100, 6
LINES_CONNECTIONS, ROUNDS, SECONDS = 4, 5, 6.0
CALL_MS, CLIENTS, BATCHING_ROUNDS = 10.0, 8, 3
WIDTH, SEEN_DEPTH, TRIES = 64, 200, 3
COLD = 9
_START_S = 60.0
Json = dict[str, Any]

_BARE = """
import json, sys, time
import numpy as np, orjson, xgboost
model, request, target, seconds = *sys.argv[1:4], float(sys.argv[4])
booster = xgboost.Booster({"nthread": 1})
booster.load_model(model)
content = open(request, "rb").read()

def rows_of(lines):
    # A line of plain numbers is an array of JSON without its brackets; no parser of CSV that we know is faster here.
    return np.array(orjson.loads("[" + ",".join(lines) + "]"), np.float32).reshape(len(lines), -1)

def answered(content):
    body = orjson.loads(content)
    shares = booster.inplace_predict(rows_of(body["data"]), validate_features=False)
    best = shares.argmax(axis=1)
    values = shares[np.arange(len(shares)), best].astype(np.float64).tolist()
    predictions = [
        {"uri": str(row), "classes": [{"prob": value, "cat": str(place), "last": True}]}
        for row, (place, value) in enumerate(zip(best.tolist(), values))
    ]
    head = {"method": "/predict", "time": 0.0, "service": body["service"]}
    status = {"code": 200, "msg": "OK"}
    return orjson.dumps({"status": status, "head": head, "body": {"predictions": predictions}})

def rate(work):
    work()
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        work()
        count += 1
    return count / took

inputs = rows_of(orjson.loads(content)["data"])
open(target, "wb").write(answered(content))
print(json.dumps({
    "rows": len(inputs),
    "whole": rate(lambda: answered(content)),
    "predicting": rate(lambda: booster.inplace_predict(inputs, validate_features=False)),
}))
"""

_COLD = """
import json, sys, time
import numpy as np, xgboost
line = json.loads(sys.argv[1])
xgboost.Booster({"nthread": 1})
took = []
for model in sys.argv[2:]:
    began = time.perf_counter()
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(model)
    booster.inplace_predict(np.array([line.split(",")], np.float32), validate_features=False)
    took.append((time.perf_counter() - began) * 1000)
print(json.dumps(took))
"""

_CALL = """
import json, sys, time
import torch
inputs, width, depth = map(int, sys.argv[1:4])
torch.set_num_threads(1)
sizes = [inputs] + [width] * depth
parts = []
for before, after in zip(sizes, sizes[1:]):
    parts += [torch.nn.Linear(before, after), torch.nn.ReLU()]
network = torch.nn.Sequential(*parts, torch.nn.Linear(width, 2)).eval()
found = {}
with torch.inference_mode():
    for rows in (1, 8):
        given = torch.randn(rows, inputs)
        times = []
        for _ in range(25):
            began = time.perf_counter()
            network(given)
            times.append((time.perf_counter() - began) * 1000)
        found[rows] = min(times)
print(json.dumps(found))
"""


def main() -> None:
    """Print the three figures."""
    if missing := wrk.missing():
        raise SystemExit(missing)
    with running_stack(api_workers=1, threads=1) as (stack, settings, client):
        data = settings.data_roots[0]
        model = data / "trees.model"
        _train_trees(model, data)
        _throughput(settings, client, model)
        _batching(settings, client)
        _first(stack, settings, client, model)


def bare_file(model: Path) -> Path:
    """The same file under the name by which the bare library knows what is in it."""
    return model.with_suffix(".ubj")


def written(rows: np.ndarray) -> list[str]:
    """Lines of numbers with four decimals, as data is written."""
    return [",".join(f"{value:.4f}" for value in row) for row in rows.tolist()]


def depth_for(ms: float, seen_depth: int, seen_ms: float) -> int:
    """How many layers a call of `ms` needs, when `seen_depth` of them take `seen_ms`; at least one."""
    return max(1, round(seen_depth * ms / seen_ms))


# Many rows in a request


def _made_up(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    inputs = numbers.normal(size=(rows, COLUMNS)).round(4)
    return inputs, (inputs[:, :6].sum(axis=1) + numbers.normal(size=rows) > 0).astype(np.int64)


def _train_trees(path: Path, folder: Path) -> None:
    """Write a model of the bare library, trained on numbers made up, under both names."""
    inputs, labels = _made_up(20_000, 1)
    np.save(folder / "inputs.npy", inputs.astype(np.float32))
    np.save(folder / "labels.npy", labels)
    code = (
        "import sys, numpy as np, xgboost\n"
        "folder, target, trees, depth = sys.argv[1:]\n"
        "data = xgboost.DMatrix(np.load(folder + '/inputs.npy'), np.load(folder + '/labels.npy'))\n"
        "given = {'objective': 'multi:softprob', 'num_class': 2, 'max_depth': int(depth), 'seed': 1, 'nthread': 1}\n"
        "xgboost.train(given, data, int(trees)).save_model(target)\n"
    )
    _python(code, str(folder), str(bare_file(path)), str(TREES), str(DEPTH))
    path.write_bytes(bare_file(path).read_bytes())


def _python(code: str, *given: str) -> str:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *given]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def _serve(client: Client, name: str, model: Path) -> None:
    client.call(
        "PUT",
        f"/services/{name}",
        {
            "mllib": "xgboost",
            "description": "benchmark",
            "model": {"repository": name, "weights": str(model)},
            "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 2}, "output": {}},
        },
    )


def _asking(service: str, lines: list[str]) -> Json:
    return {"service": service, "parameters": {"input": {}, "mllib": {}, "output": {}}, "data": lines}


def _throughput(settings: Settings, client: Client, model: Path) -> None:
    _serve(client, "trees", model)
    asked = _asking("trees", written(_made_up(ROWS, 2)[0]))
    body, request, told = json.dumps(asked).encode(), model.with_name("request.json"), model.with_name("answer.json")
    request.write_bytes(body)
    url = f"http://127.0.0.1:{settings.port}/predict"
    ratios: dict[str, list[float]] = {"whole": [], "predicting": []}
    for number in range(ROUNDS + 1):
        bare, load = {}, None
        for side in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
            if side == "bare":
                bare = json.loads(_python(_BARE, str(bare_file(model)), str(request), str(told), str(SECONDS / 2)))
            else:
                load = wrk.post(url, body, client.headers, connections=LINES_CONNECTIONS, seconds=SECONDS)
        assert load is not None
        if load.errors:
            raise SystemExit(f"{load.errors} of the requests of {ROWS:,} rows were refused")
        if number == 0:
            _check_same(client.call("POST", "/predict", asked), json.loads(told.read_bytes()))
            continue  # the first round fills caches
        for name, values in ratios.items():
            values.append(load.rate / bare[name])
        print(
            f"round {number}: bare library {bare['whole'] * ROWS:,.0f} rows/s (predicting alone "
            f"{bare['predicting'] * ROWS:,.0f}), /predict {load.rate * ROWS:,.0f} rows/s, p50 {load.p50_ms:.1f} ms, "
            f"ratio {ratios['whole'][-1]:.3f} ({ratios['predicting'][-1]:.3f})",
            flush=True,
        )
    print(
        f"requests of {ROWS:,} rows over {LINES_CONNECTIONS} connections / one process that reads, predicts and "
        f"answers: {median(ratios['whole']):.3f} (goal 0.8, this one is judged)"
    )
    print(f"the same / one process that only predicts, on an array: {median(ratios['predicting']):.3f}")


def _check_same(ours: Json, bare: Json) -> None:
    one, other = ours["body"]["predictions"], bare["body"]["predictions"]
    same = len(one) == len(other) == ROWS
    for left, right in zip(one, other, strict=False):
        left, right = left["classes"][0], right["classes"][0]
        same = same and left["cat"] == right["cat"] and abs(left["prob"] - right["prob"]) < 1e-6
    if not same:
        raise SystemExit("the answers are not those of the bare library")


# Requests computed together


def _batching(settings: Settings, client: Client) -> None:
    depth = SEEN_DEPTH
    for _ in range(TRIES):
        depth = depth_for(CALL_MS, depth, _bare_call_ms(depth)["1"])
    bare = _bare_call_ms(depth)
    _train_network(client, settings.data_roots[0] / "network.csv", depth)
    line = written(_made_up(1, 3)[0])
    body = json.dumps(_asking("network", line)).encode()
    url = f"http://127.0.0.1:{settings.port}/predict"
    call_ms = _compute_ms(client, line)
    print(
        f"network of {depth} layers of {WIDTH} units: a call takes {call_ms:.1f} ms at best; plain PyTorch takes "
        f"{bare['1']:.1f} ms for 1 row and {bare['8']:.1f} ms for 8",
        flush=True,
    )
    gains = []
    for number in range(BATCHING_ROUNDS):
        one = wrk.post(url, body, client.headers, connections=1, seconds=SECONDS)
        many = wrk.post(url, body, client.headers, connections=CLIENTS, seconds=SECONDS)
        if one.errors or many.errors:
            raise SystemExit(f"{one.errors + many.errors} predictions of the network were refused")
        gains.append(many.rate / one.rate)
        print(
            f"round {number + 1}: one client {one.rate:.1f}/s (p50 {one.p50_ms:.1f} ms), {CLIENTS} clients "
            f"{many.rate:.1f}/s (p50 {many.p50_ms:.1f} ms), gain {gains[-1]:.2f}",
            flush=True,
        )
    print(f"{CLIENTS} clients at once / one after another: {median(gains):.2f} (goal 3.5)")


def _bare_call_ms(depth: int) -> dict[str, float]:
    """Milliseconds of plain PyTorch at best, by the number of rows, for such a network."""
    found: dict[str, float] = json.loads(_python(_CALL, str(COLUMNS), str(WIDTH), str(depth)))
    return found


def _train_network(client: Client, data: Path, depth: int) -> None:
    inputs, labels = _made_up(64, 1)
    names = ",".join([*(f"x{column}" for column in range(COLUMNS)), "target"])
    lines = [f"{line},{label}" for line, label in zip(written(inputs), labels.tolist(), strict=True)]
    data.write_text("\n".join([names, *lines]) + "\n", encoding="utf-8")
    client.call(
        "PUT",
        "/services/network",
        {
            "mllib": "torch",
            "description": "benchmark",
            "model": {"repository": "network"},
            "parameters": {
                "input": {"connector": "csv", "label": "target"},
                "mllib": {
                    "nclasses": 2,
                    "template": "mlp",
                    "layers": [WIDTH] * depth,
                    "solver": {"iterations": 1, "test_interval": 1, "solver_type": "SGD", "base_lr": 1e-6},
                    "net": {"batch_size": 64},
                },
                "output": {},
            },
        },
    )
    client.wait(client.train("network", data, {}))


def _compute_ms(client: Client, line: list[str]) -> float:
    """Milliseconds of a call at best: what else runs on the machine only adds to them."""
    asked = _asking("network", line)
    asked["parameters"]["output"]["timings"] = True
    client.call("POST", "/predict", asked)  # loads it
    return min(client.call("POST", "/predict", asked)["head"]["timings"]["compute"] for _ in range(25))


# The first prediction


def _first(stack: Stack, settings: Settings, client: Client, model: Path) -> None:
    """Every model is fetched once; then the worker is started anew, so that all of them lie in the cache only."""
    names = [f"cold{number}" for number in range(COLD)]
    line = written(_made_up(1, 3)[0])
    for name in names:
        _serve(client, name, model)
        client.call("POST", "/predict", _asking(name, line))
    _start_anew(stack, "predict-xgboost")
    client.call("POST", "/predict", _asking("trees", line))
    first = [_asked_ms(client, name, line) for name in names]
    again = [_asked_ms(client, name, line) for name in names]
    # The same file for all of them, in copies, so that no side profits from another one's.
    copies = [model.with_name(f"cold{number}.ubj") for number in range(COLD)]
    for copy in copies:
        copy.write_bytes(model.read_bytes())
    bare: list[float] = json.loads(_python(_COLD, json.dumps(line[0]), *map(str, copies)))
    took, loading = ([each[place] for each in first] for place in (0, 1))
    print(
        f"first prediction with a model in the cache ({model.stat().st_size / 1e6:.1f} MB): {median(took):.1f} ms "
        f"(worst {max(took):.1f}), {median(loading):.1f} ms of it for loading; bare library, load and predict: "
        f"{median(bare):.1f} ms; ratio {median(took) / median(bare):.2f}; the second prediction: "
        f"{median([took for took, _ in again]):.1f} ms"
    )


def _asked_ms(client: Client, name: str, line: list[str]) -> tuple[float, float]:
    """Milliseconds until the answer, and those that the worker took to get the model."""
    asked = _asking(name, line)
    asked["parameters"]["output"]["timings"] = True
    began = time.perf_counter()
    answer = client.call("POST", "/predict", asked)
    return (time.perf_counter() - began) * 1000, answer["head"]["timings"]["load"]


def _start_anew(stack: Stack, name: str) -> None:
    before = stack.pid_of(name)
    assert before is not None
    worker = psutil.Process(before)
    children = worker.children(recursive=True)
    worker.terminate()
    psutil.wait_procs([worker, *children], timeout=_START_S)
    deadline = time.monotonic() + _START_S
    while (now := stack.pid_of(name)) is None or now == before:
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} did not start again")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
