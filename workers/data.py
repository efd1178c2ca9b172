"""From the `data` entries of a request to what a connector can read on this machine."""

from __future__ import annotations

import json
from typing import Any

from ml.errors import BadInput
from storage.data_roots import DataRoots
from storage.objects.base import Objects

_REMOTE = ("s3://", "http://", "https://", "dataset://")
_LISTED_BYTES = 2**30

Json = dict[str, Any]


def entries(spec: Json, objects: Objects) -> list[str]:
    """The entries of a specification, fetched from the object store when they were too bulky for the record."""
    if "data_key" in spec:
        found: list[str] = json.loads(objects.get_bytes(spec["data_key"], limit_bytes=_LISTED_BYTES))
        return found
    return list(spec["data"])


def sources(data: list[str], roots: DataRoots) -> list[Json]:
    """Each file entry as {"path", "name"}; lines in memory together as one {"lines"}.

    Raises BadInput for entries that mix both or that name a place which cannot be read, OutsideDataRoots for paths that
    lead out of the data roots.
    """
    for entry in data:
        if entry.startswith(_REMOTE):
            raise BadInput(
                f"data cannot be read from {entry[:200]!r}; "
                "give the path of a file in a data root or the lines themselves"
            )
    are_paths = [roots.looks_like_path(entry) for entry in data]
    if not any(are_paths):
        return [{"lines": data}] if data else []
    if not all(are_paths):
        lines = next(entry for entry, is_path in zip(data, are_paths, strict=True) if not is_path)
        raise BadInput(f"data holds both paths and lines, e.g. {lines[:80]!r}; send one or the other")
    return [{"path": str(roots.resolve(entry)), "name": entry} for entry in data]
