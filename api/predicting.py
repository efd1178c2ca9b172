"""What a prediction asks of a service, and what its answer is made of, for both ways that requests take."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from api import data, pushing
from api.accepting import connector_of
from api.answers import Json, with_warnings
from api.devices import choose_prediction
from api.known import Known
from api.mustache import BadTemplate, Template, compiled
from api.parts import Parts
from api.refusals import NoModel, TrainPredictConflict
from api.schemas.train import PredictRequest
from ml.errors import BadParameter
from ml.json_text import finite
from ml.options import Warning, load_prediction, merge
from ml.options.loading import keys_of
from ml.options.output import NetworkOptions, OutputOptions
from storage.live import Counts
from storage.records import Service, Version
from workers.asked import Answer

INLINE_BYTES = 2**20
"""Most bytes of data that travel with a request; more lie in the object store."""

PARAMETERS_BYTES = 2**20
"""Most bytes of parameters of a prediction, those of its service among them."""

MEMBERS = frozenset(keys_of(PredictRequest)) - {"async"}
"""What a request may have at its top level that wants its answer at once."""

FORMAT = "parameters.output.format"

TEMPLATE = "parameters.output.template"
# Of the parameters that a service was asked with: how many are kept ready, and how long they may be.
_KEPT, _KEPT_BYTES = 1024, 16 * 1024
_ENVELOPE = b'{"status":{"code":200,"msg":"OK"},"head":%b,"body":{"%b":%b}}'


@dataclass(frozen=True)
class Question:
    """What a service can be asked with some parameters, whatever the data.

    head : what a worker needs to know. lane : where it listens. batch : what may be computed together.
    template, network : what becomes of the answer. tells_timings : whether the answer has them.
    form : what the result of a task is kept as. measures : whether the answer is measures.
    """

    head: Json
    encoded: bytes
    lane: str
    batch: str
    template: Template | None
    network: NetworkOptions | None
    tells_timings: bool
    form: str
    measures: bool
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


def question_of(parts: Parts, known: Known, body: Json) -> Question:
    """What the parameters of a request ask of a service; made once for the same parameters, while nothing changes.

    Raises BadParameter, NoModel, TrainPredictConflict.
    """
    given: Any = body.get("parameters")
    try:
        key = b"" if given is None else orjson.dumps(given)
    except orjson.JSONEncodeError:  # a number that JSON does not have, or one too large
        return _made(parts, known, body)
    question: Question | None = known.questions.get(key)
    if question is None:
        question = _made(parts, known, body)
        if question.may_be_kept and len(key) <= _KEPT_BYTES:
            if len(known.questions) >= _KEPT:
                known.questions.clear()
            known.questions[key] = question
    return question


def _made(parts: Parts, known: Known, body: Json) -> Question:
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
    encoded = orjson.dumps(head)
    if len(encoded) > PARAMETERS_BYTES:
        text = f"parameters, with those of the service, have {len(encoded)} bytes; they may have {PARAMETERS_BYTES}"
        raise BadParameter(name="parameters", section="service", message=text)
    # All that the library computes differently by; the measures, because they want outputs of another kind.
    computed = [head["parameters"].get("mllib"), service.type, bool(options.value.output.measure)]
    digest = hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:16]
    return Question(
        head,
        encoded,
        lane,
        f"{version.id}.{device}:{digest}",
        template,
        network,
        options.value.output.timings,
        options.value.output.format,
        bool(options.value.output.measure),
        (*options.warnings, *warnings),
        # Which devices are there changes without a mark; and a form of results is only for tasks.
        may_be_kept=not getattr(options.value.mllib, "gpu", False) and form_given(given) in ("", "auto", "json"),
    )


def form_given(parameters: Any) -> str:
    """The form of the result that a request itself asks for; empty when it does not."""
    return str(output_given(parameters).get("format") or "")


def output_given(parameters: Any) -> Json:
    """What a request itself says of its output."""
    output = parameters.get("output") if isinstance(parameters, dict) else None
    return output if isinstance(output, dict) else {}


def check_form(form: str) -> None:
    """Refuse a form that only the results of tasks have. Raises BadParameter."""
    if form not in ("", "auto", "json"):
        text = f"{FORMAT} is {form!r}, which only the results of tasks have; send async true as well, or leave it out"
        raise BadParameter(name=FORMAT, section="output", message=text)


def _shape(options: OutputOptions) -> tuple[Template | None, NetworkOptions | None]:
    """The template and the other host, looked at before anything is computed."""
    if options.network is not None:
        pushing.check(options.network)
    try:
        return compiled(options.template) if options.template else None, options.network
    except BadTemplate as error:
        raise BadParameter(name=TEMPLATE, section="output", message=f"{TEMPLATE} is no template: {error}") from None


def _for_workers(parameters: Any) -> Any:
    """The parameters without what is no business of workers, least of all credentials in the address of a host."""
    if not isinstance(parameters, dict) or not isinstance(parameters.get("output"), dict):
        return parameters
    output = {key: value for key, value in parameters["output"].items() if key not in ("template", "network")}
    return {**parameters, "output": output}


def kept_question(known: Known, given: Any) -> Question | None:
    """The question of such parameters, if it was made before."""
    try:
        return known.questions.get(b"" if given is None else orjson.dumps(given))
    except orjson.JSONEncodeError:
        return None


def head_of(service: str, question: Question, answer: Answer, warnings: Iterable[Warning], began: float) -> Json:
    """The head of an answer. began : when the request came, by `time.perf_counter`."""
    head: Json = {"method": "/predict", "time": round((time.perf_counter() - began) * 1000, 3), "service": service}
    if question.tells_timings:
        head["timings"] = dict(answer.timings)
    told = [each.as_json() for each in warnings]
    return with_warnings(head, [*told, *answer.warnings]) if told or answer.warnings else head


def enveloped(head: Json, answer: Answer) -> bytes:
    """A whole answer, with the result as the worker wrote it."""
    return _ENVELOPE % (orjson.dumps(head), answer.name.encode(), answer.content)


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


def count(parts: Parts, service_id: int, answer: Answer | None) -> None:
    """Note a call; `answer` is None when none came."""
    if answer is None or answer.error is not None:
        counts = Counts(predict_count=1, predict_failure=1)
    else:
        timings = answer.timings
        around = timings.get("input", 0.0) + timings.get("output", 0.0)
        counts = Counts(1, 1, 0, answer.count, timings.get("compute", 0.0), around)
    parts.tally.count(service_id, counts)
