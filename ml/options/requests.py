"""The requests as a whole: creation of a service, training, prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml.errors import BadInput, BadParameter, MlError, UnknownConnector, UnknownLibrary, UnknownType
from ml.options import output, service
from ml.options.catalog import ConnectorOptions, LibraryOptions, connectors, libraries
from ml.options.loading import Loaded, Warning, load, shown, with_ignored
from ml.options.output import OutputOptions
from ml.options.service import ModelOptions, ServiceHead

SECTIONS = ("input", "mllib", "output")


@dataclass(frozen=True)
class ServiceRequest:
    """What a creation request says before its parameters are looked at.

    parameters : the three sections as posted, without `from_repository`, which no later call needs.
    from_repository : the repository whose best model is copied into that of the service; empty for none.
    """

    library: str
    connector: str
    type: str
    description: str
    model: ModelOptions
    parameters: dict[str, dict[str, Any]]
    from_repository: str


@dataclass(frozen=True)
class ServiceOptions:
    """A service as its creation request describes it.

    parameters : the three sections as posted, defaults of every later call.
    input, mllib, output : the same, loaded; classes as in the catalog.
    """

    library: str
    connector: str
    type: str
    description: str
    model: ModelOptions
    parameters: dict[str, dict[str, Any]]
    input: Any
    mllib: Any
    output: OutputOptions

    @property
    def mltype(self) -> str:
        """What the service predicts, in the words of the DeepDetect API."""
        return str(self.mllib.target.mltype)


@dataclass(frozen=True)
class TrainingOptions:
    """Everything a training obeys; `input` and `mllib` have the classes of the catalog.

    Every class of `mllib` tells, by fields or properties, `target`, `iterations`, `test_interval`,
    `test_initialization`, `resume` and `wants_previous`.
    """

    library: str
    connector: str
    input: Any
    mllib: Any
    output: OutputOptions


@dataclass(frozen=True)
class PredictionOptions:
    """Everything a prediction obeys.

    given_input : names of the input options the request set; the others follow the training of the model.
    type : of the service, "supervised" or "unsupervised".
    """

    library: str
    connector: str
    input: Any
    mllib: Any
    output: OutputOptions
    given_input: frozenset[str] = frozenset()
    type: str = "supervised"


def merge(service_parameters: Mapping[str, Any] | None, call_parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of a call over those of its service, object by object; a null in the call takes none away.

    Neither argument is changed. Members that are no objects are replaced as a whole.
    """
    merged: dict[str, Any] = dict(service_parameters or {})
    for key, value in (call_parameters or {}).items():
        if value is None:
            continue
        before = merged.get(key)
        merged[key] = merge(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_service(body: Mapping[str, Any]) -> Loaded[ServiceRequest]:
    """Read of the body of a creation request all but what stands in its parameters.

    Raises BadParameter (section "service" when `mllib` or the connector is missing or no text; "model" when the
    repository is not named), UnknownLibrary, UnknownType, UnknownConnector.
    """
    if not isinstance(body, Mapping):
        raise BadParameter(name="body", section="service", message="the request must be a JSON object")
    head = load(ServiceHead, body, path="body", section="service", owner="services")
    if not body.get("mllib") and body.get("mllib") != "":
        raise BadParameter(name="mllib", section="service", message="mllib is missing; name a library, e.g. 'xgboost'")
    parameters = _sections(head.value.parameters)
    connector = parameters["input"].get("connector")
    if not isinstance(connector, str):
        raise BadParameter(
            name="parameters.input.connector",
            section="service",
            message=f"parameters.input.connector is {'missing' if connector is None else shown(connector)}; "
            "name an input connector, e.g. 'csv'",
        )
    model = load(
        ModelOptions,
        head.value.model,
        path="model",
        section="model",
        owner="services",
        elsewhere=service.MODEL_ELSEWHERE,
    )
    if not model.value.repository:
        raise BadParameter(
            name="model.repository",
            section="model",
            message="model.repository is missing; name the folder or the place that keeps the model",
        )
    library = _library(head.value.mllib)
    if head.value.type not in library.types:
        raise UnknownType(head.value.type, library.types)
    taken = _connector(library, connector)
    origin = load(
        service.OriginOptions,
        {service.FROM_REPOSITORY: parameters["mllib"].pop(service.FROM_REPOSITORY, None)},
        path="parameters.mllib",
        section="mllib",
        owner=library.name,
    ).value.from_repository
    remarks = service.check(model.value, origin, library)
    value = ServiceRequest(
        library=library.name,
        connector=taken.name,
        type=head.value.type,
        description=head.value.description,
        model=model.value,
        parameters=parameters,
        from_repository=origin,
    )
    warnings = [Warning(w.parameter.removeprefix("body."), w.message.replace("body.", "")) for w in head.warnings]
    return Loaded(value, warnings + model.warnings + remarks)


def load_service(body: Mapping[str, Any]) -> Loaded[ServiceOptions]:
    """Read the body of a creation request.

    Raises what `read_service` raises, and BadParameter for what stands in the parameters.
    """
    read = read_service(body)
    wanted = read.value
    library = _library(wanted.library)
    loaded = _load_sections(library, _connector(library, wanted.connector), wanted.parameters)
    try:
        remarks = library.check(loaded.value["mllib"])
    except BadParameter as error:
        raise with_ignored(error, loaded.warnings) from None
    value = ServiceOptions(
        library=wanted.library,
        connector=wanted.connector,
        type=wanted.type,
        description=wanted.description,
        model=wanted.model,
        parameters=wanted.parameters,
        **loaded.value,
    )
    return Loaded(value, read.warnings + loaded.warnings + remarks)


def load_training(mllib: str, connector: str, parameters: Mapping[str, Any]) -> Loaded[TrainingOptions]:
    """Read the parameters of a training, already merged with those of its service.

    Raises UnknownLibrary, UnknownConnector, BadParameter (also when label, nclasses, ntargets or iterations
    are missing).
    """
    library = _library(mllib)
    taken = _connector(library, connector)
    loaded = _load_sections(library, taken, _sections(parameters))
    options = TrainingOptions(library.name, taken.name, **loaded.value)
    try:
        remarks = _check_training(library, taken, options)
    except (BadParameter, BadInput) as error:
        raise with_ignored(error, loaded.warnings) from None
    return Loaded(options, loaded.warnings + remarks)


def _check_training(library: LibraryOptions, taken: ConnectorOptions, options: TrainingOptions) -> list[Warning]:
    remarks = library.check(options.mllib)
    taken.check_target(options.input, options.mllib.target)
    library.check_input(options.mllib, options.input)
    if options.mllib.iterations == 0:
        raise BadParameter(
            name="parameters.mllib.iterations",
            section="mllib",
            message="parameters.mllib.iterations is missing; give the number of rounds to train",
        )
    return remarks


def wants_previous(mllib: str, connector: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a training with these parameters needs the files that its repository holds; False when they are wrong."""
    try:
        return bool(load_training(mllib, connector, parameters).value.mllib.wants_previous)
    except MlError:
        return False  # the training itself tells what is wrong


def load_prediction(
    mllib: str, connector: str, parameters: Mapping[str, Any], *, type: str = "supervised"
) -> Loaded[PredictionOptions]:
    """Read the parameters of a prediction, already merged with those of its service.

    Raises UnknownLibrary, UnknownConnector, BadParameter.
    """
    library = _library(mllib)
    taken = _connector(library, connector)
    sections = _sections(parameters)
    loaded = _load_sections(library, taken, sections)
    given = frozenset(key for key, value in sections["input"].items() if value is not None)
    options = PredictionOptions(library.name, taken.name, **loaded.value, given_input=given, type=type)
    return Loaded(options, loaded.warnings)


def _sections(parameters: Any) -> dict[str, dict[str, Any]]:
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, Mapping):
        raise BadParameter(
            name="parameters",
            section="service",
            message=f"parameters is {shown(parameters)}; it must be an object",
        )
    sections: dict[str, dict[str, Any]] = {}
    for name in SECTIONS:
        given = parameters.get(name)
        if given is not None and not isinstance(given, Mapping):
            raise BadParameter(
                name=f"parameters.{name}",
                section=name,
                message=f"parameters.{name} is {shown(given)}; it must be an object",
            )
        sections[name] = dict(given or {})
    sections.update({name: value for name, value in parameters.items() if name not in SECTIONS and value is not None})
    return sections


def _load_sections(
    library: LibraryOptions, taken: ConnectorOptions, parameters: Mapping[str, Any]
) -> Loaded[dict[str, Any]]:
    warnings = [
        Warning(
            f"parameters.{name}",
            f"parameters.{name} is unknown and was ignored; use one of {', '.join(SECTIONS)}",
        )
        for name in parameters
        if name not in SECTIONS
    ]
    loaded = {
        "input": load(
            taken.options,
            parameters["input"],
            path="parameters.input",
            section="input",
            owner=taken.name,
            elsewhere=taken.elsewhere,
        ),
        "mllib": load(
            library.options,
            parameters["mllib"],
            path="parameters.mllib",
            section="mllib",
            owner=library.name,
            elsewhere=library.elsewhere,
        ),
        "output": load(
            OutputOptions,
            parameters["output"],
            path="parameters.output",
            section="output",
            owner="the output",
            elsewhere=output.ELSEWHERE,
        ),
    }
    warnings.extend(taken.check(loaded["input"].value))
    warnings.extend(output.check(loaded["output"].value))
    for each in loaded.values():
        warnings.extend(each.warnings)
    values: dict[str, Any] = {name: each.value for name, each in loaded.items()}
    # DeepDetect takes it in both places; what the input says counts.
    if getattr(values["mllib"], "db", False) and parameters["input"].get("db") is None:
        values["input"] = replace(values["input"], db=True)
    return Loaded(values, warnings)


def _library(name: str) -> LibraryOptions:
    known = libraries()
    if name not in known:
        raise UnknownLibrary(name, known)
    return known[name]


def _connector(library: LibraryOptions, name: str) -> ConnectorOptions:
    if name not in library.connectors:
        raise UnknownConnector(name, library.connectors)
    return connectors()[name]
