"""modelyard doctor: every check, one line each, with the cure of what is wrong."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from cli.remote.target import INTERRUPTED, address, usable_key
from settings import BadSetting, Settings

if TYPE_CHECKING:
    from cli.doctor.findings import Check, Finding

_ROLES = ("up", "api", "worker", "client")


@click.command()
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    default="up",
    show_default=True,
    help="What this machine is to be: everything (up), the API, a worker, or one that only sends requests.",
)
@click.option("--url", envvar="MODELYARD_URL", show_envvar=True, metavar="URL", help="Address of the API.")
@click.option("--key", envvar="MODELYARD_KEY", show_envvar=True, metavar="KEY", help="Key of an account.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, for programs.")
def doctor(role: str, url: str | None, key: str | None, as_json: bool) -> None:
    """Say what is wrong with this installation, and how to mend it.

    Nothing is changed: only a small file, and an object, are written and removed again. Exit code 1 when a check
    fails.
    """
    from cli.doctor.findings import Finding, Status, run

    try:
        settings = Settings.from_env(os.environ)
    except BadSetting as error:
        findings = iter([Finding("settings", Status.FAIL, str(error), "correct that variable, then ask again")])
    else:
        findings = run(checks_of(role, settings, address(url), usable_key(key)))
    found = []
    try:
        for finding in findings:
            found.append(finding)
            if not as_json:
                _print(finding)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    counts = {status: sum(each.status is status for each in found) for status in Status}
    if as_json:
        answer = {"healthy": not counts[Status.FAIL], "findings": [asdict(finding) for finding in found]}
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        click.echo(f"{counts[Status.OK]} ok, {counts[Status.WARN]} to look at, {counts[Status.FAIL]} wrong")
    if counts[Status.FAIL]:
        raise click.exceptions.Exit(1)


def checks_of(role: str, settings: Settings, url: str, key: str | None) -> list[Check]:
    """What is looked at on a machine of that role."""
    from cli.doctor import door, fleet, libraries, machine, stores
    from cli.doctor.findings import Check

    found = [Check("python", machine.python)]
    extras = libraries.extras_of(role, settings)
    for extra in extras:
        # One that hangs ends by itself after its own limit.
        found.append(Check(extra or "packages", partial(libraries.extra, extra), 2 * libraries.IMPORT_S))
    if role in {"worker", "up"} and not {"xgboost", "torch"} & set(extras):
        found.append(Check("engines", libraries.no_engine))
    if role == "up" and settings.redis_url is None:
        found.append(Check("redis-server", libraries.embedded_redis))
    if role != "client":
        found += [
            Check("home", partial(machine.home, settings)),
            Check("data", partial(machine.data_roots, settings)),
            Check("memory", machine.memory),
            Check("files", machine.open_files),
            Check("redis", partial(stores.redis, settings)),
            Check("records", partial(stores.records, settings), 20.0),
            Check("objects", partial(stores.objects, settings), 20.0),
            Check("clocks", partial(stores.clocks, settings), 20.0),
            Check("workers", partial(fleet.workers, settings)),
            Check("queues", partial(fleet.queues, settings), 20.0),
        ]
    if role in {"worker", "up"}:
        found += [
            Check("isolation", partial(machine.isolation, settings)),
            Check("gpu", libraries.gpu, 2 * libraries.IMPORT_S),
            Check("gpu", partial(fleet.gpu_queues, settings)),
        ]
    if role in {"api", "up"}:
        found += [
            Check("ports", partial(door.ports, settings)),
            Check("strangers", partial(door.strangers, settings), 20.0),
        ]
    if role != "worker":
        found.append(Check("api", partial(door.api, url, key), 20.0))
    return found


def _print(finding: Finding) -> None:
    click.echo(f"{finding.status:<4}  {finding.check}: {finding.text}")
    if finding.cure:
        click.echo(f"      {finding.cure}")
