"""Programs of before and tables of later, and the other way round, on both databases."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from storage.errors import RecordsForm, RecordsUnavailable
from storage.records import LOCAL, Kind, NewVersion, Records, State, Task
from storage.records.form import note
from storage.records.migration import _config, works_from
from storage.records.schema import REVISION
from tests.integration.fronted import until

LATER = "0999"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path / 'records.db'}"


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    made = Records.connect(url)
    made.upgrade()
    yield made
    made.close()


def service_of(records: Records, name: str = "iris") -> Any:
    account = records.accounts.ensure(LOCAL)
    return records.services.add(
        account.id,
        name,
        mllib="xgboost",
        mltype="classification",
        type="supervised",
        description="",
        repository_id=records.repositories.ensure(account.id, f"objects:1/{name}").id,
        parameters={},
        model={},
    )


def training(records: Records, service: Any, **spec: Any) -> Task:
    task, _ = records.tasks.add(
        service.account_id,
        Kind.TRAIN,
        "train.cpu",
        spec,
        service_id=service.id,
        repository_id=service.repository_id,
        is_job=True,
    )
    return task


def made_later(records: Records, works: str | None) -> None:
    """As if a program of a revision to come had upgraded the tables."""
    with records.database.write() as connection:
        connection.execute(text("ALTER TABLE tasks ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"))
        connection.execute(text("CREATE TABLE extras (id INTEGER PRIMARY KEY, what TEXT NOT NULL)"))
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{LATER}'"))
        if works is None:
            connection.execute(text("DROP TABLE records_form"))
        else:
            note(connection, LATER, works)


def test_every_revision_says_from_which_one_on_programs_go_on():
    revisions = list(ScriptDirectory.from_config(_config()).walk_revisions())
    for each in revisions:
        assert re.fullmatch(r"\d{4}", each.revision), "they are compared as text"
        assert re.fullmatch(r"\d{4}", each.module.works_from)
        assert each.module.works_from <= each.revision
    assert "0001" <= works_from() <= REVISION


def test_program_goes_on_with_later_tables_that_only_have_more(records: Records):
    service = service_of(records)
    running = records.tasks.claim(training(records, service).id, "worker", 60)
    assert running is not None
    made_later(records, REVISION)
    records.check()
    records.upgrade()
    with records.database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == LATER
    # One that ran meanwhile ends well, and so does one that comes after.
    assert not records.tasks.renew(running, 60)
    ended = records.tasks.end(
        running, State.FINISHED, phases={}, report={"measure": {}}, version=NewVersion(running.prefix, {}, [])
    )
    assert (ended.state, ended.version) == (State.FINISHED, 1)
    task = training(records, service)
    assert records.tasks.claim(task.id, "worker", 60) is not None
    assert [each.id for each in records.tasks.page(service.account_id, limit=9)] == [task.id, running.task.id]


@pytest.mark.parametrize("works", [LATER, None], ids=["forbidden", "untold"])
def test_program_refuses_later_tables_that_it_would_spoil(records: Records, works: str | None):
    made_later(records, works)
    for do in (records.check, records.upgrade):
        with pytest.raises(RecordsForm, match=rf"form {LATER}.* made for {REVISION}, is too old .*install the version"):
            do()
    with records.database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == LATER


def test_records_that_do_not_answer_are_no_matter_of_their_form(tmp_path: Path):
    away = Records.connect(f"sqlite:///{tmp_path / 'no' / 'folder.db'}")
    with pytest.raises(RecordsUnavailable) as told:
        away.check()
    assert not isinstance(told.value, RecordsForm)


def test_task_that_needs_more_than_this_program_knows_waits_for_another(records: Records):
    service, other = service_of(records), service_of(records, "wine")
    needy, plain = training(records, service, needs=2, unknown={"member": 1}), training(records, other, unknown=3)
    assert records.tasks.claim(needy.id, "worker", 60) is None
    assert records.tasks.get(needy.id).state is State.QUEUED
    assert records.tasks.get(needy.id).attempt == 0
    assert records.tasks.claim(plain.id, "worker", 60) is not None
    with records.database.write() as connection:
        connection.execute(
            text("UPDATE tasks SET spec = :spec WHERE id = :id"), {"spec": json.dumps({"needs": 1}), "id": needy.id}
        )
    assert records.tasks.claim(needy.id, "worker", 60) is not None


def test_task_of_an_unknown_kind_is_read_listed_and_cancelled_but_neither_sent_nor_done(records: Records):
    service = service_of(records)
    task = training(records, service)
    with records.database.write() as connection:
        connection.execute(text("UPDATE tasks SET kind = 'dream', queue = 'control'"))
    found = records.tasks.get(task.id)
    assert (str(found.kind), found.kind in list(Kind), found.message_id) == ("dream", False, f"dream-{task.id}-a1")
    assert records.tasks.claim(task.id, "worker", 60) is None
    assert records.tasks.waiting(unsent_for_s=0.0) == []
    assert [str(each.kind) for each in records.tasks.open_tasks()] == ["dream"]
    assert [each.id for each in records.tasks.page(service.account_id, limit=9)] == [task.id]
    assert records.tasks.request_cancel(task.id).state is State.CANCELLED


# The oldest tables, with rows in them


def columns_of(connection: Any, table: str) -> list[str]:
    return list(connection.execute(text(f"SELECT * FROM {table} LIMIT 0")).keys())


def fill_oldest(connection: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows in each table of the first revision, written in SQL as a program of then would; what they hold."""
    at = 1_700_000_000.25
    rows: dict[str, list[dict[str, Any]]] = {
        "accounts": [{"id": 1, "name": "ann", "created_at": at}],
        "keys": [{"id": 1, "account_id": 1, "label": "laptop", "digest": "d" * 64, "created_at": at}],
        "repositories": [
            {
                "id": 1,
                "account_id": 1,
                "location": "objects:1/iris",
                "version_counter": 1,
                "exported_version": 0,
                "created_at": at,
            }
        ],
        "services": [
            {
                "id": 1,
                "account_id": 1,
                "name": "iris",
                "mllib": "xgboost",
                "mltype": "classification",
                "type": "supervised",
                "description": "é 'quoted'",
                "repository_id": 1,
                "parameters": json.dumps({"mllib": {"nclasses": 3}}),
                "job_counter": 2,
                "created_at": at,
            }
        ],
        "tasks": [
            {
                "id": number,
                "account_id": 1,
                "kind": "train",
                "queue": "train.cpu",
                "state": state,
                "service_id": 1,
                "repository_id": 1,
                "job": number,
                "spec": json.dumps({"data": ["/data/iris.csv"]}),
                "warnings": "[]",
                "attempt": attempt,
                "tries": 0,
                "deaths": 0,
                "created_at": at,
            }
            for number, state, attempt in ((1, "finished", 1), (2, "queued", 0))
        ],
        "attempts": [
            {"task_id": 1, "number": 1, "owner": "vm:7", "started_at": at, "outcome": "finished", "phases": "{}"}
        ],
        "reports": [{"task_id": 1, "report": json.dumps({"measure": {"acc": 0.5}})}],
        "versions": [
            {
                "id": 1,
                "repository_id": 1,
                "number": 1,
                "task_id": 1,
                "attempt": 1,
                "prefix": "attempts/1/1/model",
                "description": json.dumps({"backend": "xgboost"}),
                "size_bytes": 2**40,
                "created_at": at,
            }
        ],
        "artifacts": [
            {
                "id": 1,
                "version_id": 1,
                "name": "1.model",
                "key": "attempts/1/1/1",
                "size_bytes": 2**40,
                "sha256": "e" * 64,
            }
        ],
    }
    for table, made in rows.items():
        for row in made:
            names = ", ".join(row)
            connection.execute(
                text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in row)})"), row
            )
    return rows


def contents(connection: Any, columns: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: [tuple(map(repr, row)) for row in connection.execute(text(f"SELECT {', '.join(names)} FROM {table}"))]
        for table, names in columns.items()
    }


def test_oldest_tables_with_rows_come_to_the_newest_form_with_all_of_them(url: str):
    records = Records.connect(url)
    config = _config()
    with records.database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = {table: columns_of(connection, table) for table in fill_oldest(connection)}
        before = contents(connection, columns)
    with pytest.raises(RecordsForm, match=f"form 0001, this program needs {REVISION}; run `modelyard db upgrade`"):
        records.check()
    records.upgrade()
    records.check()
    with records.database.read() as connection:
        assert contents(connection, columns) == before
    # And the program of now works with them.
    if not records.database.is_sqlite:  # which numbers rows behind the largest by itself
        with records.database.write() as connection:
            for table in ("accounts", "services", "tasks", "versions", "artifacts", "repositories", "keys"):
                connection.execute(text(f"SELECT setval('{table}_id_seq', 100)"))
    service = records.services.find(1, "iris")
    assert (service.parameters, service.model, service.description) == ({"mllib": {"nclasses": 3}}, {}, "é 'quoted'")
    assert records.tasks.report(1) == {"measure": {"acc": 0.5}}
    assert records.versions.newest(1).artifacts[0].size_bytes == 2**40
    attempt = records.tasks.claim(2, "worker", 60)
    assert attempt is not None
    assert attempt.spec == {"data": ["/data/iris.csv"]}
    ended = records.tasks.end(attempt, State.FINISHED, phases={}, version=NewVersion(attempt.prefix, {}, []))
    assert ended.version == 2
    assert training(records, service).job == 3
    assert abs(records.clock_s() - time.time()) < 60
    records.close()


@pytest.mark.servers
def test_upgrade_and_a_call_that_take_tables_in_other_orders_do_not_end_each_other(postgres_url: str):
    records = Records.connect(postgres_url)
    config = _config()
    with records.database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
    with ThreadPoolExecutor(1) as pool, records.database.write() as call:
        call.execute(text("LOCK TABLE tasks IN ROW EXCLUSIVE MODE"))  # as an INSERT does
        upgrading = pool.submit(records.upgrade)
        until(lambda: call.execute(waits).scalar_one() > 0)
        call.execute(text("LOCK TABLE accounts IN ROW SHARE MODE"))  # as its foreign key does after that
    upgrading.result()
    records.check()
    records.close()
