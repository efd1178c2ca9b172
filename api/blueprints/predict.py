"""POST /predict."""

from __future__ import annotations

import logging
import time

import orjson
from flask import Blueprint, Response, request

from api import accepting, bulk, data, datasets, pushing
from api.answers import Json, document, dump, envelope, failure, with_warnings, written
from api.asking import answer_to
from api.body import read_object
from api.mustache import Template, TooMuch
from api.parts import IS_CONNECTED, Parts, account, parts, trace_carried
from api.predicting import (
    INLINE_BYTES,
    MEMBERS,
    TEMPLATE,
    Question,
    check_form,
    count,
    enveloped,
    form_given,
    head_of,
    question_of,
)
from api.roles import needs
from api.schemas.reading import read, service_of
from api.schemas.train import PredictRequest
from logs import context
from ml.errors import BadParameter
from ml.options import Warning
from ml.options.loading import as_json
from storage.errors import LiveUnavailable, StorageError
from storage.records import Role, Service
from workers.asked import Asked
from workers.queue import CallerGone, Changed, NoAnswer, Overloaded

blueprint = Blueprint("predict", __name__)

_CHANGES_MOST = 3
_log = logging.getLogger(__name__)


@blueprint.post("/predict")
@needs(Role.PREDICT)
def predict() -> Response:
    """Predict with the newest version of a service's repository."""
    began = time.perf_counter()
    ours = parts()
    body = read_object(ours.settings.request_limit_bytes)
    name = service_of(body)
    remarks: list[Warning] = []
    if not body.keys() <= MEMBERS:
        loaded = read(PredictRequest, body, "/predict")
        remarks = loaded.warnings
        if loaded.value.is_async:
            return _accepted(ours, body, name, remarks)
    known = ours.services.find(account().id, name)
    context.note(service=known.service.name)
    for attempt in range(_CHANGES_MOST):
        question = question_of(ours, known, body)
        check_form(form_given(body.get("parameters")))
        try:
            mark = known.mark if attempt + 1 < _CHANGES_MOST else None
            return _asked(ours, known.service, question, body, [*remarks, *question.warnings], mark, began)
        except Changed:
            known = ours.services.find(account().id, name, stale=known)
    raise AssertionError("the last attempt does not look at changes")


def _accepted(parts: Parts, body: Json, name: str, remarks: list[Warning]) -> Response:
    """The number of a task that will predict."""
    repeat = accepting.repeatable(request.headers.get("Idempotency-Key"), request.method, request.path, body)
    # What is kept may be a second old; a task is worth a look.
    known = parts.services.find(account().id, name, stale=parts.services.kept(account().id, name))
    context.note(service=known.service.name)
    task = bulk.accept(parts, account(), known, body, remarks, repeat)
    head = {"method": "/predict", "service": known.service.name, "task_id": task.id, "status": str(task.state)}
    response = envelope(201, with_warnings(head, task.warnings))
    response.headers["Location"] = f"/tasks/{task.id}"
    return response


def _asked(
    parts: Parts,
    service: Service,
    question: Question,
    body: Json,
    warnings: list[Warning],
    mark: str | None,
    began: float,
) -> Response:
    """The answer to a question about the data of a request. Raises Changed."""
    entries = data.entries_of(body.get("data"))
    data.check_paths(parts, entries)
    pins = datasets.pinned(parts, account(), entries)
    # How long another host takes is not for us to say.
    waits_for_hosts = question.network is not None or data.are_remote(entries)
    with (parts.slots if waits_for_hosts else parts.waits).held(account().id):
        key = data.store(parts, entries) if data.is_bulky(entries, INLINE_BYTES) else None
        about: Json = {} if key is None else {"data_key": key}
        if pins:
            about["datasets"] = pins
        head = orjson.dumps({**question.head, **about}) if about else question.encoded
        asked = Asked(head, orjson.dumps(entries) if key is None else b"", trace_carried())
        try:
            return _answered(parts, service, question, asked, warnings, mark, began)
        finally:
            if key is not None:
                _drop_inputs(parts, key)


def _answered(
    parts: Parts,
    service: Service,
    question: Question,
    asked: Asked,
    warnings: list[Warning],
    mark: str | None,
    began: float,
) -> Response:
    try:
        answer = answer_to(parts, question, asked, mark, request.environ.get(IS_CONNECTED, lambda: True))
    except (NoAnswer, Overloaded, CallerGone, LiveUnavailable) as error:
        count(parts, service.id, None)
        return failure(error.kind, str(error))
    count(parts, service.id, answer)
    if answer.error is not None:
        return failure(answer.error["kind"], answer.error["message"], answer.error.get("section"))
    template = question.template
    if template is not None and answer.name == "measure":
        template = None
        warnings.append(Warning(TEMPLATE, f"{TEMPLATE} was ignored: measures are answered as they are"))
    head = head_of(service.name, question, answer, warnings, began)
    if question.network is None and template is None:
        return written(enveloped(head, answer))
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
            name=TEMPLATE, section="output", message=f"{TEMPLATE} cannot be used on this answer: {error}"
        ) from None


def _drop_inputs(parts: Parts, key: str) -> None:
    try:
        parts.objects.delete([key])
    except StorageError as error:
        _log.info("inputs of a prediction were left to the cleaner: %s", error)
