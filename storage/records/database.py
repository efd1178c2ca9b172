"""The connection to the database: short transactions, one behaviour on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.errors import RecordsRefused, RecordsUnavailable, StorageFull

_BUSY_MS = 15_000
# PostgreSQL tells no code of an error before it has let somebody in.
_REFUSED = ("authentication failed for user", "no password supplied", "no pg_hba.conf entry")


class Database:
    """An engine with two kinds of transaction. Safe to share between threads, not between forked processes."""

    def __init__(self, url: str) -> None:
        try:
            self.url = make_url(url)
            if self.url.drivername in {"postgresql", "postgres"}:
                self.url = self.url.set(drivername="postgresql+psycopg")
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            self.engine = self._sqlite() if self.is_sqlite else self._server()
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise RecordsUnavailable(f"MODELYARD_DATABASE_URL cannot be used: {error}") from error

    def _server(self) -> Engine:
        return create_engine(
            self.url,
            pool_size=5,
            max_overflow=20,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5} if self.url.get_backend_name() == "postgresql" else {},
        )

    def _sqlite(self) -> Engine:
        engine = create_engine(self.url, pool_size=16, max_overflow=64, pool_timeout=10)

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, record: Any) -> None:
            # The driver's own transaction handling starts late and hides BEGIN; ours is explicit.
            connection.isolation_level = None
            cursor = connection.cursor()
            for pragma in (
                f"busy_timeout={_BUSY_MS}",
                "journal_mode=WAL",
                # FULL: an answered request is on the disk, also when the machine loses power.
                "synchronous=FULL",
                "foreign_keys=ON",
            ):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # A transaction that reads first and writes later fails at once when another wrote in between;
            # so one that will write takes the lock at its start, where the busy timeout applies.
            writes = connection.get_execution_options().get("modelyard_write", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with _errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block, undone when it raises."""
        with _errors(), self.engine.connect() as connection:
            connection = connection.execution_options(modelyard_write=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # its callers know which constraint can fail, and what that means
    except (OperationalError, InterfaceError, DisconnectionError, PoolTimeout) as error:
        told = str(getattr(error, "orig", None) or error).strip().splitlines()
        reason = told[0]
        for line in told:  # one for each address of the host
            if any(words in line for words in _REFUSED):
                text = f"the records refuse the user or password of MODELYARD_DATABASE_URL: {line.strip()}"
                raise RecordsRefused(text) from error
        if "disk is full" in reason or "No space left" in reason:
            raise StorageFull(f"the records cannot be written: {reason}") from error
        raise RecordsUnavailable(f"the records cannot be reached: {reason}") from error
