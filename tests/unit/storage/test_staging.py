"""Whatever ends the storing of files for a data set, what did not come in is gone at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from storage.errors import DatasetConflict, RecordsUnavailable, StorageFull, StoreUnavailable
from storage.objects.folder import FolderObjects
from storage.records import Dataset, NewFile, Records
from storage.staging import staging
from workers import cleaning

A = NewFile("a.csv", "datasets/1/a", 3, "digest")
B = NewFile("b.csv", "datasets/1/b", 3, "digest")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    made = Records.connect(f"sqlite:///{tmp_path / 'records.db'}")
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def dataset(records: Records) -> Dataset:
    return records.datasets.create(records.accounts.ensure("ann").id, "flowers")[0]


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def stored(objects: FolderObjects) -> list[str]:
    return sorted(each.key for each in objects.list())


def used(records: Records, dataset: Dataset) -> int:
    return records.quotas.use(dataset.account_id).stored_bytes


def store(
    records: Records, objects: FolderObjects, dataset: Dataset, file: NewFile, then: Callable[[list[int]], Any]
) -> None:
    """Store the first of two files, and go on with the numbers of both."""
    with staging(records, objects, dataset.id, [file, B]) as staged:
        objects.put_bytes(file.key, b"abc")
        then(staged)


def failing(error: BaseException) -> Callable[[list[int]], Any]:
    def fail(staged: list[int]) -> None:
        raise error

    return fail


def test_files_that_are_committed_stay(records: Records, dataset: Dataset, objects: FolderObjects) -> None:
    store(records, objects, dataset, A, lambda staged: records.datasets.commit(dataset.id, staged))
    assert (stored(objects), used(records, dataset)) == ([A.key], 6)


@pytest.mark.parametrize("error", [StorageFull("full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_files_that_were_stored_before_a_failure_go(
    records: Records, dataset: Dataset, objects: FolderObjects, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        store(records, objects, dataset, A, failing(error))
    assert (stored(objects), used(records, dataset)) == ([], 0)


def test_files_that_a_commit_refuses_go(records: Records, dataset: Dataset, objects: FolderObjects) -> None:
    def commit_after_another(staged: list[int]) -> None:
        records.datasets.commit(dataset.id, records.datasets.stage(dataset.id, [A]))
        records.datasets.commit(dataset.id, staged)

    below = NewFile("a.csv/c.csv", "datasets/1/c", 3, "digest")
    with pytest.raises(DatasetConflict):
        store(records, objects, dataset, below, commit_after_another)
    assert (stored(objects), used(records, dataset)) == ([], 3)


def test_files_whose_commit_only_lost_its_answer_stay(
    records: Records, dataset: Dataset, objects: FolderObjects
) -> None:
    def commit_and_lose(staged: list[int]) -> None:
        records.datasets.commit(dataset.id, staged)
        raise RecordsUnavailable("the connection broke")

    with pytest.raises(RecordsUnavailable):
        store(records, objects, dataset, A, commit_and_lose)
    assert (stored(objects), used(records, dataset)) == ([A.key], 6)


def test_files_that_cannot_be_deleted_count_as_stored(
    records: Records, dataset: Dataset, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(keys: list[str]) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(objects, "delete", refuse)
    with pytest.raises(ValueError, match="broken"):
        store(records, objects, dataset, A, failing(ValueError("broken")))
    assert (stored(objects), used(records, dataset)) == ([A.key], 6)
    assert [key for _, key in records.datasets.left_files({}, 0.0, -1.0)] == [A.key, B.key]


def test_what_a_slow_store_writes_late_is_cleaned(records: Records, dataset: Dataset, objects: FolderObjects) -> None:
    with pytest.raises(StoreUnavailable):
        store(records, objects, dataset, A, failing(StoreUnavailable("no answer")))
    assert (stored(objects), used(records, dataset)) == ([], 6)
    objects.put_bytes(B.key, b"abc")

    with records.database.write() as connection:
        connection.execute(text("UPDATE dataset_files SET removed_at = removed_at - 600"))
    parts: Any = SimpleNamespace(records=records, objects=objects)
    assert cleaning.clean(parts, left=[cleaning._clean_files]) == []
    assert (stored(objects), used(records, dataset)) == ([], 0)
