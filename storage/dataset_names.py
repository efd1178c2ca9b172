"""Names of data sets and of the files in them, and the addresses that are made of both: dataset://NAME/PATH."""

from __future__ import annotations

from storage.errors import BadArtifactKey, BadDatasetName
from storage.objects.base import check_key

SCHEME = "dataset://"
NAME_LIMIT = 255


def check_name(name: str) -> str:
    """The name under which a data set is kept: upper and lower case are the same. Raises BadDatasetName."""
    name = name.lower()
    if not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise BadDatasetName(f"a data set name has 1 to {NAME_LIMIT} printable characters")
    if "/" in name or "\\" in name or name in {".", ".."}:
        raise BadDatasetName(f"{name!r} cannot be the name of a data set: it has a slash, or is '.' or '..'")
    return name


def check_path(path: str) -> str:
    """Return `path` if a file of a data set can have it: relative, without '..', hidden files or odd characters.

    Raises BadDatasetName.
    """
    try:
        check_key(path)
    except BadArtifactKey as error:
        raise BadDatasetName(str(error).replace("artifact key", "the path", 1)) from None
    if any(part.startswith(".") for part in path.split("/")):
        raise BadDatasetName(f"the path {path[:100]!r} must not have a part that begins with a dot")
    return path


def split_address(address: str) -> tuple[str, str]:
    """Name and path of dataset://NAME/PATH; the path is empty when all of the data set is meant.

    Raises BadDatasetName.
    """
    name, _, path = address.removeprefix(SCHEME).partition("/")
    path = path.rstrip("/")
    return check_name(name), check_path(path) if path else ""
