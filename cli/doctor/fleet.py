"""The workers: alive, on every queue that needs one, and none gone with a task in hand."""

from __future__ import annotations

from cli.doctor.findings import Found, fail, ok, warn
from cli.doctor.stores import live_of, records_of
from cli.remote.tables import counted
from settings import Settings
from storage.errors import StorageError
from storage.live import Heartbeat

_STALE_S = 30.0
_KINDS = {
    "train": "modelyard worker --queues train.cpu",
    "predict": "modelyard worker --queues predict.xgboost.cpu (one for each engine)",
    "batch": "modelyard worker --queues control,batch.xgboost.cpu",
    "control": "modelyard worker --queues control",
}


def workers(settings: Settings) -> Found:
    """Which workers gave a sign of life, and the queues that nobody serves."""
    try:
        with live_of(settings) as live:
            beats = live.heartbeats.all()
            sweep_age_s = live.heartbeats.sweep_age_s()
    except StorageError:
        yield fail("nobody knows them while Redis does not answer", "mend Redis first")
        return
    served = {queue for beat in beats for queue in beat.queues}
    for kind, command in _KINDS.items():
        if not any(queue.partition(".")[0] == kind for queue in served):
            yield fail(f"no worker of a {kind} queue is alive", f"start one: modelyard up, or {command}")
    for beat in beats:
        if beat.has_namesake:
            yield warn(
                f"several workers are named {beat.worker}, and count as one",
                "start each with a --name of its own, also on machines with the same host name",
            )
    for queue in sorted(served):
        yield ok(f"{queue}: {_names(beats, queue)}")
    if "control" in served:
        yield from _sweep(settings, sweep_age_s)


def _names(beats: list[Heartbeat], queue: str) -> str:
    return ", ".join(beat.worker for beat in beats if queue in beat.queues)


def _sweep(settings: Settings, age_s: float | None) -> Found:
    if age_s is None or age_s > max(_STALE_S, 10 * settings.sweep_s):
        when = "never" if age_s is None else f"{age_s:.0f} s ago"
        yield fail(f"the last sweep ended {when}", "look into the log of the control worker, and start it again")
    else:
        yield ok(f"the last sweep ended {age_s:.0f} s ago")


def queues(settings: Settings) -> Found:
    """Work that waits for a worker that is not there, and for one that fell silent."""
    try:
        with records_of(settings) as records:
            records.check()
            waiting = {each.queue: each.startable for each in records.tasks.waiting(unsent_for_s=0)}
            silent = records.tasks.silent(for_s=max(_STALE_S, 10 * settings.sweep_s))
    except StorageError:
        yield fail("nobody knows what waits while the records are not in order", "mend the records first")
        return
    if silent:
        numbers = ", ".join(str(task.id) for task in silent[:5])
        were = "was" if len(silent) == 1 else "were"
        yield fail(
            f"{counted(len(silent), 'running task')} fell silent and {were} not taken back ({numbers})",
            "start a control worker: modelyard worker --queues control",
        )
    else:
        yield ok("no running task has fallen silent")
    yield from _unserved(settings, waiting)


def _unserved(settings: Settings, waiting: dict[str, int]) -> Found:
    tasks = counted(sum(waiting.values()), "task")
    try:
        with live_of(settings) as live:
            served = live.heartbeats.queues()
    except StorageError:
        yield fail(f"Redis does not answer, and work waits ({tasks})", "mend Redis first")
        return
    for queue, count in waiting.items():
        if queue not in served:
            yield fail(
                f"no worker serves {queue}, and work waits in it ({counted(count, 'task')})",
                f"run: modelyard worker --queues {queue}",
            )
    if waiting.keys() <= served:
        yield ok(f"what waits is in queues that are served ({tasks})")


def gpu_queues(settings: Settings) -> Found:
    """Whether a GPU of this machine is used by a worker."""
    from cli.doctor.machine import gpu_devices

    if not gpu_devices():
        return
    try:
        with live_of(settings) as live:
            served = live.heartbeats.queues()
    except StorageError:
        return
    if not any(queue.endswith(".gpu") for queue in served):
        yield warn("this machine has a GPU, and no worker serves it", "run: modelyard worker --queues train.gpu")
