"""Networks that were killed and went on from a checkpoint are those that were never interrupted, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.options.solver import POLICIES, SOLVERS
from tests.integration import forked

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.timeout(400)]

Json = dict[str, Any]
ITERATIONS = 600

SCHEDULES: dict[str, Json] = {
    "fixed": {},
    "step": {"stepsize": 200, "gamma": 0.5},
    "multistep": {"stepvalue": [100, 500], "gamma": 0.5},
    "exp": {"gamma": 0.999},
    "inv": {"gamma": 0.001, "power": 0.75},
    "poly": {"power": 2.0},
    "sigmoid": {"gamma": -0.01, "stepsize": 300},
    "sgdr": {"ncycles": 3, "min_lr": 1e-5},
}

#: Each solver with one schedule after the other, and each schedule with ADAM; then what else a step may do.
CASES: dict[str, tuple[str, Json]] = {
    **{
        f"{solver} {policy}": ("torch", {"solver": {"solver_type": solver, "lr_policy": policy, **SCHEDULES[policy]}})
        for solver, policy in [
            *((solver, POLICIES[place % len(POLICIES)]) for place, solver in enumerate(SOLVERS)),
            *(("ADAM", policy) for policy in POLICIES),
        ]
    },
    "dropout, gathered gradients, warm-up": (
        "torch",
        {"dropout": 0.3, "solver": {"solver_type": "SGD", "iter_size": 3, "warmup_iter": 300, "warmup_lr": 1e-4}},
    ),
    "lr_dropout, snapshots": ("caffe", {"solver": {"solver_type": "ADAM", "lr_dropout": 0.5, "snapshot": 250}}),
    "batch normalisation, restarted decay": (
        "caffe",
        {"bn": True, "solver": {"solver_type": "ADAMW", "weight_decay": 0.01, "decoupled_wd_periods": 3}},
    ),
    "mixed precision": ("torch", {"mixed_precision": "bf16", "solver": {"solver_type": "RANGER_PLUS"}}),
}


@pytest.fixture(scope="module")
def context() -> Iterator[ForkServerContext]:
    """Where processes come from: one process that has imported torch, with a single thread."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["torch", "ml.training.session", "tests.integration.forked"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 240 rows."""
    numbers = np.random.default_rng(5)
    inputs = numbers.normal(size=(240, 5))
    labels = (inputs[:, :3] + 0.3 * numbers.normal(size=(240, 3))).argmax(axis=1)
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows = (",".join([*map(repr, map(float, row)), str(label)]) for row, label in zip(inputs, labels, strict=True))
    path.write_text("\n".join(["a,b,c,d,e,y", *rows]) + "\n")
    return path


def specification(library: str, mllib: Json, data: Path, scratch: Path, **changes: Any) -> Json:
    scratch.mkdir()
    solver = {"iterations": ITERATIONS, "test_interval": 100, "base_lr": 0.01, **mllib.get("solver", {})}
    return {
        "task": "train-1-a1",
        "backend": library,
        "connector": "csv",
        "parameters": {
            "input": {"label": "y", "test_split": 0.25, "shuffle": True, "seed": 4},
            "mllib": {
                "template": "mlp",
                "layers": [12],
                "nclasses": 3,
                "net": {"batch_size": 16, "test_batch_size": 64},
                **mllib,
                "solver": solver,
            },
            "output": {"measure": ["acc", "f1", "mcll"]},
        },
        "data": [{"path": str(data), "name": "rows.csv"}],
        "scratch": str(scratch),
        "resume": None,
        "threads": 1,
        "device": "cpu",
        "checkpoint_s": 0.0,
        **changes,
    }


class Training:
    """A training in a process of its own."""

    def __init__(self, context: ForkServerContext, specification: Json) -> None:
        self._events = Path(specification["scratch"]) / "events.jsonl"
        self._events.touch()
        self.process = context.Process(target=forked.train, args=(specification, str(self._events)))
        self.process.start()

    def events(self) -> Iterator[Json]:
        """What it has told so far."""
        for line in self._events.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)

    def checkpoints(self) -> list[Json]:
        return [event for event in self.events() if event["event"] == "checkpoint"]

    def end(self) -> Json:
        """The last event, once the process has ended by itself."""
        self.process.join(200)
        assert self.process.exitcode == 0
        return list(self.events())[-1]

    def kill_after(self, checkpoints: int, pause_s: float) -> Path:
        """Kill it some time after so many checkpoints; returns the folder of the last one."""
        until = time.monotonic() + 150
        while len(self.checkpoints()) < checkpoints:
            assert self.process.is_alive(), list(self.events())[-1]
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(pause_s)
        self.process.kill()
        self.process.join(60)
        assert self.process.exitcode == -9, "it ended before it was killed"
        return Path(self.checkpoints()[-1]["folder"])


def tensors(end: Json) -> Json:
    """Every number of every file that torch wrote into the repository, by file."""
    folder = Path(end["model_folder"])
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".npt", ".pt", ".solverstate"):
            found[path.name] = flat(torch.load(path, weights_only=True))
        elif path.suffix == ".caffemodel":
            found[path.name] = path.read_bytes()
    return found


def flat(value: Any, name: str = "") -> Json:
    """The leaves of nested containers by their path, tensors as bytes."""
    if isinstance(value, dict):
        return {path: leaf for key in value for path, leaf in flat(value[key], f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {path: leaf for at, each in enumerate(value) for path, leaf in flat(each, f"{name}/{at}").items()}
    return {name: value.numpy().tobytes() if isinstance(value, torch.Tensor) else value}


def series(end: Json) -> Json:
    """Histories but those that tell the time."""
    hist = end["report"]["measure_hist"]
    return {name: values for name, values in hist.items() if name != "elapsed_time_ms_hist"}


@pytest.mark.parametrize("case", list(CASES))
def test_a_network_that_was_killed_goes_on_as_if_nothing_had_happened(
    context: ForkServerContext, data: Path, tmp_path: Path, case: str
) -> None:
    library, mllib = CASES[case]
    chance = random.Random(case)  # the same again when it is repeated
    killed = Training(context, specification(library, mllib, data, tmp_path / "killed"))
    whole = Training(context, specification(library, mllib, data, tmp_path / "whole", checkpoint_s=1e9))
    checkpoint = killed.kill_after(chance.randint(2, 5), chance.uniform(0, 0.05))
    resumed = Training(context, specification(library, mllib, data, tmp_path / "resumed", resume=str(checkpoint)))
    wanted, found = whole.end(), resumed.end()
    assert wanted["event"] == found["event"] == "finished"
    assert tensors(found) == tensors(wanted)
    assert len(tensors(wanted)) >= 2
    assert series(found) == series(wanted)
    assert found["report"]["best"] == wanted["report"]["best"]
