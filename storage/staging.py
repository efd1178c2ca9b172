"""Files on their way into a data set: whatever goes wrong, none of them is left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from storage.errors import StorageError
from storage.objects.base import Objects
from storage.records import NewFile, Records

_log = logging.getLogger(__name__)


@contextmanager
def staging(
    records: Records, objects: Objects, dataset_id: int, new: Sequence[NewFile], upload_id: int | None = None
) -> Iterator[list[int]]:
    """Note files, which the block then stores and commits by the numbers that it gets; what it does not is deleted.

    upload_id : the upload that they come from. Raises StoredQuota, DatasetConflict, DatasetFull before the block.
    """
    staged = records.datasets.stage(dataset_id, new, upload_id)
    is_whole = False
    try:
        yield staged
        is_whole = True
    finally:
        if not is_whole:
            _drop(records, objects, staged)


def _drop(records: Records, objects: Objects, staged: Sequence[int]) -> None:
    try:
        left = records.datasets.uncommitted(staged)
        objects.delete([key for _, key in left])
        records.datasets.forget_files([number for number, _ in left])
    except StorageError as error:
        # They count as stored until then.
        _log.warning("files that came into no data set are left to the cleaning: %s", error)
