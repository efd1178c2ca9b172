"""Results of prediction tasks, and the versions that they are to be answered with, on every database."""

from __future__ import annotations

from typing import Any

import pytest

from storage.records import Attempt, Kind, NewVersion, Records, Service, State, Task

QUEUE = "batch.xgboost.cpu"
RESULT = {"name": "predictions", "form": "jsonl", "size_bytes": 3 * 2**30, "key": "attempts/1/1/result.jsonl"}


def asked(records: Records, service: Service, version_id: int) -> Task:
    spec: dict[str, Any] = {"way": "ask", "head": {"version_id": version_id}}
    return records.tasks.add(service.account_id, Kind.PREDICT, QUEUE, spec, service_id=service.id)[0]


def claim(records: Records, task: Task) -> Attempt:
    attempt = records.tasks.claim(task.id, "worker", 30.0)
    assert attempt is not None
    return attempt


def publish(records: Records, service: Service) -> int:
    """The id of a new version."""
    task, _ = records.tasks.add(
        service.account_id, Kind.TRAIN, "train.cpu", {}, service_id=service.id, repository_id=service.repository_id
    )
    attempt = claim(records, task)
    records.tasks.end(attempt, State.FINISHED, phases={}, version=NewVersion(f"{attempt.prefix}/model", {}, []))
    return records.versions.newest(service.repository_id).id


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["finished", "cancelled"])
def test_result_counts_as_stored_unless_the_task_was_cancelled_while_it_came_in(
    records: Records, service: Service, is_cancelled: bool
) -> None:
    attempt = claim(records, asked(records, service, publish(records, service)))
    if is_cancelled:
        records.tasks.request_cancel(attempt.task.id)
    report = {"rows": 7, "timings": {}, "warnings": [], "result": {**RESULT, "sha256": "d"}}
    ended = records.tasks.end(attempt, State.FINISHED, phases={}, report=report)
    assert ended.state is (State.CANCELLED if is_cancelled else State.FINISHED)
    assert records.quotas.use(service.account_id).stored_bytes == (0 if is_cancelled else RESULT["size_bytes"])
    assert [each.key for each in records.inventory.named()] == ([] if is_cancelled else [RESULT["key"]])
    kept = records.tasks.report(attempt.task.id)
    assert kept is not None
    assert (kept["rows"], "result" in kept) == (7, not is_cancelled)


def test_version_stays_until_the_tasks_that_it_is_to_answer_are_over(records: Records, service: Service) -> None:
    first, _ = publish(records, service), publish(records, service)
    task = asked(records, service, first)
    # Of a kind that names no version, or not yet; neither is in the way of the others.
    records.tasks.add(service.account_id, Kind.PREDICT, QUEUE, {}, service_id=service.id)
    newest = [publish(records, service) for _ in range(3)][-1]
    assert records.versions.remove_old(kept=1) == 3
    assert [each.id for each in records.versions.all_of(service.repository_id)] == [newest, first]
    attempt = claim(records, task)
    assert records.versions.remove_old(kept=1) == 0
    records.tasks.end(attempt, State.FINISHED, phases={})
    assert records.versions.remove_old(kept=1) == 1
    assert [each.id for each in records.versions.all_of(service.repository_id)] == [newest]
