"""modelyard predict: predictions as tables, at once or as a task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from cli.remote.given import parameters_option, put, read_data
from cli.remote.target import Target, asks

Json = dict[str, Any]
_NEGATIVE = re.compile(r"-\.?\d")
_FORMATS = ("json", "jsonl", "parquet")


class _TakesRows(click.Command):
    """A command to which -1.5,2 is a row, not an option: none is named by a digit."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Part of click: as always, with what stands in its place behind a --."""
        with_value = {
            name for each in self.params if isinstance(each, click.Option) and not each.is_flag for name in each.opts
        }
        options: list[str] = []
        places: list[str] = []
        words = iter(args)
        for word in words:
            if word == "--":
                places += words
            elif word in with_value:
                value = next(words, None)
                if value is None:
                    return super().parse_args(ctx, [word])  # which tells that it needs one
                options += [word, value]
            elif word == "-" or not word.startswith("-") or _NEGATIVE.match(word):
                places.append(word)
            else:
                options.append(word)
        return super().parse_args(ctx, [*options, "--", *places])


@click.command(cls=_TakesRows)
@click.argument("service")
@click.argument("data", nargs=-1, required=True, metavar="DATA…")
@click.option("--best", type=click.IntRange(-1), help="How many classes to tell of each row; -1 for all.")
@parameters_option
@click.option("--async", "as_task", is_flag=True, help="Predict as a task, and follow it: for many rows.")
@click.option("--no-wait", is_flag=True, help="With --async: end when the task is accepted.")
@click.option("--cancel-on-interrupt", "cancels", is_flag=True, help="With --async: let Ctrl-C cancel the task.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="With --async: save the result there.")
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="Form of the result. Default: by the name of --output."
)
@asks
def predict(
    target: Target,
    service: str,
    data: tuple[str, ...],
    best: int | None,
    parameters: Json | None,
    as_task: bool,
    no_wait: bool,
    cancels: bool,
    output: Path | None,
    form: str | None,
) -> None:
    """Predict with SERVICE, and print a table.

    DATA are rows, or paths on the server; @FILE sends the rows of a file of this machine, and - those of standard
    input. A row that begins with a minus sign and no number comes after a lone --.
    """
    _check_together(as_task, no_wait, cancels, output, form)
    wanted = parameters or {}
    put(wanted, "output", "best", best)
    body: Json = {"service": service, "parameters": wanted, "data": read_data(data)}
    if not as_task:
        answer = target.client.call("POST", "/predict", body)
        if target.as_json:
            return target.print_json(answer)
        from cli.remote.predictions import print_answer

        return print_answer(answer)
    form = form or (output.suffix[1:].lower() if output else None)
    put(wanted, "output", "format", form if form in _FORMATS else "json" if output else None)
    answer = target.client.call("POST", "/predict", {**body, "async": True})
    if no_wait:
        return _accepted(target, answer.json, answer.text)
    return _follow(target, int(answer.json["head"]["task_id"]), cancels, output)


def _check_together(as_task: bool, no_wait: bool, cancels: bool, output: Path | None, form: str | None) -> None:
    given = {"--no-wait": no_wait, "--cancel-on-interrupt": cancels, "--output": output, "--format": form}
    if not as_task and (names := [name for name, value in given.items() if value]):
        raise click.UsageError(f"{', '.join(names)} needs --async")
    if no_wait and output:
        raise click.UsageError("--no-wait and --output exclude each other")
    if form == "parquet" and not (output or no_wait):
        raise click.UsageError("--format parquet needs --output")
    if output and not output.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {output.absolute().parent} for --output")


def _accepted(target: Target, answer: Json, text: str) -> None:
    from cli.remote.tables import print_warnings

    if target.as_json:
        return click.echo(text)
    head = answer.get("head") or {}
    print_warnings(head.get("warnings") or ())
    return click.echo(f"task {head['task_id']} is accepted; follow it with: modelyard tasks follow {head['task_id']}")


def _follow(target: Target, task_id: int, cancels: bool, output: Path | None) -> None:
    from cli.remote.following import end_well, follow
    from cli.remote.predictions import print_result, save_result

    ended = follow(target.client, task_id, cancels=cancels)
    if target.as_json and (output or ended.json.get("state") != "finished"):
        target.print_json(ended)
    end_well(ended.json)
    if output:
        save_result(target, task_id, output)
    else:
        print_result(target, task_id)
