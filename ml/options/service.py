"""Options of a service: the top level of its creation request and its `model` object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml.errors import BadParameter
from ml.options.loading import Flag, Json, Text, Warning, option
from ml.repository_files import is_state

if TYPE_CHECKING:
    from ml.options.catalog import LibraryOptions


@dataclass(frozen=True)
class ModelOptions:
    """Where the model of a service lives, and where it comes from."""

    repository: str = option(
        Text(required=True),
        "Folder inside a data root, or name of a place in the object store, that holds the model.",
        default="",
    )
    create_repository: bool = option(Flag(), "Whether a missing repository is created.", default=False)
    weights: str = option(
        Text(),
        "Model file to start from, as long as the repository holds no version: a path inside a data root, or the name "
        "of a file in the repository.",
        default="",
    )
    init: str = option(
        Text(),
        "Archive (zip, or tar packed by gzip, bzip2, xz or not at all) that is installed into the repository: a path "
        "inside a data root or an http(s) URL. The parameters in its config.json replace those of the request.",
        default="",
    )


#: Known names of the model object that have no effect here, with the reason.
MODEL_ELSEWHERE = {
    "templates": "networks are built in and called by parameters.mllib.template; definitions in a folder are not read",
    "index_preload": "it comes later, with similarity search",
}

FROM_REPOSITORY = "from_repository"


@dataclass(frozen=True)
class OriginOptions:
    """What `parameters.mllib` says once, at the creation of a service, and no later call takes."""

    from_repository: str = option(
        Text(),
        "Repository whose best model is copied into that of the new service; what the request does not say of the "
        "model is taken over from its training.",
        default="",
    )


def check(model: ModelOptions, from_repository: str, library: LibraryOptions) -> list[Warning]:
    """Refuse origins of a model that exclude each other, and weights of another library; name what has no effect.

    Raises BadParameter (section "model").
    """
    if model.init and from_repository:
        raise BadParameter(
            name="model.init",
            section="model",
            message="model.init and parameters.mllib.from_repository both say where the model comes from; give one",
        )
    if model.weights and not model.weights.endswith(library.files):
        raise BadParameter(
            name="model.weights",
            section="model",
            message=f"model.weights is {model.weights[:200]!r}; model files of {library.name} end with "
            + " or ".join(library.files),
        )
    if is_state(model.weights.rpartition("/")[2]):
        raise BadParameter(
            name="model.weights",
            section="model",
            message=f"model.weights is {model.weights[:200]!r}, the state of a solver; name a model file, "
            "and put the state beside it in the repository to go on with it",
        )
    if model.weights and (model.init or from_repository):
        return [Warning("model.weights", "model.weights was ignored: the model comes from elsewhere")]
    return []


@dataclass(frozen=True)
class ServiceHead:
    """The top level of a creation request."""

    mllib: str = option(Text(required=True), "Name of the machine-learning library.", default="")
    description: str = option(Text(), "Free text shown in lists.", default="")
    type: str = option(Text(), "Kind of learning: supervised or unsupervised.", default="supervised")
    model: object = option(Json(required=True), "Where the model lives.")
    parameters: object = option(Json(required=True), "Defaults of `input`, `mllib` and `output` for every call.")


def without_db(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose `db` is false wherever it stands: a data base of the training is not copied with its model."""
    return {
        name: {**section, "db": False} if isinstance(section, Mapping) and "db" in section else section
        for name, section in parameters.items()
    }
