"""Files on their way into a data set: whatever goes wrong, none of them is left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from storage.errors import StorageError, StoreUnavailable
from storage.objects.base import Objects
from storage.records import NewFile, Records

_log = logging.getLogger(__name__)


@contextmanager
def staging(
    records: Records, objects: Objects, dataset_id: int, new: Sequence[NewFile], upload_id: int | None = None
) -> Iterator[list[int]]:
    """Note files, which the block then stores and commits by the numbers that it gets; what it does not is deleted.

    While the store does not answer it is left to the cleaning, and counts as stored until then.

    upload_id : the upload that they come from. Raises StoredQuota, DatasetConflict, DatasetFull before the block.
    """
    staged = records.datasets.stage(dataset_id, new, upload_id)
    is_whole = may_come_late = False
    try:
        yield staged
        is_whole = True
    except StoreUnavailable:
        may_come_late = True
        raise
    finally:
        if not is_whole:
            _drop(records, objects, new, staged, may_come_late)


def _drop(
    records: Records, objects: Objects, new: Sequence[NewFile], staged: Sequence[int], may_come_late: bool
) -> None:
    try:
        if not records.datasets.give_up(staged):
            return
        objects.delete([each.key for each in new])
        # What a store did not answer to may be written yet, and only a row has the cleaning look for it.
        if not may_come_late:
            records.datasets.forget_files(staged)
    except StorageError as error:
        # They count as stored until then.
        _log.warning("files that came into no data set are left to the cleaning: %s", error)
