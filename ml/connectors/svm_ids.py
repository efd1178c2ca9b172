"""Which features there are: the ids of svm data in increasing order, and the column of each.

Memory follows the number of different ids, never the largest one: small ids are looked up in a table, others searched.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ml.errors import BadInput

#: Ids below this are looked up, in tables of a bit and four bytes for each.
_TABLE = 2**22
#: Most features of a table.
FEATURES_MOST = 2**26


class Gathering:
    """Collects the different ids of data that comes in pieces. `name` is how messages call the data."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._small = np.zeros(0, bool)
        self._large: list[np.ndarray] = []
        self._kept = self._pending = 0

    def add(self, ids: np.ndarray) -> None:
        """Count ids in, int64, in any order. Raises BadInput when there are too many different ones."""
        if len(ids) == 0:
            return
        highest = int(ids.max())
        if highest < _TABLE:
            small = ids
        else:
            small, large = ids[ids < _TABLE], np.unique(ids[ids >= _TABLE])
            self._large.append(large)
            self._pending += len(large)
            # Now and then, so that all merging together costs about as much as one.
            if self._pending > max(2**20, self._kept):
                self._merge()
        if len(small):
            room = min(highest, _TABLE - 1) + 1
            if room > len(self._small):
                grown = np.zeros(min(_TABLE, 2 * room), bool)
                grown[: len(self._small)] = self._small
                self._small = grown
            self._small[small] = True

    def _merge(self) -> None:
        if self._large:
            self._large = [np.unique(np.concatenate(self._large))]
            self._kept, self._pending = len(self._large[0]), 0
        if self._kept > FEATURES_MOST:
            raise BadInput(f"{self._name} holds more than {FEATURES_MOST} different features; at most so many are used")

    def finish(self) -> np.ndarray:
        """The different ids, increasing, int64."""
        self._merge()
        return np.concatenate([np.flatnonzero(self._small), *self._large]).astype(np.int64)


class Columns:
    """Finds the column of an id: its position among `ids`, which increase."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids
        count = int(np.searchsorted(ids, _TABLE))
        self._table = np.full(int(ids[count - 1]) + 1 if count else 0, -1, np.int32)
        self._table[ids[:count]] = np.arange(count, dtype=np.int32)
        self._has_more = count < len(ids)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Columns, int32, of some ids, int64; -1 for those that are not there."""
        if len(ids) == 0 or (not self._has_more and int(ids.max()) < len(self._table)):
            return self._table[ids]
        made = np.full(len(ids), -1, np.int32)
        is_small = ids < len(self._table)
        made[is_small] = self._table[ids[is_small]]
        if self._has_more:
            others = np.flatnonzero(ids >= _TABLE)
            places = np.minimum(np.searchsorted(self._ids, ids[others]), len(self._ids) - 1)
            is_known = self._ids[places] == ids[others]
            made[others[is_known]] = places[is_known]
        return made


def packed(ids: np.ndarray) -> dict[str, Any]:
    """Increasing ids as a short JSON object: their number, and their differences, compressed."""
    gaps = np.diff(ids, prepend=0).astype("<i8")
    return {"count": len(ids), "gaps": base64.b64encode(zlib.compress(gaps.tobytes(), 9)).decode()}


def unpacked(given: Mapping[str, Any]) -> np.ndarray:
    """The ids that `packed` was given. Raises TypeError for anything else."""
    try:
        count = given["count"]
        if type(count) is not int or not 0 < count <= FEATURES_MOST:
            raise ValueError(f"{count} features")
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(given["gaps"], validate=True), 8 * count)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise TypeError("these are no features of a training") from error
    if len(data) != 8 * count or unpacking.unconsumed_tail:
        raise TypeError("these are no features of a training")
    gaps = np.frombuffer(data, "<i8")
    ids = np.cumsum(gaps, dtype=np.int64)
    if gaps[0] < 0 or np.any(gaps[1:] <= 0) or np.any(ids < 0):
        raise TypeError("these are no features of a training")
    return ids
