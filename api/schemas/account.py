"""Requests about accounts, and how accounts, keys and the audit log are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from api.answers import Json
from api.query import check_known
from api.refusals import BadBody, BadQuery
from api.schemas.described import Always, cursor, one, several, text, whole
from api.schemas.paging import PAGE, PageQuery, moment_of, read_page
from api.schemas.reading import read_strictly
from ml.options.loading import Choice, Text, option
from storage.moments import moment
from storage.records import Key, Note, Quotas, Role

ROLES = tuple(str(role) for role in Role)
_LABEL_MOST = 255


@dataclass(frozen=True)
class KeyRequest:
    """POST /keys."""

    role: str = option(Text(validate=Choice(*ROLES)), "What the key is good for.", default=str(Role.TRAIN))
    label: str = option(Text(), "A word to tell keys apart, such as the name of a client.", default="")


@dataclass(frozen=True)
class AuditQuery:
    """GET /audit. since : seconds since the epoch."""

    action: str | None
    since: float | None
    page: PageQuery


def read_key(body: Json) -> KeyRequest:
    """The body of the request. Raises BadBody."""
    wanted = read_strictly(KeyRequest, body, "/keys")
    if len(wanted.label) > _LABEL_MOST or not wanted.label.isprintable():
        raise BadBody(f"label has at most {_LABEL_MOST} printable characters")
    return wanted


def read_audit(arguments: Mapping[str, str]) -> AuditQuery:
    """What GET /audit is asked. Raises BadQuery."""
    check_known(arguments, ("action", "since", *PAGE))
    action = arguments.get("action")
    if action is not None and not 0 < len(action) <= 80:
        raise BadQuery("action is empty or too long; name one, such as key.create, or leave it out")
    return AuditQuery(action, moment_of(arguments, "since"), read_page(arguments))


def told_key(key: Key) -> Json:
    """A key in lists."""
    return {
        "key_id": key.id,
        "role": str(key.role),
        "label": key.label,
        "created_at": moment(key.created_at),
        "revoked_at": moment(key.revoked_at),
    }


def told_quotas(quotas: Quotas, use: Mapping[str, int | None]) -> Json:
    """Limits and use by the names of the quotas; null where there is no limit, or the use is not known."""
    return {name: {"limit": limit or None, "used": use[name]} for name, limit in asdict(quotas).items()}


def told_note(note: Note) -> Json:
    """A line of the audit log."""
    told = asdict(note)
    del told["id"]
    return {**told, "at": moment(note.at)}


class QuotaSchema(Always):
    """One quota of an account."""

    limit = whole("The most there may be; null for no limit.", allow_none=True)
    used = whole("What is used of it now; null when nobody can tell.", allow_none=True)


class QuotasSchema(Always):
    """The quotas of an account."""

    trainings = one(QuotaSchema, "Trainings that run at once; further ones wait.")
    queued_tasks = one(QuotaSchema, "Tasks that wait at once.")
    stored_bytes = one(QuotaSchema, "Bytes in data sets, versions and results.")
    requests_per_minute = one(QuotaSchema, "Requests in a minute.")


class AccountSchema(Always):
    """GET /account."""

    account = text("Name of the account.")
    role = text("What the key of this call is good for.", ROLES)
    key_id = whole("Number of the key of this call; null on a machine without keys.", allow_none=True)
    quotas = one(QuotasSchema, "What the account may use, and uses.")


class KeySchema(Always):
    """A key in lists."""

    key_id = whole("Its number.")
    role = text("What it is good for.", ROLES)
    label = text("The word that was given to it.")
    created_at = text("When it was made, in ISO 8601.")
    revoked_at = text("When it was ended; null while it is in force.", allow_none=True)


class NewKeySchema(KeySchema):
    """POST /keys."""

    secret = text("The key itself, told this once.")


class KeysSchema(Always):
    """GET /keys."""

    keys = several(KeySchema, "Newest first.")
    next_cursor = cursor()


class NoteSchema(Always):
    """A line of the audit log."""

    at = text("When, in ISO 8601.")
    account = text("The account it happened to.", allow_none=True)
    key_id = whole("The key that was used; null for none.", allow_none=True)
    role = text("Role of that key; `operator` for the command line of the server.")
    action = text("What was done, such as `service.create`.")
    kind = text("Kind of the object.")
    name = text("Name or number of the object.")
    outcome = text("What came of it.", ["done", "refused"])
    count = whole("How often, when several are told as one.")
    trace = text("The `traceparent` of the request; empty without traces.")
    address = text("Where the request came from; empty for the command line.")


class AuditSchema(Always):
    """GET /audit."""

    notes = several(NoteSchema, "Newest first.")
    next_cursor = cursor()
