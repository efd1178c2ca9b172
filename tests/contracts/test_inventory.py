"""What the records name in the object store, and how they go on after a restore, on both databases."""

from __future__ import annotations

from storage.records import Artifact, Kind, Named, NewFile, NewVersion, Part, Records, Service, State

SHA = "ab" * 32


def add(records: Records, service: Service, kind: Kind = Kind.TRAIN, repository: int | None = None, **spec: str) -> int:
    task, _ = records.tasks.add(
        service.account_id, kind, "train.cpu", spec, service_id=service.id, repository_id=repository
    )
    return task.id


def publish(records: Records, task_id: int, key: str) -> None:
    attempt = records.tasks.claim(task_id, "worker", 60)
    assert attempt is not None
    version = NewVersion(attempt.prefix, {}, [Artifact("a.model", key, 3, SHA)])
    records.tasks.end(attempt, State.FINISHED, phases={}, report={}, version=version)


def test_what_can_still_be_asked_for_is_named(records: Records, service: Service):
    assert list(records.inventory.named()) == []
    for number in (1, 2):
        publish(records, add(records, service, repository=service.repository_id), f"attempts/{number}/1/a.model")
    records.versions.remove_old(1)
    dataset, _ = records.datasets.create(service.account_id, "leaves")
    new = [NewFile(f"{name}.csv", f"datasets/{dataset.id}/{name}", 5, SHA) for name in ("here", "gone", "staged")]
    records.datasets.commit(dataset.id, records.datasets.stage(dataset.id, new[:2]))
    records.datasets.remove_file(dataset.id, "gone.csv")
    records.datasets.stage(dataset.id, new[2:])
    for over in (False, True):
        upload = records.uploads.add(dataset.id, "big.csv", size_bytes=10, part_bytes=5)
        records.uploads.note_part(upload.id, Part(1, 5, SHA))
        if over:
            records.uploads.end(upload.id)
    waiting = add(records, service, data_key="inputs/1-x.json")
    asked = add(records, service, Kind.PREDICT, data_key="inputs/2-x.json")
    attempt = records.tasks.claim(asked, "worker", 60)
    assert attempt is not None
    result = {
        "name": "predictions",
        "form": "jsonl",
        "size_bytes": 7,
        "key": "attempts/9/1/result.jsonl",
        "sha256": SHA,
    }
    records.tasks.end(attempt, State.FINISHED, phases={}, report={"result": result})
    small = records.tasks.claim(add(records, service, Kind.PREDICT), "worker", 60)
    assert small is not None
    inline = {"name": "predictions", "form": "json", "size_bytes": 2, "content": "[]"}
    records.tasks.end(small, State.FINISHED, phases={}, report={"result": inline})
    assert set(records.inventory.named()) == {
        Named("version 2 of repository objects:1/iris", "attempts/2/1/a.model", 3, SHA),
        Named(f"here.csv of data set {dataset.id}", f"datasets/{dataset.id}/here", 5, SHA),
        Named("part 1 of upload 1", f"uploads/1/1-{SHA}", 5, SHA),
        Named(f"data of task {waiting}", "inputs/1-x.json"),
        Named(f"result of task {asked}", "attempts/9/1/result.jsonl", 7, SHA),
    }


def test_numbers_go_on_above_those_that_the_store_knows(records: Records, service: Service):
    dataset, _ = records.datasets.create(service.account_id, "leaves")
    over, running = add(records, service), add(records, service, repository=service.repository_id)
    queued = add(records, service, repository=service.repository_id)
    ended = records.tasks.claim(over, "worker", 60)
    assert ended is not None
    records.tasks.end(ended, State.FAILED, phases={}, failure={"kind": "internal"})
    assert records.tasks.claim(running, "worker", 3600) is not None
    assert records.inventory.go_on({over: 7, running: 3, 40: 2}, 12) == 1
    assert records.tasks.get(over).attempt == 1, "it is over and has no further attempt"
    again = records.tasks.claim(running, "another", 60)
    assert again is not None, "its lease is over although the clock says otherwise"
    assert again.number == 4
    assert records.tasks.get(queued).attempt == 0
    assert add(records, service) > 40
    assert records.uploads.add(dataset.id, "a.csv", size_bytes=1, part_bytes=1).id > 12
    # What the store knows less of than the records changes nothing.
    assert records.inventory.go_on({1: 1}, 0) == 1
    newest = add(records, service)
    assert records.inventory.go_on({1: 1}, 1) == 1
    assert add(records, service) > newest


def test_folders_of_repositories_are_written_anew(records: Records, service: Service):
    folder = records.repositories.ensure(service.account_id, "/srv/data/iris")
    publish(records, add(records, service, repository=folder.id), "attempts/1/1/a.model")
    until = records.repositories.lock_export(folder.id, 3600)
    assert until is not None
    records.repositories.note_exported(folder.id, until, 1)
    assert records.repositories.unexported() == []
    records.inventory.go_on({}, 0)
    assert [each.id for each in records.repositories.unexported()] == [folder.id]
