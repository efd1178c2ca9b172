"""`make demo`: a stack of its own, real data, and everything over HTTP, as any client would do it.

Trains a classification, a binary classification, a regression and a network, predicts rows that the training never
saw, cancels a long training, deletes, prints what came of it, and stops everything. Exits 0, or says what went wrong.

MODELYARD_HOME, MODELYARD_PORT and MODELYARD_FLOWER_PORT are used when set; otherwise .modelyard/demo, emptied first,
and free ports. `--stay` leaves the stack up until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cli.environment import local_url
from cli.services import socket_fits
from cli.stack import Stack, StackError, is_held
from settings import BadSetting, Settings

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "examples" / "data"

_READY_S = 90.0
_TRAINING_S = 120.0
_POLL_S = 0.1

Json = dict[str, Any]


class DemoError(Exception):
    """The demonstration went wrong; the text says where."""


@dataclass(frozen=True)
class Example:
    """One training: the file, its label column and what is asked of it."""

    name: str
    file: str
    label: str
    shown: str
    mllib: Json
    measure: tuple[str, ...]
    library: str = "xgboost"
    input: Json = field(default_factory=dict)


EXAMPLES = (
    Example("demo-iris", "iris.csv", "species", "iris, 3 classes", {"nclasses": 3, "iterations": 50}, ("acc", "f1")),
    Example(
        "demo-cancer",
        "breast_cancer.csv",
        "benign",
        "breast cancer, 2 classes",
        {"nclasses": 2, "iterations": 100, "booster_params": {"max_depth": 4}},
        ("acc", "auc"),
    ),
    Example(
        "demo-diabetes",
        "diabetes.csv",
        "progression",
        "diabetes, a number",
        {
            "regression": True,
            "ntargets": 1,
            "iterations": 60,
            "booster_params": {"max_depth": 3, "eta": 0.08, "subsample": 0.8},
        },
        ("eucll",),
    ),
    Example(
        "demo-wines",
        "wine.csv",
        "cultivar",
        "wine, a network",
        {
            "nclasses": 3,
            "template": "mlp",
            "layers": [64],
            "solver": {"solver_type": "ADAM", "base_lr": 0.005, "iterations": 400, "test_interval": 100},
            "net": {"batch_size": 32, "test_batch_size": 128},
        },
        ("acc", "f1"),
        library="torch",
        input={"scale": True, "scale_type": "znorm", "shuffle": True, "seed": 1},
    ),
)
LONG = Example(
    "demo-wine", "wine.csv", "cultivar", "wine, a long one", {"nclasses": 3, "iterations": 1_000_000}, ("acc",)
)


class Client:
    """Speaks JSON with the API; knows nothing else of Modelyard."""

    def __init__(self, url: str) -> None:
        self.url = url
        # This machine asks itself: never through a proxy that the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: Json | None = None, query: Json | None = None) -> Json:
        """The answer to a request. Raises DemoError when it is refused."""
        where = f"{path}?{urlencode(query)}" if query else path
        request = urllib.request.Request(
            self.url + where,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=60) as answer:
                return _object(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise DemoError(f"{method} {where} answered {error.code}: {error.read(2000).decode()}") from None
        except OSError as error:
            raise DemoError(f"{method} {where}: {error}") from None

    def status(self, method: str, path: str) -> int:
        """Only the HTTP code of the answer."""
        try:
            self.call(method, path)
        except DemoError as error:
            if isinstance(error.__context__, urllib.error.HTTPError):
                return error.__context__.code
            raise
        return 200


def _object(body: bytes) -> Json:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise DemoError(f"the API answered no object: {body[:200]!r}")
    return value


@dataclass(frozen=True)
class Split:
    """Three files in a data root: rows to train on, rows to test on, and the latter without their label."""

    train: Path
    test: Path
    unlabelled: Path
    truth: list[float]


def split(example: Example, folder: Path) -> Split:
    """Every fifth row is kept from the training."""
    with (DATA / example.file).open(newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index(example.label)
    held = rows[::5]
    stem = folder / example.name
    made = Split(
        Path(f"{stem}-train.csv"),
        Path(f"{stem}-test.csv"),
        Path(f"{stem}-new.csv"),
        [float(row[column]) for row in held],
    )
    _write(made.train, [header, *(row for number, row in enumerate(rows) if number % 5)])
    _write(made.test, [header, *held])
    _write(made.unlabelled, [row[:column] + row[column + 1 :] for row in (header, *held)])
    return made


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def create(client: Client, example: Example, root: Path) -> None:
    """A service that keeps its model in a folder of the data root; an earlier one of that name goes."""
    with contextlib.suppress(DemoError):
        client.call("DELETE", f"/services/{example.name}", query={"clear": "full"})
    client.call(
        "PUT",
        f"/services/{example.name}",
        {
            "mllib": example.library,
            "description": example.shown,
            "model": {"repository": str(root / "models" / example.name), "create_repository": True},
            "parameters": {
                "input": {"connector": "csv", "label": example.label, "separator": ","},
                "mllib": {
                    name: example.mllib[name]
                    for name in ("nclasses", "ntargets", "regression", "template", "layers")
                    if name in example.mllib
                },
            },
        },
    )


def start(client: Client, example: Example, data: Split) -> Json:
    """Begin to train; the head of the answer has the numbers of the job and of the task."""
    answer = client.call(
        "POST",
        "/train",
        {
            "service": example.name,
            "async": True,
            "parameters": {
                "input": {"connector": "csv", "label": example.label, "separator": ",", **example.input},
                "mllib": {**example.mllib, "seed": 1} if example.library == "xgboost" else example.mllib,
                "output": {"measure": list(example.measure)},
            },
            "data": [str(data.train), str(data.test)],
        },
    )
    head: Json = answer["head"]
    return head


def task_of(client: Client, number: int) -> Json:
    """What the API tells of a task."""
    return client.call("GET", f"/tasks/{number}")


def follow(client: Client, number: int, shown: str) -> Json:
    """Poll a task to its end, showing its progress on a terminal."""
    deadline = time.monotonic() + _TRAINING_S
    while True:
        task = task_of(client, number)
        _progress(f"  {shown}: {task['state']} {task['percent'] or 0:.0f} %")
        if task["state"] in {"finished", "failed", "cancelled"}:
            _progress("")
            return task
        if time.monotonic() > deadline:
            raise DemoError(f"task {number} ({shown}) did not end within {_TRAINING_S:g} s")
        time.sleep(_POLL_S)


def _progress(line: str) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\x1b[K{line}")
        sys.stdout.flush()


def report_of(client: Client, example: Example, job: int) -> Json:
    """The measures of a finished job, on the rows that were kept from the training."""
    answer = client.call("GET", "/train", query={"service": example.name, "job": job})
    if answer["head"]["status"] != "finished":
        raise DemoError(f"the training of {example.shown} did not finish: {json.dumps(answer)}")
    measure: Json = answer["body"]["measure"]
    return measure


def predict(client: Client, example: Example, data: Path) -> list[float]:
    """The answer for every row of a file: the most probable class, or the number."""
    answer = client.call(
        "POST",
        "/predict",
        {
            "service": example.name,
            "parameters": {"input": {"connector": "csv", "separator": ","}, "output": {"best": 1}},
            "data": [str(data)],
        },
    )
    rows: list[Json] = answer["body"]["predictions"]
    return [float(row["vector"][0]["val"] if "vector" in row else row["classes"][0]["cat"]) for row in rows]


def show_training(client: Client, example: Example, root: Path) -> list[str]:
    """Train, read the report, predict the rows that were kept back; one line of the table."""
    data = split(example, root)
    create(client, example, root)
    began = time.monotonic()
    head = start(client, example, data)
    task = follow(client, head["task_id"], example.shown)
    took_s = time.monotonic() - began
    if task["state"] != "finished":
        raise DemoError(f"the training of {example.shown} ended as {task['state']}: {json.dumps(task['failure'])}")
    measure = report_of(client, example, head["job"])
    began = time.monotonic()
    predicted = predict(client, example, data.unlabelled)
    predict_ms = (time.monotonic() - began) * 1000
    if len(predicted) != len(data.truth):
        raise DemoError(f"{len(data.truth)} rows were to be predicted, {len(predicted)} were")
    return [
        example.shown,
        ", ".join(f"{name} {measure[name]:.4g}" for name in example.measure),
        f"{took_s:.1f} s",
        agreement(example, data.truth, predicted),
        f"{predict_ms:.0f} ms",
    ]


def agreement(example: Example, truth: list[float], predicted: list[float]) -> str:
    """How well predictions fit: right answers, or the mean error beside that of always guessing the mean."""
    if "nclasses" in example.mllib:
        right = sum(found == true for found, true in zip(predicted, truth, strict=True))
        return f"{right} of {len(truth)} right"
    error = sum(abs(found - true) for found, true in zip(predicted, truth, strict=True)) / len(truth)
    middle = sum(truth) / len(truth)
    guess = sum(abs(middle - true) for true in truth) / len(truth)
    return f"off by {error:.1f} (the mean: {guess:.1f})"


def show_cancel(client: Client, root: Path) -> str:
    """Start a training of a million rounds, cancel it once it runs, and see that it stops."""
    create(client, LONG, root)
    head = start(client, LONG, split(LONG, root))
    number = head["task_id"]
    deadline = time.monotonic() + _TRAINING_S
    while not ((task := task_of(client, number))["progress"] or {}).get("iteration"):
        if task["state"] not in {"queued", "running"} or time.monotonic() > deadline:
            raise DemoError(f"the long training is {task['state']} and has not begun to learn: {task['failure']}")
        time.sleep(_POLL_S)
    began = time.monotonic()
    client.call("DELETE", f"/tasks/{number}")
    task = follow(client, number, LONG.shown)
    if task["state"] != "cancelled":
        raise DemoError(f"the cancelled training ended as {task['state']}")
    return f"{LONG.shown}: cancelled, and stopped after {time.monotonic() - began:.1f} s"


def show_delete(client: Client) -> str:
    """Delete the service of the long training with its files, and see that it is gone."""
    client.call("DELETE", f"/services/{LONG.name}", query={"clear": "full"})
    if client.status("GET", f"/services/{LONG.name}") != 404:
        raise DemoError(f"{LONG.name} was deleted and still answers")
    return f"{LONG.name}: deleted, and unknown since"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def demo_settings(environment: dict[str, str], ports: tuple[int, int]) -> Settings:
    """Settings of the environment; where it sets none, an emptied folder and the given ports of API and Flower.

    Raises DemoError when another demonstration runs in that folder.
    """
    settings = Settings.from_env({"MODELYARD_HOME": str(ROOT / ".modelyard" / "demo"), **environment})
    if not environment.get("MODELYARD_HOME"):
        if not socket_fits(settings):
            home = Path(tempfile.mkdtemp(prefix="modelyard-demo-"))
            settings = Settings.from_env({**environment, "MODELYARD_HOME": str(home)})
        elif is_held(settings.home):
            raise DemoError(f"another demonstration runs on {settings.home}; wait for its end")
        else:
            shutil.rmtree(settings.home, ignore_errors=True)
    if not environment.get("MODELYARD_PORT"):
        settings = replace(settings, port=ports[0])
    if not environment.get("MODELYARD_FLOWER_PORT"):
        settings = replace(settings, flower_port=ports[1])
    return settings


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def run(settings: Settings, stack: Stack) -> None:
    """Everything there is to show, on a stack that is not started yet."""
    began = time.monotonic()
    print(f"Starting Modelyard in {settings.home}", flush=True)
    stack.start()
    stack.wait_ready(_READY_S)
    print(
        f"Ready after {time.monotonic() - began:.1f} s: {', '.join(each.name for each in stack.services)}", flush=True
    )
    client = Client(local_url(settings))
    root = settings.data_roots[0]
    rows = [["trained on 4 of 5 rows", "measured on the others", "took", "predicted the others", "answered in"]]
    rows += [show_training(client, example, root) for example in EXAMPLES]
    notes = [show_cancel(client, root), show_delete(client)]
    print(f"\n{_table(rows)}\n")
    for note in notes:
        print(f"  {note}")
    where = [
        ["API", local_url(settings)],
        ["Flower", f"http://127.0.0.1:{settings.flower_port}"],
        ["its login", "MODELYARD_FLOWER_LOGIN" if settings.flower_login else str(settings.flower_login_file)],
        ["models", str(root / "models")],
        ["artifacts", settings.objects_url],
        ["logs", str(settings.home / "logs")],
    ]
    print(f"\n{_table(where)}\n\n  {time.monotonic() - began:.0f} s in all", flush=True)


def main() -> int:
    """Entry of the program: 0, or 1 with the reason."""
    stay = "--stay" in sys.argv[1:]
    try:
        settings = demo_settings(dict(os.environ), _free_ports())
        stack = Stack(settings)
    except (BadSetting, DemoError, StackError) as error:
        print(f"The demonstration cannot start: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        run(settings, stack)
        if stay:
            print("  It stays up until Ctrl-C.", flush=True)
            signal.pause()
        else:
            print(f"  Stopping. To go on with it: MODELYARD_HOME={settings.home} make up", flush=True)
    except (DemoError, StackError) as error:
        print(f"\nThe demonstration failed: {error}\nLogs: {settings.home / 'logs'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0 if stay else 130
    finally:
        # A second Ctrl-C must not cut the stopping short: it kills what is left.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stack.ask_stop())
        stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
