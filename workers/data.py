"""From the `data` entries of a request to what a connector can read on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import orjson

from ml.connectors.source import LinesSource, Source, from_json
from ml.errors import BadInput
from ml.opening import open_unlinked
from storage.data_roots import DataRoots
from storage.dataset_names import SCHEME
from storage.objects.base import Objects
from storage.remote_address import REMOTE
from workers.datasets import Fetched
from workers.fetching import Fetch

# Also what no data begins with, so that a wrong address is not taken for a line.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s,;]*")
_LISTED_BYTES = 2**30
_NOTHING: Fetched = {}

Json = dict[str, Any]


def entries(spec: Json, objects: Objects) -> list[str]:
    """The entries of a specification, fetched from the object store when they were too bulky for the record."""
    if "data_key" in spec:
        found: list[str] = orjson.loads(_stored(spec, objects))
        return found
    return list(spec["data"])


def encoded(spec: Json, objects: Objects) -> bytes:
    """The entries that a specification left in the object store, as an array of JSON without blanks."""
    stored = _stored(spec, objects)
    # The API of before wrote blanks between them. In texts this stands for a quote and what follows it: seldom.
    return orjson.dumps(orjson.loads(stored)) if b'", "' in stored else stored


def _stored(spec: Json, objects: Objects) -> bytes:
    return objects.get_bytes(spec["data_key"], limit_bytes=_LISTED_BYTES)


def sources(
    data: list[str],
    roots: DataRoots,
    *,
    fetch: Fetch | None = None,
    fetched: Fetched = _NOTHING,
    with_folders: bool = False,
    for_training: bool = False,
) -> list[Json]:
    """Each file entry as {"path", "name", "resolved"}, lines in memory together as one {"lines"}, as
    `ml.connectors.source` reads them. The first entry says which it is.

    fetch : what brings the files of other hosts here; None to refuse them.
    for_training : whether one word that ends as files do is a path also where there is none.
    with_folders : whether a folder stands for the files in it, by name, but for those whose names begin with a dot.
    fetched : the local files of entries that name data sets.
    Raises BadInput for entries that mix both or that name a place which cannot be read, OutsideDataRoots for paths that
    lead out of the data roots, and what `fetch` raises.
    """
    if not data:
        return []

    is_path = roots.is_meant_as_file if for_training else roots.looks_like_path

    def lies_elsewhere(entry: str) -> bool:
        return entry in fetched or entry.startswith(REMOTE)

    # Only the first line is looked up in the data roots: there may be millions.
    if not lies_elsewhere(data[0]) and not is_path(data[0]):
        _check_no_address(data[0])
        return [{"lines": data}]
    remote = list(dict.fromkeys(entry for entry in data if entry.startswith(REMOTE)))
    for entry in data:
        if not lies_elsewhere(entry) and not roots.is_meant_as_file(entry):
            _check_no_address(entry)
            raise BadInput(
                f"data holds both paths and lines: {data[0][:80]!r} is meant as a file, and no data root has a file "
                f"{entry[:80]!r}; send one or the other"
            )
    # Paths first: whoever names one that may not be read need not have anything fetched.
    found = {entry: _local(entry, roots, with_folders) for entry in data if not lies_elsewhere(entry)}
    found |= {entry: fetched[entry] for entry in data if entry in fetched}
    if remote:
        if fetch is None:
            raise BadInput("data cannot be read from other hosts here")
        found |= dict(zip(remote, fetch(remote, with_folders), strict=True))
    return [each for entry in data for each in found[entry]]


def _local(entry: str, roots: DataRoots, with_folders: bool) -> list[Json]:
    place = roots.resolve(entry)
    if missing := roots.missing(entry, place):
        raise BadInput(missing)
    found = {"path": str(place), "name": entry, "resolved": True}
    return _files(found) if with_folders else [found]


def _check_no_address(line: str) -> None:
    if _ADDRESS.fullmatch(line):
        raise BadInput(
            f"data cannot be read from {line[:200]!r}; give the path of a file in a data root, an address that begins "
            f"with {', '.join((*REMOTE, SCHEME))}, or the lines themselves"
        )


def inline(
    encoded: bytes, roots: DataRoots, *, fetch: Fetch | None = None, fetched: Fetched = _NOTHING
) -> list[Source]:
    """The sources of entries that came with a request, as an array of JSON without blanks; raises as `sources` does."""
    if encoded[:2] == b'["' and b"/" not in encoded and b"\\" not in encoded:
        # No address, and no path but for the name of a file: whether the first is one decides about all.
        first = encoded[2 : encoded.index(b'"', 2)].decode()
        if not roots.looks_like_path(first):
            return [LinesSource(encoded=encoded)]
    return [from_json(each) for each in sources(orjson.loads(encoded), roots, fetch=fetch, fetched=fetched)]


def _files(entry: Json) -> list[Json]:
    """An entry itself, or the files of the folder that it names. Raises BadInput for a folder without any."""
    folder = Path(entry["path"])
    try:
        if not folder.is_dir():
            return [entry]
        names = _names(folder)
    except OSError as error:
        raise BadInput(
            f"the folder {entry['name']} cannot be read: {(error.strerror or 'unknown error').lower()}"
        ) from None
    if not names:
        raise BadInput(f"the folder {entry['name']} holds no files")
    return [{**entry, "path": str(folder / name), "name": f"{entry['name'].rstrip('/')}/{name}"} for name in names]


def _names(folder: Path) -> list[str]:
    """The files in a folder on whose path there is no link; those that begin with a dot are left out. Raises OSError.

    A link among them may lead anywhere; who wants its target names it.
    """
    opened = open_unlinked(folder)
    try:
        with os.scandir(opened) as entries:
            return sorted(
                each.name for each in entries if each.is_file(follow_symlinks=False) and not each.name.startswith(".")
            )
    finally:
        os.close(opened)
