"""Where the model of a new service comes from: its repository, a file, an archive, or another repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import repositories
from api.answers import Json
from api.parts import Parts
from ml.errors import BadParameter, MlError
from ml.json_text import finite
from ml.options import Loaded, ServiceRequest, load_service, merge, read_service
from ml.options.catalog import libraries
from ml.options.requests import SECTIONS
from ml.options.service import without_db
from ml.repository_files import CONFIG, belongs, is_model
from storage import repository_folder
from storage.errors import OutsideDataRoots, RepositoryUnusable, VersionNotFound
from storage.records import Account, Repository, Version

_CONFIG_BYTES = 2**20
_ONCE = {"mllib": ("resume", "finetuning", "from_repository"), "output": ("target_repository",)}
"""What a published model must not inherit: it has no state to resume, and would be published again."""

_TRAINING = {
    "input": ("test_split", "shuffle", "seed"),
    "mllib": ("iterations", "test_interval", "test_initialization", "solver"),
    "output": ("measure", "measure_hist", "max_hist_points"),
}
"""What says how a model was trained and not what it is; `measure` would even change what predictions answer."""


@dataclass(frozen=True)
class Wanted:
    """A service that is to be created.

    request : what its request says. mltype : what it predicts; empty when only the archive tells.
    config : the creation request as it is kept in the repository.
    parameters : the defaults of later calls. source : what to copy the model from, for the task that does it.
    """

    request: ServiceRequest
    mltype: str
    config: Json
    parameters: Json
    source: Json | None = None


def read(parts: Parts, account: Account, body: Json) -> Loaded[Wanted]:
    """What a creation request wants, with what `from_repository` adds to it.

    Raises MlError for a wrong option; BadParameter, RepositoryUnusable when there is nothing to publish from.
    """
    loaded = read_service(body)
    request = loaded.value
    source, config = None, body
    if request.from_repository:
        source, defaults = _source(parts, account, request)
        # What stands in the parameters beside the sections stays: it is warned of.
        parameters = merge(defaults, {**(body.get("parameters") or {}), **request.parameters})
        config = {**body, "parameters": without_db(parameters)}
    try:
        service = load_service(config)
    except MlError as error:
        is_told_later = isinstance(error, BadParameter) and error.section in SECTIONS
        if not request.model.init or not is_told_later:
            raise
        # The parameters come from the archive; those of the request need not be enough.
        return Loaded(Wanted(request, "", config, finite(request.parameters)), loaded.warnings)
    options = service.value
    return Loaded(Wanted(request, options.mltype, config, finite(options.parameters), source), service.warnings)


def published_parameters(parameters: Mapping[str, Any], *, of_training: bool = False) -> Json:
    """Parameters of a service, or of a training, as those of a service with a copy of the model."""
    kept: Json = {}
    for name in SECTIONS:
        left_out = {*_ONCE.get(name, ()), *(_TRAINING[name] if of_training else ())}
        kept[name] = {key: value for key, value in (parameters.get(name) or {}).items() if key not in left_out}
    crop = kept["mllib"].pop("crop_size", None)
    if crop:  # the network was trained on images of this size
        kept["input"] |= {"width": crop, "height": crop}
    return without_db(kept)


def _source(parts: Parts, account: Account, request: ServiceRequest) -> tuple[Json, Json]:
    """What the worker copies from, and the parameters that the model was trained with."""
    name = request.from_repository
    try:
        location = repositories.location_of(parts, account, name)
        parts.records.repositories.check_free(account.id, location)
    except RepositoryUnusable as error:
        raise _no_source(f"cannot be used: {error}") from None
    own = repositories.location_of(parts, account, request.model.repository)
    if location == own:
        raise _no_source("is the repository of the service itself; name another one")
    repository = parts.records.repositories.found_at(account.id, location)
    version = None if repository is None else _newest(parts, repository)
    if repository is not None and version is not None:
        _check_engine(name, version, request.library)
        parameters = parts.records.tasks.spec(version.task_id).get("parameters") or {}
        return {"repository_id": repository.id}, published_parameters(parameters, of_training=True)
    endings = libraries()[request.library].files
    folder = Path(location)
    if not location.startswith("/") or not any(is_model(each, endings) for each in repository_folder.look(folder)):
        raise _no_source(f"is {name[:200]!r}, which holds no model of {request.library}; train in it first")
    given = {"folder": location} if repository is None else {"repository_id": repository.id}
    return given, published_parameters(_kept_parameters(folder))


def _no_source(text: str) -> BadParameter:
    name = "parameters.mllib.from_repository"
    return BadParameter(name=name, section="mllib", message=f"{name} {text}")


def _kept_parameters(folder: Path) -> Json:
    """The parameters in a folder's config.json, in whatever form a server wrote them."""
    data = repository_folder.read_bytes(folder, CONFIG, _CONFIG_BYTES)
    try:
        kept = json.loads(data or b"null")
        parameters = kept.get("parameters") if isinstance(kept, dict) else None
    except (ValueError, RecursionError):
        return {}
    found: Json = {}
    for name in SECTIONS:
        section = parameters.get(name) if isinstance(parameters, dict) else None
        if isinstance(section, list) and len(section) == 1:  # as servers of 2021 wrote it
            section = section[0]
        found[name] = section if isinstance(section, dict) else {}
    return found


# A repository that is to hold the model


def check_library(parts: Parts, repository: Repository, library: str) -> None:
    """Raises RepositoryUnusable when models of another kind of library belong to a repository: it has one newest."""
    version = _newest(parts, repository)
    if version is not None:
        _check_engine(repository.name, version, library)
    for user in parts.records.services.users_of(repository.id):
        if libraries()[user.mllib].engine != libraries()[library].engine:
            raise RepositoryUnusable(
                f"the repository {repository.name} belongs to service {user.name!r} of {user.mllib}, "
                f"and predictions use its newest version; give the service of {library} another one"
            )


def _check_engine(name: str, version: Version, library: str) -> None:
    backend = version.description.get("backend", library)
    found = libraries().get(backend)
    if found is None or found.engine != libraries()[library].engine:
        raise RepositoryUnusable(
            f"the repository {name} holds a model of {backend}, the service is one of {library}; name another "
            "repository, or delete a service that uses this one with clear=lib"
        )


def check_archive(parts: Parts, account: Account, init: str) -> None:
    """Raises BadParameter when the archive that `model.init` names lies where the account may not read.

    What is to be fetched, and whether it is an archive, is for the worker to see.
    """
    if init.startswith(("http://", "https://")):
        return
    try:
        parts.records.repositories.check_readable(account.id, str(parts.data_roots.resolve(init)))
    except (OutsideDataRoots, RepositoryUnusable) as error:
        raise BadParameter(name="model.init", section="model", message=f"model.init: {error}") from None


def check_weights(parts: Parts, account: Account, repository: Repository, weights: str) -> str:
    """Where the file that `model.weights` names lies: a path, or its name in the repository's folder.

    Raises BadParameter.
    """
    if "/" in weights:
        try:
            path = parts.data_roots.resolve(weights)
            parts.records.repositories.check_readable(account.id, str(path))
        except (OutsideDataRoots, RepositoryUnusable) as error:
            raise _no_weights(str(error)) from None
        if path.name not in repository_folder.look(path.parent):
            raise _no_weights(f"{weights[:200]!r} is no file that lies there")
        return str(path)
    folder = repositories.folder_of(parts, repository)
    if folder is None or weights not in repository_folder.look(folder):
        raise _no_weights(
            f"{weights[:200]!r} is no file of the repository {repository.name}; give the path of a file in a data root"
        )
    return weights


def _no_weights(text: str) -> BadParameter:
    return BadParameter(name="model.weights", section="model", message=f"model.weights: {text}")


def holds_something_new(parts: Parts, repository: Repository, library: str) -> bool:
    """Whether a repository's folder may hold a model that is not its newest version; the worker looks more closely."""
    folder = repositories.folder_of(parts, repository)
    if folder is None:
        return False
    version = _newest(parts, repository)
    exported = parts.records.repositories.get(repository.id).exported_version
    if version is not None and exported < version.number:
        return False  # about to be written: what lies there is no sign of anything
    endings = libraries()[library].files
    known = {} if version is None else {each.name: each.sha256 for each in version.artifacts}
    found = repository_folder.compare(folder, known, lambda name: belongs(name, endings), thoroughly=False)
    has_model = any(is_model(name, endings) for name in found.present)
    return has_model and (version is None or bool(found.changed or found.removed))


def _newest(parts: Parts, repository: Repository) -> Version | None:
    try:
        return parts.records.versions.newest(repository.id)
    except VersionNotFound:
        return None
