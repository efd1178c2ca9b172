"""Celery's functions, all thin: what they do is in plain functions that tests call directly."""

from __future__ import annotations

import logging
import os
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from celery import signals
from celery.exceptions import Ignore

from ml.options.catalog import engines
from ml.registry import find
from storage.errors import LiveUnavailable, RecordsUnavailable
from workers.app import ONCE, STOP_MARKER, app, settings
from workers.bulk import Prediction
from workers.child import Standby
from workers.clearing import clear_repository
from workers.describing import describe
from workers.draining import Draining
from workers.figures import process_name
from workers.lifecycle import Doing, run_task
from workers.messages import message
from workers.origins import import_model
from workers.parts import Parts
from workers.predicting import Predictor
from workers.queue import DRAIN, SWEEP, TASK_NAMES
from workers.scratch import Scratch
from workers.sweep import Sweep
from workers.training import Training
from workers.uploading import complete

_log = logging.getLogger(__name__)
QUEUES_VARIABLE = "MODELYARD_WORKER_QUEUES"
_LINGER_S = 30.0
_making = threading.Lock()
# Of the threads of a control worker, see `cli.services.worker_argv`.
_IMPORTS, _CLEARINGS = threading.BoundedSemaphore(2), threading.BoundedSemaphore(1)


def _is_stopping() -> bool:
    """Whether this worker shuts down, or its main process is gone already."""
    marker = Path(os.environ[STOP_MARKER])
    # It is called after the main process, which is this one, or the one above in a pool of processes. Who started that
    # may leave, as the shell that a worker was started in by hand.
    return int(marker.name) not in (os.getpid(), os.getppid()) or marker.exists()


class Replaced(SystemExit):
    """Ends this pool process, in good order: the pool takes the end of the task first and starts another process.

    On its way to the main process it becomes what Celery has nothing to say about: an end by SystemExit is told as a
    lost worker there.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return Ignore, ()


@cache
def _parts() -> Parts:
    return Parts.make(settings)


@cache
def _training() -> Training:
    scratch = Scratch(settings.scratch)
    warm = [engine for engine in engines() if find_spec(engine) is not None]
    return Training(_parts(), scratch, Standby(scratch.folder, settings.threads, warm), _is_stopping)


@cache
def _prediction() -> Prediction:
    return Prediction(_parts(), Scratch(settings.scratch), _is_stopping)


@cache
def _draining() -> Draining:
    lanes = [queue for queue in os.environ.get(QUEUES_VARIABLE, "").split(",") if queue.startswith("predict.")]
    # A worker of several lanes has one turn after the other; that of a single lane may stay in it.
    is_alone = len(lanes) < 2
    return Draining(
        _parts(),
        Predictor(_parts()),
        _is_stopping,
        linger_s=_LINGER_S if is_alone else 0.0,
        turn_s=None if is_alone else 1.0,
    )


@cache
def _tell_figures() -> None:
    """Tell what this process counts, from the first call on."""
    _parts().live.figures.keep_telling(process_name(), _draining().figures.told)


@cache
def _sweep() -> Sweep:
    return Sweep(_parts(), _is_lying)


@signals.worker_process_init.connect
def _warm_up(**told: object) -> None:
    """Get ready before the first message: one that trains keeps a child waiting, one that predicts imports."""
    for queue in os.environ.get(QUEUES_VARIABLE, "").split(","):
        kind, _, rest = queue.partition(".")
        if kind == "train":
            _training().prepare()
        elif kind == "predict":
            find(rest.partition(".")[0]).warm()


@signals.worker_process_shutdown.connect
def _let_go(**_: object) -> None:
    if _training.cache_info().currsize:
        _training().close()


@app.task(name=TASK_NAMES["train"], bind=True)
@message
def train(task_id: int) -> None:
    """Queue train.<device>: a training, supervised."""
    training = _training()
    try:
        run_task(task_id, _parts(), training)
    finally:
        if not _is_stopping() and not os.environ.get(ONCE):
            training.prepare()


def _work_beside(slots: threading.Semaphore, task_id: int, work: Doing) -> None:
    """Do a task that may take minutes, unless too many of its kind run here: the sweep must always find a thread.

    One that is left lying is sent again by the sweep.
    """
    if not slots.acquire(blocking=False):
        _log.info("task %s comes later: too many of its kind run in this process", task_id)
        return
    try:
        run_task(task_id, _parts(), work)
    finally:
        slots.release()


@app.task(name=TASK_NAMES["clear"], bind=True)
@message
def clear(task_id: int) -> None:
    """Queue control: remove what a repository holds."""
    _work_beside(_CLEARINGS, task_id, lambda attempt, lease: clear_repository(_parts(), attempt, lease))


@app.task(name=TASK_NAMES["import"], bind=True)
@message
def import_(task_id: int) -> None:
    """Queue control: make a version of model files that did not come out of a training in the repository."""
    _work_beside(_IMPORTS, task_id, lambda attempt, lease: import_model(_parts(), attempt, lease))


class _Turns:
    """Tasks of which only some run at once in this process; the others are done by whoever is free first.

    Unlike a thread that waits, one that is left lying holds nobody up; should this process end, the sweep sends it
    again.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._left: dict[int, Doing] = {}
        self._lock = threading.Lock()

    def do(self, task_id: int, work: Doing) -> None:
        """Do a task and those that were left lying meanwhile, or leave it lying."""
        with self._lock:
            self._left[task_id] = work
            if not self._free:
                return
            self._free -= 1
        try:
            while (following := self._next()) is not None:
                run_task(following[0], _parts(), following[1])
        except BaseException:
            with self._lock:
                self._free += 1
            raise

    def has(self, task_id: int) -> bool:
        """Whether a task was left lying here."""
        with self._lock:
            return task_id in self._left

    def _next(self) -> tuple[int, Doing] | None:
        with self._lock:
            if not self._left or _is_stopping():
                self._free += 1
                return None
            task_id = next(iter(self._left))
            return task_id, self._left.pop(task_id)


# One computes, since it takes all cores that it may; the others only wait for those that predict, each lane for itself:
# one whose workers are slow, or not there, holds up no other.
_COMPUTING = _Turns(1)
_ASKING: dict[str, _Turns] = {}
_ASKING_EACH = 2


@app.task(name=TASK_NAMES["predict"], bind=True)
@message
def predict(task_id: int) -> None:
    """Queue batch.<engine>.<device>: a prediction task."""
    spec = _parts().records.tasks.spec(task_id)
    if spec.get("way") == "ask":
        _ASKING.setdefault(spec["lane"], _Turns(_ASKING_EACH)).do(task_id, _prediction().ask)
    else:
        _COMPUTING.do(task_id, _prediction().compute)


# Of the threads of a control worker as well.
_UPLOADS, _DESCRIBING = _Turns(2), _Turns(1)


def _is_lying(task_id: int) -> bool:
    """Whether this process took the message of a task and has not begun with it yet."""
    return any(turns.has(task_id) for turns in (_COMPUTING, _UPLOADS, _DESCRIBING, *list(_ASKING.values())))


@app.task(name=TASK_NAMES["upload"], bind=True)
@message
def upload(task_id: int) -> None:
    """Queue control: put the parts of an upload to a data set together."""
    _UPLOADS.do(task_id, lambda attempt, lease: complete(_parts(), attempt, lease))


@app.task(name=TASK_NAMES["describe"], bind=True)
@message
def describe_(task_id: int) -> None:
    """Queue control: look what the tables of a data set hold."""
    _DESCRIBING.do(task_id, lambda attempt, lease: describe(_parts(), attempt, lease))


@app.task(name=DRAIN, bind=True)
@message
def drain(lane: str, wake: str) -> None:
    """Queue predict.<engine>.<device>: the predictions that wait in that lane, until there are none."""
    _tell_figures()
    draining = _draining()
    draining(lane, wake)
    if draining.is_worn:
        raise Replaced


@app.task(name=SWEEP, bind=True)
@message
def sweep() -> None:
    """Queue control: find what was left behind. One at a time in this process."""
    if not _making.acquire(blocking=False):
        return
    try:
        _sweep()()
    except (RecordsUnavailable, LiveUnavailable) as error:
        _log.warning("the sweep stopped early: %s", error)
    finally:
        _making.release()
