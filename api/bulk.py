"""From a prediction that may take its time to a task: what an answer at once would refuse is refused at once."""

from __future__ import annotations

from collections.abc import Sequence

from api import accepting, data, datasets
from api.accepting import RECORD_BYTES, Repeatable
from api.answers import Json
from api.known import Known
from api.parts import Parts, trace_carried
from api.predicting import FORMAT, INLINE_BYTES, Question, output_given, question_of
from ml.errors import BadParameter
from ml.options import Warning
from ml.options.catalog import libraries
from storage.errors import LiveUnavailable
from storage.records import Account, Kind, Task
from workers.queue import batch_queue

ASKED_ROWS = 4096
"""Most lines that wait beside interactive requests; more are computed by a process of their own."""


def accept(
    parts: Parts,
    account: Account,
    known: Known,
    body: Json,
    remarks: Sequence[Warning],
    repeat: Repeatable | None,
) -> Task:
    """A durable task for a prediction, sent to the workers if Redis takes it.

    Raises what a prediction without a task would raise before it asks a worker, IdempotencyConflict, QueueQuota,
    StoredQuota, and BadParameter for what a task cannot do.
    """
    question = question_of(parts, known, body)
    left_out = _check(question, body)
    entries = data.entries_of(body.get("data"))
    data.check_paths(parts, entries)
    pins = datasets.pinned(parts, account, entries)
    service = known.service
    engine = libraries()[service.mllib].engine
    way = "ask" if not pins and _can_be_asked(parts, question, entries) else "compute"
    queue, head, warnings = _queue(parts, engine, question, way)
    spec: Json = {
        "service": service.name,
        "head": head,
        "form": question.form,
        "tells_timings": question.tells_timings,
        "way": way,
        "lane": question.lane,
        "batch": question.batch,
    }
    if pins:
        spec["datasets"] = pins
    if carried := trace_carried():
        spec["trace"] = carried
    if data.is_bulky(entries, RECORD_BYTES):
        spec["data_key"] = data.store(parts, entries)
    else:
        spec["data"] = entries
    told = (*remarks, *question.warnings, *left_out, *warnings)
    task, is_new = accepting.record(parts, account, service, Kind.PREDICT, queue, spec, told, repeat)
    if is_new:
        accepting.send(parts, task)
    return task


def _can_be_asked(parts: Parts, question: Question, entries: list[str]) -> bool:
    """Whether entries are a few lines, so that a worker which holds the model may answer beside other requests."""
    if question.form == "parquet" or len(entries) > ASKED_ROWS or data.is_bulky(entries, INLINE_BYTES):
        return False
    return not (data.are_elsewhere(entries) or parts.data_roots.looks_like_path(entries[0]))


def _queue(parts: Parts, engine: str, question: Question, way: str) -> tuple[str, Json, list[Warning]]:
    """The queue of a task, its head, and the warning that nobody computes tasks on a GPU."""
    on_cpu, on_gpu = batch_queue(engine, "cpu"), batch_queue(engine, "gpu")
    if way == "ask" or question.head["device"] == "cpu":
        return on_cpu, question.head, []  # who asks another worker needs no GPU
    try:
        served = on_gpu in parts.live.heartbeats.queues()
    except LiveUnavailable:
        served = False
    if served:
        return on_gpu, question.head, []
    text = f"parameters.mllib.gpu was ignored: no worker of {on_gpu} is alive, so the CPU is used"
    return on_cpu, {**question.head, "device": "cpu"}, [Warning("parameters.mllib.gpu", text)]


def _check(question: Question, body: Json) -> list[Warning]:
    """Refuse what a task cannot do, and warn of it where only the service says so, by default.

    Raises BadParameter (section "output").
    """
    left_out = []
    for name, is_wanted, why in (
        ("template", question.template is not None, "is not for tasks, whose results are data"),
        ("network", question.network is not None, "is not for tasks, whose results are fetched"),
    ):
        path = f"parameters.output.{name}"
        if is_wanted and output_given(body.get("parameters")).get(name):
            raise _refused(path, f"{why}; leave it out, or async")
        if is_wanted:
            left_out.append(Warning(path, f"{path}, a default of the service, was ignored: it {why}"))
    if question.measures and question.form not in ("auto", "json"):
        raise _refused(FORMAT, f"is {question.form!r}, and measures are one answer in JSON; leave it out")
    return left_out


def _refused(name: str, why: str) -> BadParameter:
    return BadParameter(name=name, section="output", message=f"{name} {why}")
