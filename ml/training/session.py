"""One training from its specification to its files: read, train, save, with an event for all that happens."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ml import measures as measuring
from ml import registry, serving
from ml.backends.base import Backend, Previous, Trainer
from ml.connectors import source
from ml.errors import BadInput
from ml.measures import Best
from ml.options import Warning, load_training
from ml.options.loading import as_json
from ml.options.requests import TrainingOptions
from ml.tables import Target, TrainingData
from ml.telling import told
from ml.training.checkpoints import (
    PROGRESS_FILE,
    Checkpoints,
    Progress,
    read_progress,
    sync_folder,
    write_progress,
)
from ml.training.history import Steps
from ml.training.hooks import Stop
from ml.training.loop import Plan, train

Emit = Callable[[dict[str, Any]], None]

#: Shortest time between two progress events, and between two views of the values of every iteration.
PROGRESS_INTERVAL_S = 0.2
STEPS_INTERVAL_S = 2.0
#: Most points of such a view; the report at the end has more.
STEPS_POINTS = 1_000
#: Measures that grow with the rows, or with the square of the classes: they are in the report only.
_LONG = frozenset({"raw", "cmfull"})
#: What a connector learned that decides about the inputs and targets of a model, in words.
_FITTED = {
    "features": "the columns",
    "unnamed": "the columns",
    "ids": "the feature ids",
    "categories": "the categories",
    "label": "the label",
    "label_offset": "the label offset",
    "words": "the class names",
    "is_signed": "the classes",
    "scale_type": "the scaling",
    "low": "the bounds of the scaling",
    "high": "the bounds of the scaling",
}


@dataclass(frozen=True)
class Specification:
    """What to train; see docs of the protocol in `ml/training/run.py`.

    scratch : folder that the training may write to; `model` and `checkpoints` appear in it.
    resume : folder of a checkpoint to go on from.
    previous : what the repository holds already.
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
    previous: Previous = field(default_factory=Previous)

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
            previous=_previous(given.get("previous") or {}),
        )


def _previous(given: Mapping[str, Any]) -> Previous:
    folder = given.get("folder")
    return Previous(tuple(given.get("files", ())), Path(folder) if folder else None, given.get("description"))


class Reporter:
    """The hooks of the loop, turned into events."""

    def __init__(
        self,
        emit: Emit,
        plan: Plan,
        progress: Progress,
        running: Callable[[], dict[str, float]],
        names: Sequence[str],
        stop: Callable[[], Stop | None],
        clock: Callable[[], float],
    ) -> None:
        self._emit = emit
        self._plan = plan
        self._progress = progress
        self._clock = clock
        self._began = clock() - progress.elapsed_s
        self._start = (clock(), progress.done)
        self._next_at = 0.0
        self._steps_at = 0.0
        self._running = running
        self._names = {str(position): name for position, name in enumerate(names)} if len(names) > 1 else {}
        self.should_stop = stop

    def on_step(self, done: int) -> None:
        """Tell where the training is, at most five times a second, and always after the first and last iteration."""
        now = self._clock()
        is_last = done >= self._plan.iterations
        if now >= self._next_at or is_last:
            self._next_at = now + PROGRESS_INTERVAL_S
            self._emit(
                {
                    "event": "progress",
                    "iteration": self._plan.number(done),
                    "done": done,
                    "iterations": self._plan.iterations,
                    "measure": {**self._measures(), **self._running(), **self._times(now, done)},
                }
            )
        if self._progress.steps.count and (now >= self._steps_at or is_last):
            self._steps_at = now + STEPS_INTERVAL_S
            self._emit({"event": "steps", **self._progress.steps.sampled(STEPS_POINTS)})

    def _measures(self) -> dict[str, Any]:
        """What the last test found, short enough to be told five times a second."""
        found = {name: value for name, value in self._progress.measures.items() if name not in _LONG}
        return {**found, "test_names": self._names} if self._names else found

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
        remain_s = each_s * max(0, self._plan.iterations - done)
        return {
            "iteration": self._plan.number(done),
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
    progress = _progress(specification, options)
    # The order of additions, and so the last digits, depend on the number of threads: a resumed training keeps it.
    threads = progress.threads
    options = replace(options, input=replace(options.input, seed=progress.seed))
    tests_max = backend.INFO.test_sets_max
    if tests_max is not None and len(specification.data) - 1 > tests_max:
        raise BadInput(
            f"data names {len(specification.data) - 1} test sets; {backend.INFO.name} takes "
            f"{tests_max} besides the training set"
        )
    target = options.mllib.target
    tables = specification.scratch / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    connector = registry.connector(options.connector)
    data = connector.read_training(specification.data, options.input, target, threads=threads, scratch=tables)
    told.info("read %s", _read_of(data))
    resumed = _resume_warnings(specification, progress) + _other_inputs(specification, options, data)
    for warning in loaded.warnings + data.warnings + resumed + _measure_warnings(options, target, bool(data.tests)):
        emit({"event": "warning", **warning.as_json()})
    if len(progress.history) or progress.steps.count:
        emit({"event": "history", "hist": progress.history.as_json()})
    if stop():
        # Nothing was trained here: a pause keeps what there was before.
        done = progress.done - 1 + backend.INFO.first_iteration
        if stop() == "pause":
            emit({"event": "paused", "iteration": done, "folder": None})
        else:
            _leave_no_model(emit, done)
        return
    work = specification.scratch / "work"
    work.mkdir(parents=True, exist_ok=True)
    trainer, remarks = backend.start(
        options,
        data,
        threads=threads,
        device=specification.device,
        seed=progress.seed,
        scratch=work,
        resume=specification.resume,
        previous=specification.previous,
    )
    for parameter, message in remarks:
        emit({"event": "warning", "parameter": parameter, "message": message})

    phases.enter("training")
    begins = "resumes after" if progress.done else "begins, after"
    told.info(
        "training %s %d of %d iterations, on %s with seed %d",
        begins,
        progress.done,
        options.mllib.iterations,
        specification.device,
        progress.seed,
    )
    plan = Plan(
        options.mllib.iterations,
        options.mllib.test_interval,
        options.output.measure,
        target,
        labels=data.fitted.words if backend.INFO.keeps_best else None,  # xgboost names classes by their numbers
        test_initialization=options.mllib.test_initialization,
        first_iteration=backend.INFO.first_iteration,
    )
    checkpoints = Checkpoints(specification.scratch / "checkpoints", specification.checkpoint_s, clock)
    names = [test.name for test in data.tests]
    reporter = Reporter(emit, plan, progress, trainer.running, names, stop, clock)
    outcome = train(trainer, data.tests, plan, progress, checkpoints, reporter, clock)
    if outcome == "pause":
        # What was told of already belongs to the listener: writing it again would pull it from under its hands.
        is_new = trainer.done not in (0, checkpoints.saved_done)
        folder = str(checkpoints.save(trainer, progress)[0]) if is_new else None
        emit({"event": "paused", "iteration": plan.number(trainer.done), "folder": folder})
        return

    if outcome == "cancel" and trainer.done == 0:
        # A model that learned nothing would take the place of the one before, and its state ask for a resume.
        _leave_no_model(emit, plan.number(0))
        return

    phases.enter("saving")
    told.info("trained for %d of %d iterations; saving the model", trainer.done, plan.iterations)
    model_folder = specification.scratch / "model"
    description = _save(model_folder, backend, options, data, trainer, plan, progress)
    phases.leave()
    emit(
        {
            "event": "finished" if outcome == "finished" else "cancelled",
            "iteration": plan.number(trainer.done),
            "model_folder": str(model_folder),
            "description": description,
            "report": _report(data, trainer, plan, progress),
            "seconds": {name: phases.seconds.get(name, 0.0) for name in ("reading", "training", "saving")},
            "peak_bytes": peak_bytes(),
        }
    )


def _read_of(data: TrainingData) -> str:
    """What was read, in words."""
    tests = ", ".join(str(len(test)) for test in data.tests)
    return f"{len(data.train)} rows of {data.train.width} features to train on" + (
        f", and to test on {tests} rows" if tests else ""
    )


def _leave_no_model(emit: Emit, iteration: int) -> None:
    """Tell that the training was cancelled before it trained anything."""
    emit({"event": "cancelled", "iteration": iteration, "model_folder": None, "description": None, "report": None})


def _progress(specification: Specification, options: TrainingOptions) -> Progress:
    """Where to go on: at a recovery checkpoint, at the end of the training to be resumed, or at the beginning."""
    if specification.resume is not None:
        return read_progress(specification.resume)
    previous = specification.previous.folder
    progress = Progress()
    if options.mllib.resume and previous is not None and (previous / PROGRESS_FILE).exists():
        progress = read_progress(previous)
    given = options.input.seed
    if given >= 0 or progress.done == 0:
        progress.seed = given if given >= 0 else secrets.randbits(31)
    progress.threads, progress.device = specification.threads, specification.device
    return progress


def _save(
    folder: Path,
    backend: Backend,
    options: TrainingOptions,
    data: TrainingData,
    trainer: Trainer,
    plan: Plan,
    progress: Progress,
) -> dict[str, Any]:
    """Write the files of the repository; returns the description of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.iterdir():
        leftover.unlink()
    file = trainer.save_model(folder, plan.iterations)
    description = {
        "backend": backend.INFO.name,
        "connector": options.connector,
        "mltype": plan.target.mltype,
        "target": plan.target.as_json(),
        "labels": data.fitted.words,
        "file": file,
        "rounds": trainer.done,
        "fitted": data.fitted.as_json(),
        "parameters": {name: as_json(getattr(options, name)) for name in ("input", "mllib", "output")},
        **trainer.facts(),
    }
    serving.write_repository_files(folder, description)
    data.fitted.write_files(folder)
    if backend.INFO.keeps_best:
        write_best(folder, progress, [test.name for test in data.tests])
    # A later training with `resume` goes on from here.
    write_progress(folder, progress)
    sync_folder(folder)
    return description


def write_best(folder: Path, progress: Progress, names: Sequence[str]) -> None:
    """Write best_model.txt, and best_model_test_<i>.txt of each test set when there are several."""

    def write(name: str, best: Best | None, *more: str) -> None:
        if best is not None:
            lines = [f"iteration:{best.iteration}", f"{best.name}:{best.value!r}", *more]
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    write("best_model.txt", progress.best)
    for position, best in enumerate(progress.bests):
        write(f"best_model_test_{position}.txt", best, f"test_name: {names[position]}")


def _report(data: TrainingData, trainer: Trainer, plan: Plan, progress: Progress) -> dict[str, Any]:
    tests = [
        {**measures, "test_id": position, "test_name": test.name}
        for position, (test, measures) in enumerate(zip(data.tests, progress.each, strict=False))
        if measures
    ]
    final = {**(tests[0] if tests else {}), **progress.measures, **trainer.running()}
    steps = progress.steps.sampled(Steps.POINTS_MAX)
    return {
        "measure": {**final, "iteration": plan.number(trainer.done)},
        "measures": tests,
        "measure_hist": {**steps["series"], **progress.history.as_json()},
        "stride": steps["stride"],
        "best": None if progress.best is None else progress.best.__dict__,
        "parameters": {"input": data.report},
        "mltype": plan.target.mltype,
    }


def _resume_warnings(specification: Specification, progress: Progress) -> list[Warning]:
    """What to say when a checkpoint goes on with another kind of device than it was made with."""
    before, now = progress.device.split(":")[0], specification.device.split(":")[0]
    if before == now:
        return []
    text = f"the training began on {before} and goes on on {now}: its numbers may differ from an uninterrupted one"
    return [Warning("parameters.mllib.gpu", text)]


def _other_inputs(specification: Specification, options: TrainingOptions, data: TrainingData) -> list[Warning]:
    """What to say when the training that is resumed learned from inputs that were made otherwise."""
    kept: Any = (specification.previous.description or {}).get("fitted")
    if specification.resume is not None or not options.mllib.resume or not isinstance(kept, dict):
        return []
    now = json.loads(encoded(data.fitted.as_json()))
    changed = {words for name, words in _FITTED.items() if name in now and now[name] != kept.get(name)}
    if not changed:
        return []
    text = (
        f"the training that is resumed had other inputs: {', '.join(sorted(changed))} changed, so what it learned may "
        "not fit; give the data and the parameters.input of that training"
    )
    return [Warning("parameters.mllib.resume", text)]


def _measure_warnings(options: TrainingOptions, target: Target, has_tests: bool) -> list[Warning]:
    name = "parameters.output.measure"
    if options.output.measure and not has_tests:
        return [Warning(name, "no measures were computed: there is neither a test set nor parameters.input.test_split")]
    return [Warning(name, text) for text in measuring.unknown(options.output.measure, target).values()]


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
