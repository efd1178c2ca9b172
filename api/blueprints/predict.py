"""POST /predict."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response

from api import data, pushing
from api.accepting import connector_of
from api.answers import Json, document, dump, failure, finite, plain, with_warnings, written
from api.body import read_object
from api.devices import choose_prediction
from api.mustache import BadTemplate, Template, TooMuch, compiled
from api.parts import Parts, account, parts
from api.refusals import NoModel, TrainPredictConflict
from api.schemas.reading import read, service_of
from api.schemas.train import PredictRequest
from ml.errors import BadParameter
from ml.options import Warning, load_prediction, merge
from ml.options.loading import as_json
from ml.options.output import NetworkOptions, OutputOptions
from storage.errors import LiveUnavailable, StorageError, VersionNotFound
from storage.records import Service, Version
from workers.queue import NoAnswer

blueprint = Blueprint("predict", __name__)

_INLINE_BYTES = 2**20
_TEMPLATE = "parameters.output.template"
_log = logging.getLogger(__name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Predict with the newest version of a service's repository."""
    began = time.perf_counter()
    body = read_object(parts().settings.request_limit_bytes)
    service = parts().records.services.find(account().id, service_of(body))
    loaded = read(PredictRequest, body, "/predict")
    question = _question(parts(), service, loaded.value)
    question.warnings[:0] = loaded.warnings
    try:
        # How long another host takes is not for us to say.
        with parts().slots.held() if question.network else nullcontext():
            return _answered(service, question, began)
    finally:
        _drop_inputs(parts(), question.asked)


@dataclass(frozen=True)
class _Question:
    """A prediction that can be asked for.

    asked : what a worker needs to know. queue : the one it listens to.
    template, network : what becomes of the answer.
    """

    asked: Json
    queue: str
    template: Template | None
    network: NetworkOptions | None
    warnings: list[Warning]


def _defaults(service: Service) -> Json:
    """What a service says of its predictions: all but the measures, which are those of its trainings.

    A prediction measures only when it asks for it itself; otherwise no service with measures could predict new rows.
    """
    output = service.parameters.get("output")
    if not isinstance(output, dict):
        return service.parameters
    return {**service.parameters, "output": {name: value for name, value in output.items() if name != "measure"}}


def _question(parts: Parts, service: Service, wanted: PredictRequest) -> _Question:
    given: Any = wanted.parameters
    parameters: Any = merge(_defaults(service), given) if isinstance(given, dict | None) else given
    connector = connector_of(service, parameters)
    options = load_prediction(service.mllib, connector, parameters)
    template, network = _shape(options.value.output)
    entries = data.entries_of(wanted.data)
    version = _version(parts, service)
    data.check_paths(parts, entries)
    device, queue, warnings = choose_prediction(parts, service.mllib, options.value.mllib)
    asked: Json = {
        "repository_id": service.repository_id,
        "version_id": version.id,
        "mllib": service.mllib,
        "type": service.type,
        "connector": connector,
        "parameters": finite(_for_workers(parameters)),
        "device": device,
    }
    if data.is_bulky(entries, _INLINE_BYTES):
        asked["data_key"] = data.store(parts, entries)
    else:
        asked["data"] = entries
    return _Question(asked, queue, template, network, [*options.warnings, *warnings])


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


def _answered(service: Service, question: _Question, began: float) -> Response:
    try:
        answer = parts().queue.predict(question.asked, question.queue, parts().settings.predict_timeout_s)
    except NoAnswer as silence:
        _count(parts(), service, {})
        return failure("no_answer", str(silence))
    _count(parts(), service, answer)
    error: Any = answer.get("error")
    if error:
        return failure(error["kind"], error["message"], error.get("section"))
    head: Json = {
        "method": "/predict",
        "time": round((time.perf_counter() - began) * 1000, 3),
        "service": service.name,
    }
    name = "measure" if "measure" in answer else "predictions"
    template = question.template
    if template is not None and name == "measure":
        template = None
        question.warnings.append(Warning(_TEMPLATE, f"{_TEMPLATE} was ignored: measures are answered as they are"))
    told: Any = answer.get("warnings") or []
    head = with_warnings(head, [*(each.as_json() for each in question.warnings), *told])
    made = document(head=head, body={name: answer[name]})
    if question.network is None:
        return plain(made) if template is None else written(_rendered(template, made))
    made["network"] = as_json(question.network)
    content = dump(made) if template is None else _rendered(template, made)
    return pushing.push(question.network, content, parts().settings)


def _rendered(template: Template, made: Json) -> bytes:
    try:
        return template.render(made).encode("utf-8", "replace")
    except TooMuch as error:
        raise BadParameter(
            name=_TEMPLATE, section="output", message=f"{_TEMPLATE} cannot be used on this answer: {error}"
        ) from None


def _version(parts: Parts, service: Service) -> Version:
    try:
        return parts.records.versions.newest(service.repository_id)
    except VersionNotFound:
        pass
    if parts.records.tasks.open_jobs([service.id]):
        raise TrainPredictConflict(
            f"service {service.name!r} trains for the first time; predict when its job has ended"
        )
    raise NoModel(
        f"service {service.name!r} has no model yet; train it with POST /train, "
        "or create it on a repository that holds one"
    )


def _count(parts: Parts, service: Service, answer: Json) -> None:
    """Note the call in the statistics, which may get lost."""
    timings: Json = answer.get("timings") or {}
    try:
        parts.live.statistics.count(
            service.id,
            succeeded="predictions" in answer or "measure" in answer,
            inferences=len(answer.get("predictions") or ()),
            predict_ms=float(timings.get("compute_ms", 0.0)),
            transform_ms=float(timings.get("input_ms", 0.0)) + float(timings.get("output_ms", 0.0)),
        )
    except LiveUnavailable:
        _log.info("a prediction of service %s was not counted", service.name)


def _drop_inputs(parts: Parts, asked: Json) -> None:
    if "data_key" not in asked:
        return
    try:
        parts.objects.delete([asked["data_key"]])
    except StorageError as error:
        _log.info("inputs of a prediction were left to the cleaner: %s", error)
