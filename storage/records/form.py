"""The form of the tables: whether this program can work with the one that it finds, also with a later one.

A revision says in `works_from` from which revision on programs go on with the tables as it leaves them. What holds for
all revisions up to the newest stands in the database, where programs read it that were made before that revision.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Table, Text, delete, insert, inspect, select, text

from storage.errors import RecordsForm, RecordsUnavailable
from storage.records.schema import REVISION, metadata

FORM = Table(
    "records_form",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("works_from", Text, nullable=False),
)
"""One row. Not made by a revision: it must be there whichever of them a program knows."""


def check(connection: Connection, program: str = REVISION) -> None:
    """Raises RecordsForm unless a program that was made for the revision `program` can use the tables, and
    RecordsUnavailable where there are none.
    """
    found = revision_of(connection)
    if found is None:
        raise RecordsUnavailable("the records have no tables yet; run `modelyard db upgrade`")
    if found < program:
        raise RecordsForm(f"the records have form {found}, this program needs {program}; run `modelyard db upgrade`")
    if found == program:
        return
    works_from = _works_from(connection)
    if works_from is None or program < works_from:
        raise RecordsForm(
            f"the records have form {found}, and this program, made for {program}, is too old for it: "
            "install the version of Modelyard that upgraded them"
        )


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables; None when there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def note(connection: Connection, revision: str, works_from: str) -> None:
    """Say from which revision on programs can use the tables, which are of `revision` now."""
    FORM.create(connection, checkfirst=True)
    connection.execute(delete(FORM))
    connection.execute(insert(FORM).values(revision=revision, works_from=works_from))


def _works_from(connection: Connection) -> str | None:
    if not inspect(connection).has_table(FORM.name):
        return None
    found: str | None = connection.execute(select(FORM.c.works_from)).scalar_one_or_none()
    return found
