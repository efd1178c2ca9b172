"""/account: who calls. /keys and /audit: what an account's administrator looks after."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

from flask import Blueprint, Response, request

from api.answers import plain
from api.auditing import by
from api.body import read_object
from api.parts import account, parts
from api.query import check_known, whole_number
from api.roles import check, needs
from api.schemas.account import read_audit, read_key, told_key, told_note, told_quotas
from api.schemas.paging import PAGE, read_page
from storage.errors import KeyNotFound, LiveUnavailable
from storage.records import Role

blueprint = Blueprint("accounts", __name__)


@blueprint.get("/account")
@needs(Role.READ)
def whoami() -> Response:
    """The account and role of the caller, and what it uses of its quotas."""
    check_known(request.args, ())
    caller = account()
    use: dict[str, int | None] = {**asdict(parts().records.quotas.use(caller.id)), "requests_per_minute": None}
    if caller.quotas.requests_per_minute:  # else nobody counts them
        with suppress(LiveUnavailable):
            use["requests_per_minute"] = parts().live.allowance.used(caller.id)
    quotas = told_quotas(caller.quotas, use)
    return plain({"account": caller.name, "role": str(caller.role), "key_id": caller.key_id, "quotas": quotas})


@blueprint.get("/keys")
@needs(Role.ADMIN)
def keys() -> Response:
    """A page of the account's keys, newest first; never the secrets."""
    check_known(request.args, PAGE)
    page = read_page(request.args)
    shown, more = page.cut(parts().records.keys.page(account().id, limit=page.limit + 1, before_id=page.before_id))
    return plain({"keys": [told_key(each) for each in shown], "next_cursor": more})


@blueprint.post("/keys")
@needs(Role.ADMIN)
def create_key() -> Response:
    """Make a key of the account; its secret is told this once."""
    check_known(request.args, ())
    wanted = read_key(read_object(parts().settings.request_limit_bytes))
    role = Role.named(wanted.role)
    check(account(), role)
    key, secret = parts().records.keys.create(account().name, wanted.label, role, by("key.create"))
    response = plain({**told_key(key), "secret": secret}, 201)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.delete("/keys/<number>")
@needs(Role.ADMIN)
def revoke_key(number: str) -> Response:
    """End a key of the account, but not the one that asks for it."""
    check_known(request.args, ())
    key_id = whole_number(number)
    if key_id is None:
        raise KeyNotFound(f"no key {number[:40]!r} is in force; GET /keys shows them")
    return plain(told_key(parts().records.keys.revoke(key_id, account().id, by("key.revoke"))))


@blueprint.get("/audit")
@needs(Role.ADMIN)
def audit() -> Response:
    """A page of what was done in the account, and who was refused, newest first."""
    query = read_audit({name: values[-1] for name, values in request.args.lists()})
    found = parts().records.audit.page(
        account_id=account().id,
        limit=query.page.limit + 1,
        before_id=query.page.before_id,
        action=query.action,
        since=query.since,
    )
    shown, more = query.page.cut(found, lambda note: note.at)
    return plain({"notes": [told_note(each) for each in shown], "next_cursor": more})
