"""Guessing a key letter by letter: how long a wrong one takes, and what is compared, tells nothing of a real one."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, select

from storage.records import Records, accounts
from storage.records.schema import keys


def shared(records: Records, client: FlaskClient, guess: str) -> int:
    """How many letters what is looked up for a guess has in common with what is kept of the only key.

    A look-up stops at the first letter that differs, in an index too, so that is what time could tell.
    """
    with records.database.read() as connection:
        [kept] = connection.execute(select(keys.c.digest)).scalars()
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        values = parameters.values() if isinstance(parameters, dict) else parameters
        asked.extend(value for value in values if isinstance(value, str))

    event.listen(records.database.engine, "before_cursor_execute", note)
    try:
        assert client.get("/tasks", headers={"X-API-KEY": guess}).status_code == 401
    finally:
        event.remove(records.database.engine, "before_cursor_execute", note)
    assert asked
    return max(len(list(takewhile(lambda pair: pair[0] == pair[1], zip(kept, each, strict=False)))) for each in asked)


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "unlocked"])
def test_guess_that_begins_like_a_key_comes_no_nearer_to_it(
    records: Records, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, is_locked: bool
):
    if not is_locked:  # keys are kept and looked up as they are
        monkeypatch.setattr(accounts, "digest", str)
    _, secret = records.keys.create("ann")
    near = {length: shared(records, client, secret[:length] + "." * (43 - length)) for length in (0, 20, 42)}
    if is_locked:
        assert max(near.values()) < 12, near  # of 64; twelve by chance is one time in 10^14
    else:
        assert near == {0: 0, 20: 20, 42: 42}
