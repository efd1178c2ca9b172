"""POST /predict."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response, request

from api import data, pushing
from api.accepting import connector_of
from api.answers import Json, document, dump, failure, finite, with_warnings, written
from api.body import read_object
from api.callers import is_connected
from api.devices import choose_prediction
from api.known import Known
from api.mustache import BadTemplate, Template, TooMuch, compiled
from api.parts import Parts, account, parts
from api.refusals import NoModel, TrainPredictConflict
from api.schemas.reading import read, service_of
from api.schemas.train import PredictRequest
from ml.errors import BadParameter
from ml.options import Warning, load_prediction, merge
from ml.options.loading import as_json, keys_of
from ml.options.output import NetworkOptions, OutputOptions
from storage.errors import StorageError
from storage.live import Counts
from storage.records import Service, Version
from workers.asked import Answer, Asked
from workers.queue import CallerGone, Changed, NoAnswer, Overloaded

blueprint = Blueprint("predict", __name__)

_INLINE_BYTES = 2**20
# Of the parameters that a service was asked with: how many are kept ready, and how long they may be.
_KEPT, _KEPT_BYTES = 1024, 16 * 1024
_CHANGES_MOST = 3
_MEMBERS = frozenset(keys_of(PredictRequest))
_ENVELOPE = b'{"status":{"code":200,"msg":"OK"},"head":%b,"body":{"%b":%b}}'
_TEMPLATE = "parameters.output.template"
_log = logging.getLogger(__name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Predict with the newest version of a service's repository."""
    began = time.perf_counter()
    ours = parts()
    body = read_object(ours.settings.request_limit_bytes)
    name = service_of(body)
    remarks = [] if body.keys() <= _MEMBERS else read(PredictRequest, body, "/predict").warnings
    known = ours.services.find(account().id, name)
    for attempt in range(_CHANGES_MOST):
        question = _question(ours, known, body)
        try:
            mark = known.mark if attempt + 1 < _CHANGES_MOST else None
            return _asked(ours, known.service, question, body, [*remarks, *question.warnings], mark, began)
        except Changed:
            known = ours.services.find(account().id, name, stale=known)
    raise AssertionError("the last attempt does not look at changes")


@dataclass(frozen=True)
class _Question:
    """What a service can be asked with some parameters, whatever the data.

    head : what a worker needs to know. lane : where it listens. batch : what may be computed together.
    template, network : what becomes of the answer. tells_timings : whether the answer has them.
    """

    head: Json
    encoded: bytes
    lane: str
    batch: str
    template: Template | None
    network: NetworkOptions | None
    tells_timings: bool
    warnings: tuple[Warning, ...]
    may_be_kept: bool


def _defaults(service: Service) -> Json:
    """What a service says of its predictions: all but the measures, which are those of its trainings.

    A prediction measures only when it asks for it itself; otherwise no service with measures could predict new rows.
    """
    output = service.parameters.get("output")
    if not isinstance(output, dict):
        return service.parameters
    return {**service.parameters, "output": {name: value for name, value in output.items() if name != "measure"}}


def _question(parts: Parts, known: Known, body: Json) -> _Question:
    """What the parameters of a request ask of a service; made once for the same parameters, while nothing changes."""
    given: Any = body.get("parameters")
    try:
        key = b"" if given is None else orjson.dumps(given)
    except orjson.JSONEncodeError:  # a number that JSON does not have, or one too large
        return _made(parts, known, body)
    question: _Question | None = known.questions.get(key)
    if question is None:
        question = _made(parts, known, body)
        if question.may_be_kept and len(key) <= _KEPT_BYTES:
            if len(known.questions) >= _KEPT:
                known.questions.clear()
            known.questions[key] = question
    return question


def _made(parts: Parts, known: Known, body: Json) -> _Question:
    service, given = known.service, body.get("parameters")
    parameters: Any = merge(_defaults(service), given) if isinstance(given, dict | None) else given
    connector = connector_of(service, parameters)
    options = load_prediction(service.mllib, connector, parameters)
    template, network = _shape(options.value.output)
    version = known.version or _missing(parts, service, body)
    device, lane, warnings = choose_prediction(parts, service.mllib, options.value.mllib)
    head: Json = {
        "repository_id": service.repository_id,
        "version_id": version.id,
        "mllib": service.mllib,
        "type": service.type,
        "connector": connector,
        "parameters": finite(_for_workers(parameters)),
        "device": device,
    }
    # All that the library computes differently by; the measures, because they want outputs of another kind.
    computed = [head["parameters"].get("mllib"), service.type, bool(options.value.output.measure)]
    digest = hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:16]
    return _Question(
        head,
        orjson.dumps(head),
        lane,
        f"{version.id}.{device}:{digest}",
        template,
        network,
        options.value.output.timings,
        (*options.warnings, *warnings),
        # Which devices are there changes without a mark.
        may_be_kept=not getattr(options.value.mllib, "gpu", False),
    )


def _shape(options: OutputOptions) -> tuple[Template | None, NetworkOptions | None]:
    """The template and the other host, looked at before anything is computed."""
    if options.network is not None:
        pushing.check(options.network)
    try:
        return compiled(options.template) if options.template else None, options.network
    except BadTemplate as error:
        raise BadParameter(name=_TEMPLATE, section="output", message=f"{_TEMPLATE} is no template: {error}") from None


def _for_workers(parameters: Any) -> Any:
    """The parameters without what is no business of workers, least of all credentials in the address of a host."""
    if not isinstance(parameters, dict) or not isinstance(parameters.get("output"), dict):
        return parameters
    output = {key: value for key, value in parameters["output"].items() if key not in ("template", "network")}
    return {**parameters, "output": output}


def _asked(
    parts: Parts,
    service: Service,
    question: _Question,
    body: Json,
    warnings: list[Warning],
    mark: str | None,
    began: float,
) -> Response:
    """The answer to a question about the data of a request. Raises Changed."""
    entries = data.entries_of(body.get("data"))
    data.check_paths(parts, entries)
    key = data.store(parts, entries) if data.is_bulky(entries, _INLINE_BYTES) else None
    asked = (
        Asked(question.encoded, entries)
        if key is None
        else Asked(orjson.dumps({**question.head, "data_key": key}), None)
    )
    try:
        # How long another host takes is not for us to say.
        with parts.slots.held() if question.network else parts.predictions.held():
            return _answered(parts, service, question, asked, warnings, mark, began)
    finally:
        if key is not None:
            _drop_inputs(parts, key)


def _answered(
    parts: Parts,
    service: Service,
    question: _Question,
    asked: Asked,
    warnings: list[Warning],
    mark: str | None,
    began: float,
) -> Response:
    try:
        answer = parts.queue.predict(
            asked,
            question.lane,
            question.batch,
            parts.settings.predict_timeout_s,
            mark,
            partial(is_connected, request.environ),
        )
    except (NoAnswer, Overloaded, CallerGone) as error:
        _count(parts, service, None)
        return failure(error.kind, str(error))
    _count(parts, service, answer)
    if answer.error is not None:
        return failure(answer.error["kind"], answer.error["message"], answer.error.get("section"))
    template = question.template
    if template is not None and answer.name == "measure":
        template = None
        warnings.append(Warning(_TEMPLATE, f"{_TEMPLATE} was ignored: measures are answered as they are"))
    head: Json = {
        "method": "/predict",
        "time": round((time.perf_counter() - began) * 1000, 3),
        "service": service.name,
    }
    if question.tells_timings:
        head["timings"] = dict(answer.timings)
    if warnings or answer.warnings:
        head = with_warnings(head, [*(each.as_json() for each in warnings), *answer.warnings])
    if question.network is None and template is None:
        # The result goes through as the worker wrote it.
        return written(_ENVELOPE % (dump(head), answer.name.encode(), answer.content))
    made = document(head=head, body={answer.name: orjson.loads(answer.content)})
    if question.network is not None:
        made["network"] = as_json(question.network)
    content = dump(made) if template is None else _rendered(template, made)
    if question.network is None:
        return written(content)
    return pushing.push(question.network, content, parts.settings)


def _rendered(template: Template, made: Json) -> bytes:
    try:
        return template.render(made).encode("utf-8", "replace")
    except TooMuch as error:
        raise BadParameter(
            name=_TEMPLATE, section="output", message=f"{_TEMPLATE} cannot be used on this answer: {error}"
        ) from None


def _missing(parts: Parts, service: Service, body: Json) -> Version:
    """Raises what is wrong where there is no version; data that nothing could be predicted on is said first."""
    data.entries_of(body.get("data"))
    if parts.records.tasks.open_jobs([service.id]):
        raise TrainPredictConflict(
            f"service {service.name!r} trains for the first time; predict when its job has ended"
        )
    raise NoModel(
        f"service {service.name!r} has no model yet; train it with POST /train, "
        "or create it on a repository that holds one"
    )


def _count(parts: Parts, service: Service, answer: Answer | None) -> None:
    """Note a call; `answer` is None when none came."""
    if answer is None or answer.error is not None:
        counts = Counts(predict_count=1, predict_failure=1)
    else:
        timings = answer.timings
        around = timings.get("input", 0.0) + timings.get("output", 0.0)
        counts = Counts(1, 1, 0, answer.count, timings.get("compute", 0.0), around)
    parts.tally.count(service.id, counts)


def _drop_inputs(parts: Parts, key: str) -> None:
    try:
        parts.objects.delete([key])
    except StorageError as error:
        _log.info("inputs of a prediction were left to the cleaner: %s", error)
