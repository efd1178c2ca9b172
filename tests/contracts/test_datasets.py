"""The records of data sets keep their promises on every database they run on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from storage.errors import (
    DatasetConflict,
    DatasetFileNotFound,
    DatasetFull,
    DatasetNotFound,
    StoreUnavailable,
    UploadNotFound,
)
from storage.records import Dataset, Kind, NewFile, Part, Records
from storage.records import datasets as module


@pytest.fixture
def dataset(records: Records) -> Dataset:
    return make(records)


def make(records: Records, name: str = "iris", account: str = "local") -> Dataset:
    return records.datasets.create(records.accounts.ensure(account).id, name)[0]


def new(path: str, content: str = "a") -> NewFile:
    return NewFile(path, f"datasets/{path}/{content}/{threading.get_ident()}", len(content), f"{content}-digest")


def add(records: Records, dataset: Dataset, *files: NewFile) -> int:
    return records.datasets.commit(dataset.id, records.datasets.stage(dataset.id, files))


def held(records: Records, dataset: Dataset, revision: int, path: str = "") -> dict[str, str]:
    return {each.path: each.sha256 for each in records.datasets.files_at(dataset.id, revision, path)}


def test_every_state_can_still_be_read(records: Records, dataset: Dataset) -> None:
    assert add(records, dataset, new("a.csv"), new("b/c.csv")) == 1
    assert add(records, dataset, new("a.csv", "b"), new("b/d.csv")) == 2
    assert records.datasets.remove_file(dataset.id, "b/c.csv") == 3
    assert held(records, dataset, 0) == {}
    assert held(records, dataset, 1) == {"a.csv": "a-digest", "b/c.csv": "a-digest"}
    assert held(records, dataset, 2) == {"a.csv": "b-digest", "b/c.csv": "a-digest", "b/d.csv": "a-digest"}
    assert held(records, dataset, 3) == {"a.csv": "b-digest", "b/d.csv": "a-digest"}
    assert list(held(records, dataset, 2, "b")) == ["b/c.csv", "b/d.csv"]
    assert list(held(records, dataset, 2, "a.csv")) == ["a.csv"]
    assert held(records, dataset, 2, "a") == {}
    records.datasets.delete(dataset.id)
    assert list(held(records, dataset, 3)) == ["a.csv", "b/d.csv"]
    assert held(records, dataset, 4) == {}
    for change in (
        lambda: records.datasets.find(dataset.account_id, "iris"),
        lambda: records.datasets.delete(dataset.id),
        lambda: add(records, dataset, new("x.csv")),
        lambda: records.datasets.remove_file(dataset.id, "a.csv"),
        lambda: records.uploads.add(dataset.id, "x.csv", size_bytes=1, part_bytes=4),
    ):
        with pytest.raises(DatasetNotFound, match="'iris' does not exist"):
            change()


def test_what_is_staged_is_not_seen_before_it_is_committed(records: Records, dataset: Dataset) -> None:
    records.datasets.stage(dataset.id, [new("a.csv")])
    found = records.datasets.find(dataset.account_id, "iris")
    assert (found.revision, found.file_count, found.size_bytes) == (0, 0, 0)
    assert records.datasets.files(dataset.id, limit=10) == []
    assert [key for _, key in records.datasets.left_files({}, 0.0, -1.0)] == [new("a.csv").key]


def test_file_cannot_lie_below_a_file(records: Records, dataset: Dataset) -> None:
    add(records, dataset, new("a/b.csv"))
    for wrong in ([new("a")], [new("a/b.csv/c")], [new("x"), new("x/y")]):
        with pytest.raises(DatasetConflict):
            records.datasets.stage(dataset.id, wrong)
    assert records.datasets.left_files({}, 0.0, -1.0) == [], "nothing of it may be stored"
    with pytest.raises(DatasetFileNotFound):
        records.datasets.remove_file(dataset.id, "a")
    assert records.datasets.find(dataset.account_id, "iris").revision == 1


def test_of_two_files_on_their_way_that_exclude_each_other_the_first_comes_in(
    records: Records, dataset: Dataset
) -> None:
    first, second = (records.datasets.stage(dataset.id, [new(path)]) for path in ("a/b.csv", "a"))
    records.datasets.commit(dataset.id, first)
    with pytest.raises(DatasetConflict):
        records.datasets.commit(dataset.id, second)


def test_files_that_were_cleaned_on_their_way_do_not_come_in_as_fewer(records: Records, dataset: Dataset) -> None:
    staged = records.datasets.stage(dataset.id, [new("a.csv"), new("b.csv")])
    records.datasets.forget_files(staged[:1])
    with pytest.raises(StoreUnavailable, match="cleaned away"):
        records.datasets.commit(dataset.id, staged)
    assert records.datasets.find(dataset.account_id, "iris").revision == 0


def make_older(records: Records, column: str, seconds: float) -> None:
    with records.database.write() as connection:
        connection.execute(text(f"UPDATE dataset_files SET {column} = {column} - {seconds}"))


def test_files_that_were_given_up_are_cleaned_soon_and_never_come_in(records: Records, dataset: Dataset) -> None:
    def left() -> list[int]:
        return [number for number, _ in records.datasets.left_files({}, 3600.0, 86400.0)]

    staged = records.datasets.stage(dataset.id, [new("a.csv"), new("b.csv")])
    make_older(records, "created_at", 600.0)
    assert left() == []
    assert records.datasets.give_up(staged)
    assert left() == [], "the store may still be writing"
    make_older(records, "removed_at", 600.0)
    assert sorted(left()) == sorted(staged)
    with pytest.raises(StoreUnavailable):
        records.datasets.commit(dataset.id, staged)
    assert records.datasets.find(dataset.account_id, "iris").revision == 0
    records.datasets.forget_files(staged)
    assert records.datasets.give_up(staged), "it was cleaned meanwhile, but what comes late is still to be deleted"


def test_files_that_came_in_are_not_given_up(records: Records, dataset: Dataset) -> None:
    staged = records.datasets.stage(dataset.id, [new("a.csv")])
    records.datasets.commit(dataset.id, staged)
    assert not records.datasets.give_up(staged)
    assert records.datasets.left_files({}, -1.0, -1.0) == []


def test_files_come_in_only_long_before_they_would_be_cleaned(records: Records, dataset: Dataset) -> None:
    staged = records.datasets.stage(dataset.id, [new("a.csv")])
    make_older(records, "created_at", 19 * 3600.0)
    late = records.datasets.stage(dataset.id, [new("b.csv")])
    make_older(records, "created_at", 2 * 3600.0)
    with pytest.raises(StoreUnavailable, match="send them again"):
        records.datasets.commit(dataset.id, staged)
    records.datasets.commit(dataset.id, late)
    assert [each.path for each in records.datasets.files(dataset.id, limit=2)] == ["b.csv"]


def test_data_set_holds_only_so_many_files(records: Records, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_MOST", 3)
    add(records, dataset, new("a"), new("b"))
    add(records, dataset, new("a", "b"), new("c"))
    with pytest.raises(DatasetFull, match="at most 3"):
        add(records, dataset, new("d"))


def test_many_files_come_at_once(records: Records, dataset: Dataset) -> None:
    files = [new(f"{number:04}.csv") for number in range(1200)]
    add(records, dataset, *files)
    add(records, dataset, *(new(each.path, "bb") for each in files))
    found = records.datasets.find(dataset.account_id, "iris")
    assert (found.file_count, found.size_bytes) == (1200, 2400)
    assert type(found.size_bytes) is int, "it goes into JSON"
    page = records.datasets.files(dataset.id, limit=2, after="0009.csv")
    assert [each.path for each in page] == ["0010.csv", "0011.csv"]


def test_changes_at_one_moment_each_make_a_state(records: Records, dataset: Dataset) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda each: add(records, dataset, new("a.csv", f"{each}")), range(8)))
    assert sorted(numbers) == list(range(1, 9))
    assert all(len(held(records, dataset, number)) == 1 for number in numbers)
    assert records.datasets.find(dataset.account_id, "iris").file_count == 1


def test_name_is_free_for_each_account_and_after_a_deletion(records: Records, dataset: Dataset) -> None:
    again, is_new = records.datasets.create(dataset.account_id, "iris")
    assert (again, is_new) == (dataset, False)
    others = make(records, account="else")
    assert others.id != dataset.id
    records.datasets.delete(dataset.id)
    assert make(records).id not in (dataset.id, others.id)
    assert [each.name for each in records.datasets.page(others.account_id, limit=5)] == ["iris"]


def test_files_are_left_when_no_task_needs_them(records: Records, dataset: Dataset) -> None:
    add(records, dataset, new("a.csv"))
    add(records, dataset, new("a.csv", "b"))
    add(records, dataset, new("a.csv", "c"))

    def left() -> list[str]:
        return sorted(key.split("/")[2] for _, key in records.datasets.left_files(records.tasks.open_pins(), -1.0, 60))

    assert left() == ["a", "b"]
    spec = {"datasets": {"iris": [dataset.id, 2]}}
    old, _ = records.tasks.add(dataset.account_id, Kind.TRAIN, "train.cpu", spec)
    assert left() == ["a"]
    records.tasks.add(dataset.account_id, Kind.TRAIN, "train.cpu", {"datasets": {"iris": [dataset.id, 3]}})
    records.tasks.add(dataset.account_id, Kind.TRAIN, "train.cpu", {})
    assert records.tasks.open_pins() == {dataset.id: 2}
    records.datasets.delete(dataset.id)
    assert left() == ["a"]
    records.tasks.request_cancel(old.id)
    assert left() == ["a", "b"]
    records.datasets.forget_files([number for number, _ in records.datasets.left_files({}, -1.0, 60)])
    assert left() == []


def test_upload_counts_its_parts(records: Records, dataset: Dataset) -> None:
    upload = records.uploads.add(dataset.id, "a.csv", size_bytes=10, part_bytes=4)
    assert (upload.part_count, [upload.size_of(number) for number in (1, 2, 3)]) == (3, [4, 4, 2])
    assert records.uploads.add(dataset.id, "b.csv", size_bytes=0, part_bytes=4).part_count == 1
    assert records.uploads.note_part(upload.id, Part(2, 4, "x")) is None
    assert records.uploads.note_part(upload.id, Part(1, 4, "y")) is None
    assert records.uploads.note_part(upload.id, Part(2, 4, "z")) == Part(2, 4, "x")
    assert records.uploads.parts(upload.id) == [Part(1, 4, "y"), Part(2, 4, "z")]
    assert records.uploads.find(dataset.id, upload.id) == upload
    with pytest.raises(UploadNotFound):
        records.uploads.find(make(records, "other").id, upload.id)


def test_upload_is_completed_once(records: Records, dataset: Dataset) -> None:
    upload = records.uploads.add(dataset.id, "a.csv", size_bytes=1, part_bytes=4)
    tasks = [
        records.tasks.add(dataset.account_id, Kind.UPLOAD, "control", {"upload_id": upload.id})[0].id for _ in range(2)
    ]
    assert records.uploads.complete_by(upload.id, tasks[0], instead_of=None)
    assert not records.uploads.complete_by(upload.id, tasks[1], instead_of=None)
    with pytest.raises(UploadNotFound):
        records.uploads.note_part(upload.id, Part(1, 1, "x"))
    assert records.uploads.complete_by(upload.id, tasks[1], instead_of=tasks[0])
    first, second = (records.datasets.stage(dataset.id, [new("a.csv", each)]) for each in "ab")
    assert records.datasets.commit(dataset.id, first, upload.id) == 1
    with pytest.raises(UploadNotFound):
        records.datasets.commit(dataset.id, second, upload.id)
    assert records.datasets.find(dataset.account_id, "iris").revision == 1
    assert not records.uploads.end(upload.id)


def test_upload_in_one_request_is_over_when_its_task_is(records: Records, dataset: Dataset) -> None:
    def begun(path: str, is_whole: bool) -> tuple[int, int]:
        upload = records.uploads.add(dataset.id, path, size_bytes=1, part_bytes=4, is_whole=is_whole)
        task, _ = records.tasks.add(dataset.account_id, Kind.UPLOAD, "control", {"upload_id": upload.id})
        assert records.uploads.complete_by(upload.id, task.id, instead_of=None)
        return upload.id, task.id

    (queued, _), (over, cancelled), (in_parts, also_cancelled) = begun("a", True), begun("b", True), begun("c", False)
    alone = records.uploads.add(dataset.id, "d", size_bytes=1, part_bytes=4, is_whole=True)
    for task_id in (cancelled, also_cancelled):
        records.tasks.request_cancel(task_id)
    assert records.uploads.end_whole(60.0) == 1
    assert [each.id for each in records.uploads.left(-1.0, 60.0)] == [over]
    assert records.quotas.use(dataset.account_id).stored_bytes == 3
    assert records.uploads.end_whole(-1.0) == 1
    assert [each.id for each in records.uploads.left(-1.0, 60.0)] == [over, alone.id]
    assert [records.uploads.get(number).ended_at for number in (queued, in_parts)] == [None, None]


def test_uploads_that_are_over_are_forgotten(records: Records, dataset: Dataset) -> None:
    over, going = (records.uploads.add(dataset.id, each, size_bytes=1, part_bytes=4) for each in "ab")
    records.uploads.note_part(over.id, Part(1, 1, "x"))
    assert records.uploads.end(over.id)
    assert [each.id for each in records.uploads.left(-1.0, 60.0)] == [over.id]
    records.uploads.note_cleaned([over.id])
    assert records.uploads.left(-1.0, 60.0) == []
    with pytest.raises(UploadNotFound):
        records.uploads.get(over.id)
    assert [each.id for each in records.uploads.left(-1.0, -1.0)] == [going.id]
    records.datasets.delete(dataset.id)
    assert [each.id for each in records.uploads.left(-1.0, 60.0)] == [going.id]


def test_upload_with_links_is_cleaned_again_until_none_of_them_is_good(records: Records, dataset: Dataset) -> None:
    upload = records.uploads.add(dataset.id, "a", size_bytes=1, part_bytes=4, sha256="x", is_direct=True)
    records.uploads.end(upload.id)

    def left(after_s: float) -> bool:
        """Whether it is to be cleaned so long after its end, and has been cleaned then."""
        with records.database.write() as connection:
            for column in ("ended_at", "cleaned_at"):
                connection.execute(text(f"UPDATE dataset_uploads SET {column} = {column} - {after_s}"))
        found = [each.id for each in records.uploads.left(-1.0, 1e9)] == [upload.id]
        if found:
            records.uploads.note_cleaned([upload.id])
        return found

    assert [left(0.0), left(60.0), left(600.0), left(60.0), left(3600.0)] == [True, False, True, False, True]
    assert records.uploads.get(upload.id).ended_at is not None
    assert left(24 * 3600.0), "when the last link is over, for the last time"
    with pytest.raises(UploadNotFound):
        records.uploads.get(upload.id)
