"""What cleaning looks for is found by indexes, also on PostgreSQL, where the clock is another one for each row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text

from storage.records import Records
from storage.records.schema import ago, audit, now

LOOKS: dict[str, tuple[Callable[[Records], Any], list[str]]] = {
    "audit": (lambda records: records.audit.sweep(60.0), [r"ix_audit_at.*?\(at < "]),
    "deliveries": (
        lambda records: records.deliveries.forget(60.0),
        # Two indexes tell when something is due, and empty they cost the same.
        [r"ix_webhook_deliveries_ended_at.*?\(ended_at < ", r"ix_webhook_deliveries_(due|waiting).*?\(due_at < "],
    ),
    "files": (
        lambda records: records.datasets.left_files({}, 60.0, 60.0),
        [r"ix_dataset_files_removed_at.*?\(removed_at < ", r"ix_dataset_files_staged"],
    ),
    "tasks": (lambda records: records.tasks.ended_uncleaned(60.0), [r"ix_tasks_uncleaned.*?\(finished_at < "]),
}


@pytest.fixture
def records(postgres_url: str) -> Iterator[Records]:
    made = Records.connect(postgres_url)
    made.upgrade()
    yield made
    made.close()


def plan_of(connection: Connection, statement: str, parameters: Any = None) -> str:
    # The tables are empty, and to read one whole would be best.
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())


@pytest.mark.servers
@pytest.mark.parametrize("what", LOOKS)
def test_what_is_old_is_looked_up_in_an_index_of_its_time(records: Records, what: str) -> None:
    look, wanted = LOOKS[what]
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> None:
        asked.append((statement, parameters))

    event.listen(records.database.engine, "before_cursor_execute", note)
    look(records)
    event.remove(records.database.engine, "before_cursor_execute", note)
    [first, *_] = [each for each in asked if "clock_timestamp" in each[0]]
    with records.database.read() as connection:
        plan = plan_of(connection, *first)
    for each in wanted:
        assert re.search(each, plan, re.DOTALL), plan


@pytest.mark.servers
def test_time_that_may_differ_from_row_to_row_is_looked_up_in_no_index(records: Records) -> None:
    with records.database.read() as connection:
        plans = [
            plan_of(
                connection,
                str(
                    select(audit.c.id)
                    .where(audit.c.at < moment)
                    .compile(connection, compile_kwargs={"literal_binds": True})
                ),
            )
            for moment in (now() - 60.0, ago(60.0))
        ]
    assert ["Index Cond: (at <" in plan for plan in plans] == [False, True], plans
