"""One training from its specification to its files: read, train, save, with an event for all that happens."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml import measures as measuring
from ml import registry, serving
from ml.connectors import csv as csv_connector
from ml.connectors import source
from ml.errors import BadInput
from ml.options import Warning, load_training
from ml.options.loading import as_json
from ml.options.requests import TrainingOptions
from ml.training.checkpoints import Checkpoints, Progress, read_progress, sync_folder
from ml.training.hooks import Stop
from ml.training.loop import Plan, train

Emit = Callable[[dict[str, Any]], None]

#: Shortest time between two progress events.
PROGRESS_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Specification:
    """What to train; see docs of the protocol in `ml/training/run.py`.

    scratch : folder that the training may write to; `model` and `checkpoints` appear in it.
    resume : folder of a checkpoint to go on from.
    """

    task: str
    backend: str
    connector: str
    parameters: dict[str, Any]
    data: tuple[source.Source, ...]
    scratch: Path
    resume: Path | None
    threads: int
    device: str
    checkpoint_s: float

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Specification:
        """The specification that the supervisor sent. Raises KeyError, TypeError or ValueError for another thing."""
        return cls(
            task=str(given["task"]),
            backend=given["backend"],
            connector=given["connector"],
            parameters=given["parameters"],
            data=tuple(source.from_json(each) for each in given["data"]),
            scratch=Path(given["scratch"]),
            resume=Path(given["resume"]) if given.get("resume") else None,
            threads=max(1, int(given["threads"])),
            device=given.get("device") or "cpu",
            checkpoint_s=float(given["checkpoint_s"]),
        )


class Reporter:
    """The hooks of the loop, turned into events."""

    def __init__(
        self, emit: Emit, plan: Plan, progress: Progress, stop: Callable[[], Stop | None], clock: Callable[[], float]
    ) -> None:
        self._emit = emit
        self._plan = plan
        self._progress = progress
        self._clock = clock
        self._began = clock() - progress.elapsed_s
        self._start = (clock(), progress.done)
        self._next_at = 0.0
        self.should_stop = stop

    def on_step(self, done: int) -> None:
        """Tell where the training is, at most five times a second, and always after the first and last iteration."""
        now = self._clock()
        if now >= self._next_at or done == self._plan.iterations:
            self._next_at = now + PROGRESS_INTERVAL_S
            self._emit(
                {
                    "event": "progress",
                    "iteration": done - 1,
                    "iterations": self._plan.iterations,
                    "measure": {**self._progress.measures, **self._times(now, done)},
                }
            )

    def on_measures(self, iteration: int, measures: dict[str, Any]) -> None:
        """Hand on every test."""
        hist = {**measuring.flat(measures), "iteration": iteration}
        self._emit({"event": "measures", "iteration": iteration, "hist": hist})

    def on_checkpoint(self, iteration: int, folder: Path, seconds: float) -> None:
        """Tell that a checkpoint is complete."""
        self._emit({"event": "checkpoint", "iteration": iteration, "folder": str(folder), "seconds": seconds})

    def _times(self, now: float, done: int) -> dict[str, Any]:
        began, before = self._start
        each_s = (now - began) / max(1, done - before)
        remain_s = each_s * (self._plan.iterations - done)
        return {
            "iteration": done - 1,
            "elapsed_time_ms": (now - self._began) * 1e3,
            "iter_time": each_s * 1e3,
            "remain_time": remain_s,
            "remain_time_str": as_days(remain_s),
        }


def as_days(seconds: float) -> str:
    """A duration as DeepDetect writes it, e.g. "0d:0h:1m:3s"."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day}d:{hour}h:{minute}m:{second}s"


def run(
    specification: Specification,
    emit: Emit,
    stop: Callable[[], Stop | None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train as specified; the last event is "finished", "cancelled" or "paused". Raises MlError."""
    _run(specification, emit, stop, clock, _Phases(emit, clock))


class _Phases:
    """Which part of the work is going on, and how long each took."""

    def __init__(self, emit: Emit, clock: Callable[[], float]) -> None:
        self._emit = emit
        self._clock = clock
        self._began = clock()
        self.name = "starting"
        self.seconds: dict[str, float] = {}

    def enter(self, name: str) -> None:
        self.leave()
        self.name = name
        self._emit({"event": "phase", "phase": name})

    def leave(self) -> None:
        now = self._clock()
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + now - self._began
        self._began = now


def _run(
    specification: Specification,
    emit: Emit,
    stop: Callable[[], Stop | None],
    clock: Callable[[], float],
    phases: _Phases,
) -> None:
    phases.enter("reading")
    loaded = load_training(specification.backend, specification.connector, specification.parameters)
    options = loaded.value
    backend = registry.find(specification.backend)
    backend.warm()
    progress = Progress() if specification.resume is None else read_progress(specification.resume)
    seed = options.input.seed if options.input.seed >= 0 else secrets.randbits(31)
    if specification.resume is None:
        progress.seed, progress.threads, progress.device = seed, specification.threads, specification.device
    # The order of additions, and so the last digits, depend on the number of threads: a resumed training keeps it.
    threads = progress.threads
    options = replace(options, input=replace(options.input, seed=progress.seed))
    if len(specification.data) - 1 > backend.INFO.test_sets_max:
        raise BadInput(
            f"data names {len(specification.data) - 1} test sets; {backend.INFO.name} takes "
            f"{backend.INFO.test_sets_max} besides the training set"
        )
    target = backend.target(options.mllib)
    data = csv_connector.read_training(specification.data, options.input, target, threads=threads)
    is_regression = not target.classes
    plan = Plan(options.mllib.iterations, options.mllib.test_interval, options.output.measure, is_regression)
    resumed = _resume_warnings(specification, progress)
    for warning in loaded.warnings + data.warnings + resumed + _measure_warnings(options, target, bool(data.tests)):
        emit({"event": "warning", **warning.as_json()})
    if specification.resume is not None:
        emit({"event": "history", "hist": progress.history.as_json()})
    if stop():
        # Nothing was trained here: a pause keeps what there was before, a cancel leaves no model behind.
        done = progress.done - 1
        if stop() == "pause":
            emit({"event": "paused", "iteration": done, "folder": None})
        else:
            emit({"event": "cancelled", "iteration": done, "model_folder": None, "description": None, "report": None})
        return
    trainer, remarks = backend.start(
        options, data, threads=threads, device=specification.device, resume=specification.resume
    )
    for parameter, message in remarks:
        emit({"event": "warning", "parameter": parameter, "message": message})

    phases.enter("training")
    checkpoints = Checkpoints(specification.scratch / "checkpoints", specification.checkpoint_s, clock)
    reporter = Reporter(emit, plan, progress, stop, clock)
    outcome = train(trainer, data.tests, plan, progress, checkpoints, reporter, clock)
    if outcome == "pause":
        # What was told of already belongs to the listener: writing it again would pull it from under its hands.
        is_new = trainer.done not in (0, checkpoints.saved_done)
        folder = str(checkpoints.save(trainer, progress)[0]) if is_new else None
        emit({"event": "paused", "iteration": trainer.done - 1, "folder": folder})
        return

    phases.enter("saving")
    model_folder = specification.scratch / "model"
    model_folder.mkdir(parents=True, exist_ok=True)
    for leftover in model_folder.iterdir():
        leftover.unlink()
    file = trainer.save_model(model_folder, plan.iterations)
    description = {
        "backend": backend.INFO.name,
        "connector": options.connector,
        "mltype": "regression" if is_regression else "classification",
        "is_regression": is_regression,
        "nclasses": target.classes,
        "ntargets": target.targets,
        "labels": data.fitted.words,
        "file": file,
        "rounds": trainer.done,
        "csv": data.fitted.as_json(),
        "parameters": {name: as_json(getattr(options, name)) for name in ("input", "mllib", "output")},
    }
    serving.write_repository_files(model_folder, description)
    sync_folder(model_folder)
    phases.leave()
    tests = [
        {**progress.measures, "test_id": position, "test_name": test.name}
        for position, test in enumerate(data.tests)
        if progress.measures
    ]
    final = {**(tests[0] if tests else {}), "iteration": trainer.done - 1}
    emit(
        {
            "event": "finished" if outcome == "finished" else "cancelled",
            "iteration": trainer.done - 1,
            "model_folder": str(model_folder),
            "description": description,
            "report": {
                "measure": final,
                "measures": tests,
                "measure_hist": progress.history.as_json(),
                "best": None if progress.best is None else progress.best.__dict__,
                "parameters": {"input": data.report},
                "mltype": description["mltype"],
            },
            "seconds": {name: phases.seconds.get(name, 0.0) for name in ("reading", "training", "saving")},
            "peak_bytes": peak_bytes(),
        }
    )


def _resume_warnings(specification: Specification, progress: Progress) -> list[Warning]:
    """What to say when a checkpoint goes on with another kind of device than it was made with."""
    before, now = progress.device.split(":")[0], specification.device.split(":")[0]
    if before == now:
        return []
    text = f"the training began on {before} and goes on on {now}: its numbers may differ from an uninterrupted one"
    return [Warning("parameters.mllib.gpu", text)]


def _measure_warnings(options: TrainingOptions, target: csv_connector.Target, has_tests: bool) -> list[Warning]:
    name = "parameters.output.measure"
    if options.output.measure and not has_tests:
        return [Warning(name, "no measures were computed: there is neither a test set nor parameters.input.test_split")]
    refused = measuring.unknown(options.output.measure, is_regression=not target.classes, classes=target.classes)
    return [Warning(name, text) for text in refused.values()]


def peak_bytes() -> int:
    """Most memory this process has held so far; 0 where the system does not tell."""
    # Not getrusage: its figure survives exec and would count the process that started this one.
    try:
        status = Path(f"/proc/{os.getpid()}/status").read_text()
    except OSError:
        return 0
    line = next((each for each in status.splitlines() if each.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def encoded(event: Mapping[str, Any]) -> bytes:
    """An event as one JSON line. Numbers that JSON lacks (NaN, infinities) become null."""
    try:
        text = json.dumps(event, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(event), allow_nan=False)
    return text.encode() + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
