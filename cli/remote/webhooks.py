"""modelyard webhooks: addresses that a server tells of the ends of tasks."""

from __future__ import annotations

from typing import IO, Any

import click

from cli.remote.pages import tell_more
from cli.remote.tables import clean, print_facts, print_table
from cli.remote.target import Target, asks

Json = dict[str, Any]

_EVENTS = ("task.finished", "task.failed", "task.cancelled")
_STATES = ("waiting", "delivered", "failed")

_number = click.argument("number", type=click.IntRange(1))
_delivery = click.argument("delivery", type=click.IntRange(1))
_limit = click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
_cursor = click.option("--cursor", help="Where to go on, as an earlier list told.")


@click.group()
def webhooks() -> None:
    """Webhooks: create, test and delete them, show what was sent, and send it again."""


@webhooks.command("list")
@_limit
@_cursor
@asks
def list_webhooks(target: Target, limit: int, cursor: str | None) -> None:
    """List the webhooks of the account, the newest first."""
    answer = target.client.call("GET", "/webhooks", query={"limit": limit, "cursor": cursor})
    if target.as_json:
        return target.print_json(answer)
    found = answer.json.get("webhooks") or []
    if not found:
        return click.echo("no webhooks; make one with: modelyard webhooks create URL")
    names = ("webhook_id", "url", "active", "failing_since", "description")
    print_table(
        ("webhook", "url", "active", "failing since", "description"),
        [[each.get(name) for name in names] for each in found],
    )
    return tell_more(answer.json)


@webhooks.command()
@click.argument("receiver", metavar="URL")
@click.option("--event", "events", multiple=True, type=click.Choice(_EVENTS), help="Only these; may be repeated.")
@click.option("--service", "services", multiple=True, help="Only tasks of these services; may be repeated.")
@click.option("--description", help="For people.")
@click.option(
    "--secret-file",
    type=click.File("r"),
    help="File with the secret to sign with, whsec_…; - for standard input. Without it one is made and printed.",
)
@asks
def create(
    target: Target,
    receiver: str,
    events: tuple[str, ...],
    services: tuple[str, ...],
    description: str | None,
    secret_file: IO[str] | None,
) -> None:
    """Have events posted to URL, and print the secret that they are signed with; it cannot be shown again."""
    body: Json = {"url": receiver, "description": description}
    if secret_file is not None:
        body["secret"] = secret_file.read().strip()
    body |= {"events": list(events) or None, "services": list(services) or None}
    answer = target.client.call("POST", "/webhooks", body)
    if target.as_json:
        return target.print_json(answer)
    return _tell_secret(answer.json)


@webhooks.command()
@_number
@asks
def show(target: Target, number: int) -> None:
    """Show webhook NUMBER."""
    answer = target.client.call("GET", f"/webhooks/{number}")
    if target.as_json:
        return target.print_json(answer)
    found = answer.json
    return print_facts(
        [
            ("webhook", found.get("webhook_id")),
            ("url", found.get("url")),
            ("description", found.get("description")),
            ("events", ", ".join(found.get("events") or ())),
            ("services", ", ".join(found.get("services") or ()) or "all"),
            ("active", found.get("active")),
            *([("because", found["inactive_because"])] if found.get("inactive_because") else []),
            ("failing since", found.get("failing_since")),
            ("old secret until", found.get("old_secret_until")),
            ("created", found.get("created_at")),
        ]
    )


@webhooks.command()
@_number
@click.argument("state", type=click.Choice(("on", "off")))
@asks
def switch(target: Target, number: int, state: str) -> None:
    """Switch webhook NUMBER on or off. One that is off gives up what waits for it."""
    answer = target.client.call("PATCH", f"/webhooks/{number}", {"active": state == "on"})
    if target.as_json:
        return target.print_json(answer)
    return click.echo(f"webhook {number} is {state}")


@webhooks.command()
@_number
@asks
def rotate(target: Target, number: int) -> None:
    """Make a new secret for webhook NUMBER and print it; for a day the old one signs as well."""
    answer = target.client.call("POST", f"/webhooks/{number}/secret", {})
    if target.as_json:
        return target.print_json(answer)
    return _tell_secret(answer.json)


@webhooks.command()
@_number
@asks
def delete(target: Target, number: int) -> None:
    """Delete webhook NUMBER; what waits for it is not sent."""
    answer = target.client.call("DELETE", f"/webhooks/{number}")
    if target.as_json:
        return target.print_json(answer)
    return click.echo(f"webhook {number} is deleted")


@webhooks.command()
@_number
@asks
def test(target: Target, number: int) -> None:
    """Send a ping to webhook NUMBER; `delivery` tells what became of it."""
    _tell_sent(target, f"/webhooks/{number}/test")


@webhooks.command()
@_number
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@_limit
@_cursor
@asks
def deliveries(target: Target, number: int, state: str | None, limit: int, cursor: str | None) -> None:
    """List what was sent to webhook NUMBER, or is to be, the newest first."""
    query = {"state": state, "limit": limit, "cursor": cursor}
    answer = target.client.call("GET", f"/webhooks/{number}/deliveries", query=query)
    if target.as_json:
        return target.print_json(answer)
    found = answer.json.get("deliveries") or []
    if not found:
        return click.echo("no such delivery")
    names = ("delivery_id", "event", "task_id", "state", "attempt", "created_at", "next_at")
    print_table(
        ("delivery", "event", "task", "state", "attempts", "created", "next"),
        [[each.get(name) for name in names] for each in found],
    )
    return tell_more(answer.json)


@webhooks.command()
@_number
@_delivery
@asks
def delivery(target: Target, number: int, delivery: int) -> None:
    """Show DELIVERY to webhook NUMBER, with every attempt."""
    answer = target.client.call("GET", f"/webhooks/{number}/deliveries/{delivery}")
    if target.as_json:
        return target.print_json(answer)
    found = answer.json
    names = ("delivery_id", "event", "event_id", "task_id", "replay_of", "state", "created_at", "next_at", "ended_at")
    heads = ("delivery", "event", "event id", "task", "replay of", "state", "created", "next", "ended")
    print_facts([(head, found.get(name)) for head, name in zip(heads, names, strict=True)])
    if attempts := found.get("attempts"):
        click.echo()
        print_table(
            ("attempt", "began", "ms", "status", "error", "answer"),
            [
                [each.get(name) for name in ("attempt", "began_at", "ms", "status", "error", "answer")]
                for each in attempts
            ],
        )
    return None


@webhooks.command()
@_number
@_delivery
@asks
def replay(target: Target, number: int, delivery: int) -> None:
    """Send the event of DELIVERY to webhook NUMBER once more."""
    _tell_sent(target, f"/webhooks/{number}/deliveries/{delivery}/replay")


def _tell_sent(target: Target, path: str) -> None:
    answer = target.client.call("POST", path)
    if target.as_json:
        return target.print_json(answer)
    number, delivery = answer.json.get("webhook_id"), answer.json.get("delivery_id")
    return click.echo(f"sending; see: modelyard webhooks delivery {clean(number)} {clean(delivery)}")


def _tell_secret(told: Json) -> None:
    click.echo(f"secret of webhook {clean(told.get('webhook_id'))}; keep it, as it cannot be shown again:", err=True)
    click.echo(clean(told.get("secret")))
