"""Records on each database they run on, and how they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from storage.records import Records, Service


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    yield from _made(url)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Records]:
    """Records that tell the plans of their queries."""
    yield from _made(f"sqlite:///{tmp_path / 'records.db'}")


def _made(url: str) -> Iterator[Records]:
    made = Records.connect(url)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def service(records: Records) -> Service:
    return make_service(records)


def make_service(records: Records, name: str = "iris", repository: str = "") -> Service:
    """A service with a repository of its own, unless one is named."""
    account = records.accounts.ensure("local")
    return records.services.add(
        account.id,
        name,
        mllib="xgboost",
        mltype="classification",
        type="supervised",
        description="",
        repository_id=records.repositories.ensure(account.id, repository or f"objects:1/{name}").id,
        parameters={"input": {"connector": "csv"}},
    )


@contextmanager
def asked_of(records: Records, word: str) -> Iterator[list[tuple[str, Any]]]:
    """The statements, with their values, that hold a word and are sent meanwhile."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if word in statement and not many:
            asked.append((statement, values))

    event.listen(records.database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(records.database.engine, "before_cursor_execute", note)


def plans_of(on_sqlite: Records, asked: list[tuple[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Each statement and the lines of its plan."""
    with on_sqlite.database.read() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            yield statement, [row.detail for row in plan]
