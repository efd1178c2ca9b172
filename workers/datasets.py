"""Files of data sets as workers read them: those that were there when the request came, from the local cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ml.errors import BadInput
from storage.dataset_names import SCHEME, split_address
from storage.objects.manifest import Manifest, ManifestFile
from storage.records import DatasetFile
from workers.parts import Parts

Json = dict[str, Any]

Fetched = Mapping[str, list[Json]]
"""The local files of each entry of `data` that names a data set, as {"path", "name"}."""


Named = Mapping[str, list[DatasetFile]]
"""What each entry of `data` that names a data set stands for."""


@contextmanager
def fetched(parts: Parts, pins: Mapping[str, Sequence[int]], data: Sequence[str]) -> Iterator[Fetched]:
    """The files of all entries that begin with dataset://, here until the block ends.

    pins : number and state of each data set by name, as they were found when the request was accepted.
    Raises BadInput for what is gone; ArtifactNotFound, ChecksumMismatch, StoreUnavailable, StorageFull.
    """
    with held(parts, named(parts, pins, data)) as files:
        yield files


def named(parts: Parts, pins: Mapping[str, Sequence[int]], data: Sequence[str]) -> Named:
    """The files of all entries that begin with dataset://, as the records know them. Raises BadInput."""
    return {entry: _files(parts, pins, entry) for entry in data if entry.startswith(SCHEME)} if pins else {}


@contextmanager
def held(parts: Parts, wanted: Named) -> Iterator[Fetched]:
    """Named files, here until the block ends; raises as `fetched` does."""
    if not wanted:
        yield {}
        return
    # Numbered, so that the folders of two data sets do not get into each other's way.
    names = {entry: [f"{number}/{each.path}" for each in files] for number, (entry, files) in enumerate(wanted.items())}
    manifest = Manifest(
        tuple(
            ManifestFile(name, each.key, each.size_bytes, each.sha256)
            for entry, files in wanted.items()
            for name, each in zip(names[entry], files, strict=True)
        )
    )
    with parts.cache.folder(parts.objects, manifest) as folder:
        yield {
            entry: [
                {"path": str(folder / name), "name": f"{SCHEME}{split_address(entry)[0]}/{each.path}"}
                for name, each in zip(names[entry], files, strict=True)
            ]
            for entry, files in wanted.items()
        }


def _files(parts: Parts, pins: Mapping[str, Sequence[int]], entry: str) -> list[DatasetFile]:
    name, path = split_address(entry)
    files = []
    if name in pins:
        dataset_id, revision = pins[name]
        files = parts.records.datasets.files_at(dataset_id, revision, path)
    if not files:
        raise BadInput(f"missing data: {entry[:200]} was deleted")
    return files
