"""Alembic without its ini file: the records bring their own tables up to date."""

from __future__ import annotations

import random
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from storage.errors import RecordsUnavailable
from storage.records import form
from storage.records.database import Database
from storage.records.schema import REVISION, metadata

_LOCK_WAIT_MS = 500  # PostgreSQL ends calls that wait for each other, of programs too, after a second
_LOCK_TRIES = 300
_CLASHED = frozenset({"57014", "55P03", "40P01"})
"""What PostgreSQL says of a lock that took too long, by its statement, by its own time, and of a deadlock."""

_LOCK = 7_305_118  # any number of our own; PostgreSQL's advisory locks share one space per database


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def newest() -> str | None:
    """The last revision among the migrations."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def works_from() -> str:
    """The oldest revision whose programs go on with the tables of the newest one: what none of them forbids.

    Raises AttributeError for a revision that does not say it.
    """
    found: list[str] = [each.module.works_from for each in ScriptDirectory.from_config(_config()).walk_revisions()]
    return max(found)


def _lock_tables(connection: Connection) -> None:
    """Wait for the calls of running programs, and let new ones wait. Raises RecordsUnavailable.

    All tables or none: programs take them in more than one order, so that each side could come to hold what the other
    waits for.
    """
    names = sorted(metadata.tables.keys() & set(inspect(connection).get_table_names()))
    for _ in range(_LOCK_TRIES):
        try:
            with connection.begin_nested():
                connection.execute(text(f"SET LOCAL statement_timeout = {_LOCK_WAIT_MS}"))
                connection.execute(text(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE"))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _CLASHED:
                raise
            time.sleep(random.uniform(0.1, 0.5))
        else:
            connection.execute(text("SET LOCAL statement_timeout TO DEFAULT"))
            return
    raise RecordsUnavailable(
        "the tables are in use by calls that do not end, maybe of a backup; run `modelyard db upgrade` again after them"
    )


def upgrade(database: Database) -> None:
    """Bring the tables to the newest revision; of several callers one works and the others wait.

    Tables of a later revision are left as they are. Raises RecordsForm when this program cannot use them,
    RecordsUnavailable when calls that are under way do not end.
    """
    config = _config()
    with database.write() as connection:  # on SQLite this is BEGIN IMMEDIATE: the lock that the others wait for
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = form.revision_of(connection)
        if found is not None and found > REVISION:
            form.check(connection)
            return
        if not database.is_sqlite and found is not None and found < REVISION:
            _lock_tables(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        form.note(connection, REVISION, works_from())
