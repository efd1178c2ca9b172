"""What accounts may use, and what was done: for whoever operates the server, on its own machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli.environment import open_records, settings_here
from cli.remote.tables import print_table, size

if TYPE_CHECKING:
    from storage.records import Account, Note, Quotas, Records, Use

_DEFAULT = "default"
_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_MOST = 2**60
_PAGE = 1000


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with bytes to the last one.")
@click.pass_context
def quotas(context: click.Context, as_json: bool) -> None:
    """What each account may use, and uses; `set` changes it."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json is for the list, not for {context.invoked_subcommand}")
        return
    with open_records(settings_here()) as records:
        records.upgrade()
        found = [(account, held, records.quotas.use(account.id)) for account, held in records.quotas.all()]
    if as_json:
        for each in found:
            click.echo(json.dumps(_object_of(*each)))
        return
    if not found:
        click.echo("no accounts; create one with a key: modelyard keys create --account NAME")
        return
    head = ("account", "trainings", "queued tasks", "stored", "requests/minute")
    print_table(head, [_row_of(*each) for each in found])


def _object_of(account: Account, held: Quotas, use: Use) -> dict[str, Any]:
    """As `/account` tells it: null is no limit, or a use that is not known here."""
    used = asdict(use)
    limits = {name: {"limit": limit or None, "used": used.get(name)} for name, limit in asdict(held).items()}
    return {"account": account.name, "quotas": limits}


def _row_of(account: Account, held: Quotas, use: Use) -> tuple[str, ...]:
    used = asdict(use)
    cells = (_told(name, used.get(name), limit) for name, limit in asdict(held).items())
    return account.name, *cells


def _told(name: str, used: int | None, limit: int) -> str:
    """What is used of a quota; of requests nobody here knows it."""
    most = _limit_told(name, limit)
    return most if used is None else f"{_amount(name, used)} of {most}" if limit else f"{_amount(name, used)}, {most}"


def _limit_told(name: str, limit: int) -> str:
    return _amount(name, limit) if limit else "no limit"


def _amount(name: str, count: int) -> str:
    return size(count) if name == "stored_bytes" else str(count)


class _Limit(click.ParamType[int | str]):
    """A whole number, with k, M, G or T behind it for bytes; 0 for no limit, or `default`."""

    name = "limit"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Part of click: the number, or `default`."""
        text = str(value).strip().lower()
        if text == _DEFAULT:
            return _DEFAULT
        factor = _BYTES.get(text[-1:], 1)
        digits = text if factor == 1 else text[:-1]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18 and int(digits) * factor <= _MOST):
            self.fail(f"{value!r} is no limit; give a whole number, 0 for none, or {_DEFAULT}", param, ctx)
        return int(digits) * factor


_LIMIT = _Limit()


@quotas.command("set")
@click.argument("account")
@click.option("--trainings", type=_LIMIT, help="Trainings that may run at once; further ones wait.")
@click.option("--queued-tasks", type=_LIMIT, help="Tasks that may wait at once.")
@click.option("--stored-bytes", type=_LIMIT, help="Bytes in data sets, versions and results, such as 500G.")
@click.option("--requests-per-minute", type=_LIMIT, help="Requests that are answered in a minute.")
def set_quotas(account: str, **given: int | str | None) -> None:
    """Change quotas of ACCOUNT. A limit of 0 is none; `default` leaves it to the settings again."""
    changes = {name: None if value == _DEFAULT else int(value) for name, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("name a quota to change, such as --trainings 2")
    with open_records(settings_here()) as records:
        records.upgrade()
        held = records.quotas.set(_account(records, account), changes)
    told = (f"{name.replace('_', ' ')}: {_limit_told(name, limit)}" for name, limit in asdict(held).items())
    click.echo(f"{account}: {', '.join(told)}")


@click.command()
@click.option("--account", help="Only of this account.")
@click.option("--action", help="Only this action, such as key.create; with a full stop at its end all that begin so.")
@click.option("--since", metavar="TIME", help="Only from this time on, as in 2026-01-31 or 2026-01-31T09:30 (UTC).")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most lines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def audit(account: str | None, action: str | None, since: str | None, limit: int, as_json: bool) -> None:
    """Print the audit log: who did what and who was refused, newest first."""
    with open_records(settings_here()) as records:
        records.upgrade()
        account_id = None if account is None else _account(records, account).id
        notes: list[Note] = []
        before_id = None
        while len(notes) < limit:
            found = records.audit.page(
                account_id=account_id,
                limit=min(_PAGE, limit - len(notes)),
                before_id=before_id,
                action=action or None,
                since=_moment(since),
            )
            if not found:
                break
            notes += found
            before_id = found[-1].id
    if as_json:
        for note in notes:
            click.echo(json.dumps({**asdict(note), "at": _written(note.at)}))
        return
    print_table(
        ("at", "account", "key", "role", "action", "object", "outcome", "count", "address"),
        (
            (
                _written(note.at),
                note.account,
                note.key_id,
                note.role,
                note.action,
                f"{note.kind} {note.name}".strip(),
                note.outcome,
                note.count,
                note.address,
            )
            for note in notes
        ),
    )


def _account(records: Records, name: str) -> Account:
    for account, _ in records.quotas.all():
        if account.name == name:
            return account
    raise click.ClickException(f"there is no account {name!r}; `modelyard keys create --account NAME` makes one")


def _written(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time; write 2026-01-31T09:30", param_hint="--since") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
