"""Answering predictions with models that stay loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from logs.context import bound, trace_ids
from ml import serving
from ml.errors import MlError
from ml.options import PredictionOptions, load_prediction
from storage.errors import StorageError
from storage.live import LOST, Taken
from storage.records import Version
from workers.asked import Asked, failed, told
from workers.beside import DataComing, Errands
from workers.data import encoded, inline
from workers.datasets import Fetched, Named, held, named
from workers.figures import PredictionFigures
from workers.parts import Parts
from workers.queue import AnswerTooLarge, Overloaded
from workers.tracing import Stopwatch, traces
from workers.version_files import manifest_of
from workers.warm import Warm

# What was made of the heads of requests: how many are kept ready, and how long they may be.
_KEPT, _KEPT_BYTES = 4096, 16 * 1024
_LARGE_BYTES = 1 << 20
_OF_ONE_REQUEST = {"data_key", "datasets"}
_log = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass
class _Job:
    """A request on its way through the worker: what it asks, and its answer once there is one."""

    taken: Taken
    model: serving.Model | None = None
    question: serving.Question | None = None
    load_s: float = 0.0
    answer: bytes | None = None
    trace: str = ""
    failure: str | None = None
    stopwatch: Stopwatch | None = None


class Predictor:
    """Computes predictions with the models that one worker process keeps loaded.

    forget : called with the model's part of the list's name when a model is given up.
    figures : where it is counted; at first one that nobody reads.
    rows, computed_s : rows that the last batch answered, and the seconds that its models took to compute them.
    """

    def __init__(self, parts: Parts, forget: Callable[[str], None] = lambda model: None) -> None:
        self._parts = parts
        self._warm: Warm[serving.Model] = Warm(parts.settings.models_limit_bytes, self._given_up)
        self._options: dict[bytes, tuple[Json, PredictionOptions]] = {}
        self._errands = Errands(parts)
        self._answer_bytes = parts.settings.answer_limit_bytes
        self.forget = forget
        self.figures = PredictionFigures().of("")
        self._traces = traces()
        self.rows, self.computed_s = 0, 0.0

    @property
    def is_worn(self) -> bool:
        """Whether this process holds memory that it cannot give back, and should make way for another."""
        return self._warm.is_worn

    def answer(self, batch: Sequence[Taken]) -> list[tuple[bytes, bytes]]:
        """The answer to each request of a batch, all of one model: none spoils those of the others."""
        self.rows, self.computed_s = 0, 0.0
        answers = self._answered(batch)
        self._warm.settle(sum(len(answer) for _, answer in answers))
        self.figures.note_rows(self.rows)
        self.figures.note_models(self._warm.count, self._warm.bytes)
        return answers

    def _answered(self, batch: Sequence[Taken]) -> list[tuple[bytes, bytes]]:
        jobs = [_Job(taken) for taken in batch]
        for job in jobs:
            self._guarded(job, self._read)
        self._compute([job for job in jobs if job.question is not None])
        if self._traces is not None:
            for job in jobs:
                self._trace(job, len(jobs))
        for job in jobs:
            self._errands.end(job.taken.id)
        return [(job.taken.id, job.answer or LOST) for job in jobs]

    def _guarded(self, job: _Job, work: Callable[[_Job], None]) -> None:
        """Do a part of a job; what it raises becomes its answer."""
        try:
            work(job)
        except DataComing as error:
            job.answer, job.question = failed(error.kind, ""), None
        except (MlError, StorageError, Overloaded, AnswerTooLarge) as error:
            job.answer, job.question = failed(error.kind, str(error), getattr(error, "section", None)), None
            self._note_failure(job, error.kind)
        except Exception:
            with bound(**trace_ids(Asked.split(job.taken.asked).trace)):
                _log.exception("prediction %s failed unexpectedly", job.taken.id.decode())
            job.answer, job.question = failed("internal", "unexpected error; the worker's log has it"), None
            self._note_failure(job, "internal")

    def _note_failure(self, job: _Job, kind: str) -> None:
        self.figures.note_failure(kind)
        job.failure = kind

    def _trace(self, job: _Job, together: int) -> None:
        if self._traces is not None and job.stopwatch is not None:
            request_id = job.taken.id.decode()
            about: dict[str, str | int] = {"modelyard.request": request_id, "modelyard.batch.requests": together}
            self._traces.prediction(job.trace, job.stopwatch.parts, about, job.failure)

    def _read(self, job: _Job) -> None:
        asked = Asked.split(job.taken.asked)
        if self._traces is not None and asked.trace:
            job.trace, job.stopwatch = asked.trace, Stopwatch(job.taken.waited_ms)
        request, options = self._loaded(asked.head)
        began = time.perf_counter()
        job.model = self._model(request["version_id"], request["device"])
        job.load_s = time.perf_counter() - began
        if job.stopwatch is not None:
            job.stopwatch.note("load", job.load_s)
        data = asked.data or encoded(request, self._parts.objects)
        fetch = self._errands.of(job.taken.id)
        pins: Json = request.get("datasets", {})
        with ExitStack() as kept:
            files = self._files(job, named(self._parts, pins, orjson.loads(data) if pins else ()), kept)
            found = inline(data, self._parts.data_roots, fetch=fetch, fetched=files)
            fetched_s = time.perf_counter() - began - job.load_s
            job.question = job.model.read(found, options)
        job.question.seconds["input"] += fetched_s
        if job.stopwatch is not None:
            job.stopwatch.note("input", job.question.seconds["input"])

    def _files(self, job: _Job, wanted: Named, kept: ExitStack) -> Fetched:
        """The files of data sets that a job reads; large ones come beside other requests. Raises DataComing."""
        if sum(each.size_bytes for files in wanted.values() for each in files) > _LARGE_BYTES:
            return self._errands.of_datasets(job.taken.id, wanted)
        return kept.enter_context(held(self._parts, wanted))

    def _loaded(self, head: bytes) -> tuple[Json, PredictionOptions]:
        """What a head says, and its options, which are the same for every request with that head."""
        kept = self._options.get(head)
        if kept is None:
            request = orjson.loads(head)
            options = load_prediction(
                request["mllib"], request["connector"], request["parameters"], type=request["type"]
            ).value
            kept = request, options
            if len(head) <= _KEPT_BYTES and not request.keys() & _OF_ONE_REQUEST:
                if len(self._options) >= _KEPT:
                    self._options.clear()
                self._options[head] = kept
        return kept

    def _compute(self, jobs: Sequence[_Job]) -> None:
        """Compute jobs that can be joined together, the others one by one."""
        joined = [job for job in jobs if job.question is not None and job.question.can_join]
        if len(joined) > 1:
            try:
                self._finish(joined)
            except Exception as error:
                # One of them is at fault: each is computed alone then, and tells its own reason.
                _log.info("a batch of %d is computed one by one: %s", len(joined), error)
        for job in jobs:
            if job.answer is None:
                self._guarded(job, lambda job: self._finish([job]))

    def _finish(self, jobs: Sequence[_Job]) -> None:
        questions = [job.question for job in jobs if job.question is not None]
        model = jobs[0].model
        assert model is not None
        outputs = model.compute(questions)
        self.computed_s += questions[0].seconds["compute"]
        for job, question in zip(jobs, questions, strict=True):
            if job.stopwatch is not None:
                job.stopwatch.note("compute", question.seconds["compute"])
        for job, question, output in zip(jobs, questions, outputs, strict=True):

            def finish(job: _Job, question: serving.Question = question, output: Any = output) -> None:
                made = model.answer(question, output)
                timings = {"queued": job.taken.waited_ms, "load": job.load_s * 1000}
                timings |= {name: made.seconds[name] * 1000 for name in ("input", "compute", "output")}
                answer = told(made, timings, together=len(jobs), rows=len(question.table))
                if len(answer) > self._answer_bytes:
                    raise AnswerTooLarge(len(answer), self._answer_bytes)
                job.answer = answer
                self.figures.note_request(timings)
                if job.stopwatch is not None:
                    job.stopwatch.note("output", made.seconds["output"])
                self.rows += len(question.table)

            self._guarded(job, finish)

    def _model(self, version_id: int, device: str) -> serving.Model:
        was_loaded = False

        def load() -> serving.Model:
            nonlocal was_loaded
            was_loaded = True
            return self._load(self._parts.records.versions.get(version_id), device)

        model = self._warm.get((version_id, device), load, is_here=device == "cpu")
        self.figures.note_model(was_loaded=was_loaded)
        return model

    def _load(self, version: Version, device: str) -> serving.Model:
        with self._parts.cache.folder(self._parts.objects, manifest_of(version)) as folder:
            return serving.load(folder, version.description, device=device, threads=self._parts.settings.threads)

    def _given_up(self, key: Any) -> None:
        version_id, device = key
        self.figures.note_eviction()
        self.forget(f"{version_id}.{device}")
