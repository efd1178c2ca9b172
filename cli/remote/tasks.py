"""modelyard tasks: every durable piece of work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.remote.downloading import archive_format, save_archive, save_files, to_option
from cli.remote.pages import all_option, cursor_option, limit_option, listed, since_option, until_option
from cli.remote.tables import clean, print_facts, print_table, print_warnings
from cli.remote.target import Target, asks

Json = dict[str, Any]
_STATES = ("queued", "running", "finished", "failed", "cancelled")
_KINDS = ("train", "predict", "clear", "import", "upload", "describe")

_number = click.argument("number", type=click.IntRange(1))


@click.group()
def tasks() -> None:
    """Tasks: list, show, follow and cancel them, and save or delete their results."""


@tasks.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only tasks of this state.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only tasks of this kind.")
@click.option("--service", help="Only tasks of this service.")
@since_option
@until_option
@limit_option
@cursor_option
@all_option
@asks
def list_tasks(
    target: Target,
    state: str | None,
    kind: str | None,
    service: str | None,
    since: str | None,
    until: str | None,
    **which: Any,
) -> None:
    """List tasks, the newest first."""
    query = {"state": state, "kind": kind, "service": service, "since": since, "until": until}
    found = listed(target, "/tasks", "tasks", query, **which)
    if found is None:
        return None
    names = ("task_id", "kind", "service", "job", "state", "percent", "created_at")
    head = ("task", "kind", "service", "job", "state", "percent", "created")
    if not found:
        return click.echo("no such task")
    return print_table(head, [[task.get(name) for name in names] for task in found])


@tasks.command()
@_number
@asks
def show(target: Target, number: int) -> None:
    """Show task NUMBER: how far it is, what became of it, its attempts."""
    from cli.remote.following import news_of, print_measures

    answer = target.client.call("GET", f"/tasks/{number}")
    if target.as_json:
        return target.print_json(answer)
    task = answer.json
    failure = task.get("failure") or {}
    print_facts(
        [
            ("task", task.get("task_id")),
            ("kind", task.get("kind")),
            ("service", task.get("service")),
            ("job", task.get("job")),
            ("state", task.get("state")),
            ("percent", task.get("percent")),
            *([("now", news_of(task))] if task.get("state") in {"queued", "running"} else []),
            ("queue", task.get("queue")),
            ("created", task.get("created_at")),
            ("started", task.get("started_at")),
            ("ended", task.get("finished_at")),
            ("version", task.get("version")),
            *([("failure", f"{failure.get('kind')}: {failure.get('message')}")] if failure else []),
            *([("advice", failure["advice"])] if failure.get("advice") else []),
        ]
    )
    print_warnings(task.get("warnings") or ())
    if attempts := task.get("attempts"):
        click.echo()
        names = ("attempt", "worker", "started_at", "ended_at", "outcome")
        print_table(
            ("attempt", "worker", "started", "ended", "outcome"),
            [[each.get(name) for name in names] for each in attempts],
        )
    if task.get("measure"):
        click.echo()
        print_measures(target, task)
    return None


@tasks.command()
@_number
@click.option("--cancel-on-interrupt", "cancels", is_flag=True, help="Let Ctrl-C cancel the task.")
@asks
def follow(target: Target, number: int, cancels: bool) -> None:
    """Follow task NUMBER to its end. Exit code 0: it finished; 1: it failed or was cancelled."""
    from cli.remote.following import finish

    finish(target, number, cancels=cancels)


@tasks.command()
@_number
@click.option("--follow", "follows", is_flag=True, help="Go on until the task is over.")
@asks
def logs(target: Target, number: int, follows: bool) -> None:
    """Print what task NUMBER said. The newest lines are kept, for an hour after its end."""
    from cli.remote.following import print_logs

    print_logs(target, number, follows=follows)


@tasks.command()
@_number
@asks
def cancel(target: Target, number: int) -> None:
    """Ask for the end of task NUMBER, without waiting for it."""
    answer = target.client.call("DELETE", f"/tasks/{number}")
    if target.as_json:
        return target.print_json(answer)
    if answer.code == 202:
        return click.echo(f"task {number} will be cancelled")
    return click.echo(f"task {number} was over already: {clean(answer.json.get('state'))}")


@tasks.command()
@_number
@asks
def delete(target: Target, number: int) -> None:
    """Delete the result of prediction task NUMBER, which must be over."""
    answer = target.client.call("DELETE", f"/tasks/{number}/result")
    if target.as_json:
        return target.print_json(answer)
    return click.echo(f"the result of task {number} is deleted")


@tasks.command()
@_number
@to_option
@asks
def download(target: Target, number: int, to: Path | None) -> None:
    """Download the files of task NUMBER: its report, the result of a prediction, the model of a training."""
    base, place = f"/tasks/{number}", to or Path(f"task-{number}")
    form = archive_format(place)
    if form is not None:
        return save_archive(target, base, place, form, {})
    told = target.client.call("GET", f"{base}/files").json
    return save_files(target, base, place, told.get("files") or (), {})


@tasks.command()
@_number
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Save it there, in the form it has.")
@asks
def result(target: Target, number: int, output: Path | None) -> None:
    """Print or save the result of prediction task NUMBER."""
    from cli.remote.predictions import print_result, save_result

    if output is None:
        return print_result(target, number)
    if not output.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {output.absolute().parent} for --output")
    return save_result(target, number, output)
