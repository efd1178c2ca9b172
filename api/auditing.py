"""What the current request leaves in the audit log."""

from __future__ import annotations

from flask import g, request

from api.parts import parts
from storage.records import Caller, NewNote
from workers.tracing import RequestSpan


def by(action: str, kind: str = "", name: str = "") -> NewNote:
    """A line about the current request."""
    caller: Caller | None = g.get("account")
    span: RequestSpan | None = g.get("span")
    return NewNote(
        action,
        kind,
        name,
        account_id=None if caller is None else caller.id,
        key_id=None if caller is None else caller.key_id,
        role="" if caller is None else str(caller.role),
        trace="" if span is None else span.carried.partition(" ")[0],
        address=request.remote_addr or "",
    )


def note(action: str, kind: str, name: object) -> None:
    """Note in the audit log what the current request has done to an object."""
    parts().auditor.done(by(action, kind, str(name)))
