"""The work of a prediction task: a few lines wait in the lane beside the interactive ones, more rows get a process."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from ml.options.catalog import libraries
from storage.errors import LiveUnavailable, StorageError
from storage.records import Attempt, Ended, State
from workers.asked import Answer, Asked
from workers.child import Child, Event
from workers.child_work import ChildWork
from workers.data import entries
from workers.deaths import after_death
from workers.lease import LeaseKeeper
from workers.lifecycle import Work, failure_of
from workers.queue import AnswerTooLarge, CallerGone, NoAnswer, Overloaded
from workers.saying import say
from workers.supervisor import Outcome, Telling
from workers.version_files import manifest_of

Json = dict[str, Any]

INLINE_BYTES = 64 * 1024
"""Largest result that is kept in the record; a larger one lies in the object store."""

PROGRAM = ("-m", "ml.bulk.run")

_PATIENCE_S = 300.0
_AGAIN_S = 0.5
# What a worker answers that could not come at the model now; and after how long it is asked again.
_PASSING = {"store_unavailable", "records_unavailable", "live_unavailable", "overloaded"}
_PASSING_S = 2.0
_LARGE = threading.Lock()
"""One task that asked in vain is computed at a time, beside the one that never asked."""

_log = logging.getLogger(__name__)


class Prediction(ChildWork):
    """Does prediction tasks. Safe to share between threads."""

    def ask(self, attempt: Attempt, lease: LeaseKeeper) -> Work:
        """Have a worker that holds the model answer; the lines wait as those of any other request."""
        spec, settings = attempt.spec, self._parts.settings
        data = self._patiently(lambda: entries(spec, self._parts.objects), lease)
        asked = Asked(orjson.dumps(spec["head"]), orjson.dumps(data), spec.get("trace", ""))
        try:
            answer = self._answer(attempt, lease, asked)
        except CallerGone:
            lease.check()
            return Work(State.CANCELLED) if lease.is_cancel_requested else Work(State.QUEUED, "paused")
        except (NoAnswer, Overloaded, LiveUnavailable) as error:
            failure = _failure(error.kind, str(error), None, "try again later")
            # Workers died of it, or it takes them too long: that is not tried as often as a store that is away.
            most = settings.deaths_max if isinstance(error, NoAnswer) else settings.lost_max
            if attempt.task.tries < most:
                return Work(State.QUEUED, "stranded", failure=failure)
            return Work(State.FAILED, failure=failure)
        if answer.error is not None and answer.error["kind"] == AnswerTooLarge.kind:
            with _LARGE:
                return self.compute(attempt, lease)
        if answer.error is not None:
            error_ = answer.error
            advice = "try again later" if _is_passing(answer) else "correct the request and send it again"
            failure = _failure(error_["kind"], error_["message"], error_.get("section"), advice)
            if _is_passing(answer) and attempt.task.tries < settings.lost_max:
                return Work(State.QUEUED, "stranded", failure=failure)
            return Work(State.FAILED, failure=failure)
        return self._told(attempt, lease, answer)

    def _answer(self, attempt: Attempt, lease: LeaseKeeper, asked: Asked) -> Answer:
        """What a worker answers, once it can, or one comes that could.

        Raises CallerGone when nobody wants the answer any more, NoAnswer, Overloaded, LiveUnavailable.
        """
        spec = attempt.spec
        deadline = time.monotonic() + _PATIENCE_S

        def is_wanted() -> bool:
            return not self._is_pointless(lease)

        while True:
            again_s = _AGAIN_S
            try:
                answer = self._parts.queue.predict(asked, spec["lane"], spec["batch"], _PATIENCE_S, None, is_wanted)
                again_s = _PASSING_S
                if not _is_passing(answer) or time.monotonic() + again_s >= deadline:
                    return answer
            except Overloaded:
                # Callers who wait for their answers go first.
                if time.monotonic() + again_s >= deadline:
                    raise
            except NoAnswer as error:
                if error.is_lost or spec["lane"] in self._parts.live.heartbeats.queues():
                    raise
                # What was accepted waits for a worker, as a training does.
                text = f"no worker of {spec['lane']} is there; this task waits for one"
                say(self._parts.live, attempt.task.id, attempt.number, "warning", text)
                deadline = time.monotonic() + _PATIENCE_S
            if not is_wanted():
                raise CallerGone
            time.sleep(again_s)

    def _told(self, attempt: Attempt, lease: LeaseKeeper, answer: Answer) -> Work:
        report: Json = {"rows": answer.count, "timings": dict(answer.timings), "warnings": answer.warnings}
        if answer.name == "measure":
            report |= {"measure": orjson.loads(answer.content)}
            report["result"] = _inline("measure", "json", answer.content)
            return self._finished(report)
        form, content = _formed(attempt.spec["form"], answer.content)
        if len(content) <= INLINE_BYTES:
            report["result"] = _inline("predictions", form, content)
            return self._finished(report)
        lease.check()
        stored = self._patiently(lambda: self._parts.objects.put_bytes(_key(attempt, form), content), lease)
        report["result"] = _stored(form, stored)
        return self._finished(report)

    def _finished(self, report: Json, phases: Json | None = None) -> Work:
        """The end with a result, which is deleted when a cancel came first."""
        key = report["result"].get("key")

        def delete(ended: Ended) -> None:
            if key is None or ended.state is State.FINISHED:
                return
            try:
                self._parts.objects.delete([key])
            except StorageError as error:
                _log.info("the result of a cancelled task is left to the cleaning: %s", error)

        return Work(State.FINISHED, report=report, phases=phases or {}, after=delete)

    def compute(self, attempt: Attempt, lease: LeaseKeeper) -> Work:
        """Read and predict in a process of its own, piece by piece; its files are gone afterwards."""
        return self._in_folder(attempt, lease, self._computed)

    def _computed(self, attempt: Attempt, lease: LeaseKeeper, folder: Path, held: ExitStack) -> Work:
        began = time.monotonic()
        parts, settings, spec = self._parts, self._parts.settings, attempt.spec
        head = spec["head"]
        data = self._data(attempt, lease, held, for_training=False)
        version = parts.records.versions.get(head["version_id"])
        result = folder / "result"
        # Fetched patiently first, and held for as long as the process may read it.
        manifest = manifest_of(version)

        def fetch_model() -> None:
            with parts.cache.folder(parts.objects, manifest):
                pass

        self._patiently(fetch_model, lease)
        with parts.cache.folder(parts.objects, manifest) as model:
            specification: Json = {
                "task": attempt.name,
                "mllib": head["mllib"],
                "connector": head["connector"],
                "type": head["type"],
                "parameters": head["parameters"],
                "folder": str(model),
                "description": version.description,
                "data": data,
                "result": str(result),
                "form": spec["form"],
                "inline_bytes": INLINE_BYTES,
                "threads": settings.threads,
                # Who asks others needs no GPU, and may have none.
                "device": "cpu" if spec.get("way") == "ask" else head["device"],
            }
            child = Child(folder / "log.txt", settings.threads, (libraries()[head["mllib"]].engine,), PROGRAM)
            prepared_s = round(time.monotonic() - began, 4)
            outcome = self._watched(child, specification, attempt, lease, RowsTelling(parts.live, attempt))
        outcome.phases = {"preparing": prepared_s, **outcome.phases}
        return self._work(attempt, lease, outcome, result)

    def _work(self, attempt: Attempt, lease: LeaseKeeper, outcome: Outcome, path: Path) -> Work:
        match outcome.ending:
            case "finished":
                assert outcome.result is not None
                lease.check()
                began = time.monotonic()
                report = self._report(attempt, lease, outcome.result, path)
                outcome.phases["publishing"] = round(time.monotonic() - began, 4)
                return self._finished(report, outcome.phases)
            case "cancelled":
                return Work(State.CANCELLED, phases=outcome.phases)
            case "paused":
                return Work(State.QUEUED, "paused", phases=outcome.phases)
            case "killed":
                return after_death(self._parts, attempt, outcome)
            case "failed":
                return Work(State.FAILED, failure=outcome.failure, phases=outcome.phases)

    def _report(self, attempt: Attempt, lease: LeaseKeeper, ended: Event, path: Path) -> Json:
        timings = {name: round(seconds * 1000, 3) for name, seconds in ended["seconds"].items()}
        report: Json = {"rows": ended["rows"], "timings": timings, "warnings": ended["warnings"]}
        if ended["measure"] is not None:
            measure = orjson.dumps(ended["measure"])
            return report | {"measure": ended["measure"], "result": _inline("measure", "json", measure)}
        form, content = ended["form"], ended["content"]
        if content is not None:
            return report | {"result": _inline("predictions", form, content.encode())}
        stored = self._patiently(lambda: self._parts.objects.put_file(_key(attempt, form), path), lease)
        return report | {"result": _stored(form, stored)}


class RowsTelling(Telling):
    """Puts the progress of a prediction into the live state."""

    def progress(self, event: Event) -> None:
        """A piece is over."""
        rows, total = event["rows"], event["total"]
        self._progress.update(rows=rows, total=total, percent=round(100.0 * rows / total, 2) if total else 100.0)
        self._changed = True


def _key(attempt: Attempt, form: str) -> str:
    """Where this attempt alone puts its result: one that was taken over cannot replace that of another."""
    return f"{attempt.prefix}/result.{form}"


def _inline(name: str, form: str, content: bytes) -> Json:
    return {"name": name, "form": form, "size_bytes": len(content), "content": content.decode()}


def _stored(form: str, stored: Any) -> Json:
    return {
        "name": "predictions",
        "form": form,
        "size_bytes": stored.size,
        "key": stored.key,
        "sha256": stored.sha256,
    }


def _formed(wanted: str, content: bytes) -> tuple[str, bytes]:
    """A JSON array of predictions in the form that was asked for, which "auto" leaves to its size."""
    if wanted == "json" or (wanted == "auto" and len(content) <= INLINE_BYTES):
        return "json", content
    return "jsonl", b"".join(orjson.dumps(each) + b"\n" for each in orjson.loads(content))


def _is_passing(answer: Answer) -> bool:
    """Whether a worker that could not answer may be able to a little later."""
    return answer.error is not None and answer.error["kind"] in _PASSING


def _failure(kind: str, message: str, section: str | None, advice: str) -> Json:
    made = failure_of(StorageError(message), "predicting")
    return {**made, "kind": kind, "class": None, "section": section, "advice": advice}
