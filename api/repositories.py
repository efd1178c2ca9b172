"""Model repositories as requests name them: a folder inside a data root, or a place in the object store."""

from __future__ import annotations

import json
import re
from pathlib import Path

from api.answers import Json
from api.parts import Parts
from ml.json_text import finite
from storage import repository_folder
from storage.errors import OutsideDataRoots, RepositoryUnusable
from storage.records import Account, Repository

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,9}")


def location_of(parts: Parts, account: Account, name: str) -> str:
    """Where the repository that a request calls `name` lies, one text for one place.

    Raises RepositoryUnusable when it cannot be one.
    """
    if name.startswith("/"):
        try:
            return str(parts.data_roots.resolve(name))
        except OutsideDataRoots as error:
            raise RepositoryUnusable(
                f"destination model directory {name[:200]} is not writable or does not exist. ({error})"
            ) from None
    if not _NAME.fullmatch(name):
        raise RepositoryUnusable(
            f"destination model directory {name[:200]!r} is not writable or does not exist. (Give an absolute path "
            "inside a data root, or a name of letters, digits, '.', '_' and '-' that need be no folder.)"
        )
    return f"objects:{account.id}/{name}"


def check_usable(parts: Parts, account: Account, name: str, *, create: bool) -> str:
    """The location of a repository that the account may write; a missing folder is made when `create` is true.

    Raises RepositoryUnusable, StorageFull.
    """
    location = location_of(parts, account, name)
    parts.records.repositories.check_free(account.id, location)
    if location.startswith("/"):
        repository_folder.prepare(Path(location), create=create)
    return location


def folder_of(parts: Parts, repository: Repository) -> Path | None:
    """The folder of a repository, if it has one. Raises RepositoryUnusable when its path leads elsewhere by now."""
    return parts.data_roots.repository(repository.location) if repository.is_folder else None


def check_folder(folder: Path) -> None:
    """Raises RepositoryUnusable unless the folder exists and can be written."""
    repository_folder.prepare(folder, create=False)


def keep_request(folder: Path, name: str, request: Json) -> None:
    """Keep a request in a repository's folder, where people look for it.

    Raises RepositoryUnusable, StorageFull.
    """
    text = json.dumps(finite(request), ensure_ascii=False, indent=1)
    repository_folder.write_file(folder, name, text.encode("utf-8"))
