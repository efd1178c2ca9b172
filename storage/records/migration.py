"""Alembic without its ini file: the records bring their own tables up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from storage.records.database import Database

_LOCK = 7_305_118  # any number of our own; PostgreSQL's advisory locks share one space per database


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def newest() -> str | None:
    """The last revision among the migrations."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def upgrade(database: Database) -> None:
    """Bring the tables to the newest revision; of several callers one works and the others wait."""
    config = _config()
    with database.write() as connection:  # on SQLite this is BEGIN IMMEDIATE: the lock that the others wait for
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
