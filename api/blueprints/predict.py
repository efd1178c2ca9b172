"""POST /predict."""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Blueprint, Response

from api import data
from api.accepting import connector_of
from api.answers import Json, envelope, failure, finite, with_warnings
from api.body import read_object
from api.devices import choose_prediction
from api.parts import Parts, account, parts
from api.refusals import NoModel, TrainPredictConflict
from api.schemas.reading import read, service_of
from api.schemas.train import PredictRequest
from ml.options import Warning, load_prediction, merge
from storage.errors import LiveUnavailable, StorageError, VersionNotFound
from storage.records import Service, Version
from workers.queue import NoAnswer

blueprint = Blueprint("predict", __name__)

_INLINE_BYTES = 2**20
_log = logging.getLogger(__name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Predict with the newest version of a service's repository."""
    began = time.perf_counter()
    body = read_object(parts().settings.request_limit_bytes)
    service = parts().records.services.find(account().id, service_of(body))
    loaded = read(PredictRequest, body, "/predict")
    asked, queue, warnings = _question(parts(), service, loaded.value)
    try:
        answer = parts().queue.predict(asked, queue, parts().settings.predict_timeout_s)
    except NoAnswer as silence:
        _count(parts(), service, {})
        return failure("no_answer", str(silence))
    finally:
        _drop_inputs(parts(), asked)
    _count(parts(), service, answer)
    error: Any = answer.get("error")
    if error:
        return failure(error["kind"], error["message"], error.get("section"))
    head: Json = {
        "method": "/predict",
        "time": round((time.perf_counter() - began) * 1000, 3),
        "service": service.name,
    }
    told: Any = answer.get("warnings") or []
    head = with_warnings(head, [*(each.as_json() for each in (*loaded.warnings, *warnings)), *told])
    name = "measure" if "measure" in answer else "predictions"
    return envelope(head=head, body={name: answer[name]})


def _question(parts: Parts, service: Service, wanted: PredictRequest) -> tuple[Json, str, list[Warning]]:
    """What a worker needs to know, the queue it listens to, and warnings."""
    given: Any = wanted.parameters
    parameters: Any = merge(service.parameters, given) if isinstance(given, dict | None) else given
    connector = connector_of(service, parameters)
    options = load_prediction(service.mllib, connector, parameters)
    entries = data.entries_of(wanted.data)
    version = _version(parts, service)
    data.check_paths(parts, entries)
    device, queue, warnings = choose_prediction(parts, service.mllib, options.value.mllib)
    asked: Json = {
        "repository_id": service.repository_id,
        "version_id": version.id,
        "mllib": service.mllib,
        "connector": connector,
        "parameters": finite(parameters),
        "device": device,
    }
    if data.is_bulky(entries, _INLINE_BYTES):
        asked["data_key"] = data.store(parts, entries)
    else:
        asked["data"] = entries
    return asked, queue, [*options.warnings, *warnings]


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
