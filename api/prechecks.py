"""Looks at the data of a training before it is accepted, as far as that takes no time.

Of files in data roots, and in data sets, the beginning is looked at; other hosts are asked whether they have theirs,
and for its beginning if they offer parts of it. What cannot be told here is left to the worker.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from api import reach
from api.answers import Json
from api.parts import Parts
from ml.csv_first_rows import check_first_rows
from ml.csv_head import Bytes, CsvHead, feature_columns
from ml.errors import BadInput
from ml.file_bytes import FileBytes
from ml.options.csv import CsvOptions
from ml.options.target import Target
from ml.svm_labels import check_first_lines
from storage.dataset_names import SCHEME, split_address
from storage.errors import StorageError
from storage.records import DatasetFile
from storage.remote_address import REMOTE, shown

_LOOKED_AT = 16
BYTES_MOST = 2**20
# A store that does not answer holds a thread for minutes: it may hold some of them only.
_ASKING_STORE = BoundedSemaphore(4)


def check(parts: Parts, options: Any, target: Target, entries: Sequence[str], pins: Json) -> None:
    """Raises BadInput for data that no training can be made of.

    options : of the input connector. target : of the training. entries : the training set and the test sets.
    pins : number and state of each data set that they name.
    """
    wanted = "a CSV file" if isinstance(options, CsvOptions) else "an svm file"
    if not entries[0].startswith(REMOTE) and not _is_file(parts, entries[0]):
        return  # lines, which came whole
    for place, entry in enumerate(dict.fromkeys(entries[:_LOOKED_AT])):
        if not _is_file(parts, entry):
            continue
        # Who answers may see less than who trains, and the store may be away; then it is told later.
        with suppress(StorageError, _TooFar):
            content = _opened(parts, entry, pins, wanted)
            if content is None:
                continue
            with closing(content):
                _check_content(_Beginning(content), entry, options, target if place == 0 else None)

    def judge(entry: str, beginning: bytes, size: int) -> None:
        check_beginning(beginning, size, shown(entry), options, target if entry == entries[0] else None)

    reach.check(
        parts.settings, [entry for entry in entries[:_LOOKED_AT] if entry.startswith(REMOTE)], BYTES_MOST, judge
    )


def check_beginning(beginning: bytes, size: int, name: str, options: Any, target: Target | None) -> None:
    """Raises BadInput for the first BYTES_MOST bytes of a file, or all of a smaller one, if no training is made of it.

    size : of the whole file. name : how messages call it. target : None for a test set.
    """
    with suppress(_TooFar):
        _check_content(_Beginning(_Came(beginning, size)), name, options, target)


def _is_file(parts: Parts, entry: str) -> bool:
    return not entry.startswith(REMOTE) and (entry.startswith(SCHEME) or parts.data_roots.is_meant_as_file(entry))


def _opened(parts: Parts, entry: str, pins: Json, wanted: str) -> Bytes | None:
    if not entry.startswith(SCHEME):
        path = parts.data_roots.resolve(entry)
        if not _may_read(path):
            return None
        missing = parts.data_roots.missing(entry, path)
        if missing and any(root.is_dir() for root in parts.data_roots.roots):  # else the data are at the workers only
            raise BadInput(missing)
        return FileBytes(path, entry, wanted, is_resolved=True)
    name, path_inside = split_address(entry)
    dataset_id, revision = pins[name]
    [file] = parts.records.datasets.files_at(dataset_id, revision, path_inside)
    return _Stored(parts, file)


def _may_read(path: Path) -> bool:
    """Whether what lies there can be looked at from here; true of what does not exist, which is told."""
    try:
        path.lstat()
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(path, os.R_OK)


def _check_content(content: Bytes, name: str, options: Any, target: Target | None) -> None:
    """target : None for a test set, whose columns and labels are compared with those of the training set."""
    if content.size == 0:
        raise BadInput(f"missing data: {name} is empty")
    if not isinstance(options, CsvOptions):
        if target is not None:
            check_first_lines(content, name, options.label_offset[0], target)
        return
    head = CsvHead(content, name, options.separator[0], options.quote[:1])
    columns = head.header()
    if target is not None:
        feature_columns(columns, name, head.separator_hint(), options)
    if head.is_all:
        raise BadInput(f"missing data: {name} has a header line but no rows")
    if target is not None:
        check_first_rows(head, columns, options, target)


class _TooFar(Exception):
    """What is wrong, if anything is, cannot be told from the beginning of the file."""


class _Beginning:
    """The first bytes of a file: a header without end must not be read to its end here."""

    def __init__(self, content: Bytes) -> None:
        self._content = content
        self.size = content.size

    def read(self, position: int, count: int) -> bytes:
        if min(position + count, self.size) > BYTES_MOST:
            raise _TooFar
        return self._content.read(position, count)

    def close(self) -> None:
        self._content.close()


class _Came:
    """The bytes of a file of which the beginning has come from another host."""

    def __init__(self, beginning: bytes, size: int) -> None:
        self._beginning = beginning
        self.size = size

    def read(self, position: int, count: int) -> bytes:
        return self._beginning[position : position + count]

    def close(self) -> None:
        """Nothing is held."""


class _Stored:
    """The bytes of a file in the object store, of which only a few are read."""

    def __init__(self, parts: Parts, file: DatasetFile) -> None:
        self._objects = parts.objects
        self._key = file.key
        self.size = file.size_bytes

    def read(self, position: int, count: int) -> bytes:
        if not _ASKING_STORE.acquire(blocking=False):
            raise _TooFar
        try:
            with closing(self._objects.open(self._key, position)) as content:
                found = bytearray()
                while len(found) < count and (piece := content.read(count - len(found))):
                    found += piece
        finally:
            _ASKING_STORE.release()
        return bytes(found)

    def close(self) -> None:
        """Nothing is held."""
