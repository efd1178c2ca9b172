"""modelyard train: starts a training and follows it."""

from __future__ import annotations

from typing import Any

import click

from cli.remote.given import parameters_option, put, read_data
from cli.remote.tables import clean, print_warnings
from cli.remote.target import Target, asks

Json = dict[str, Any]


@click.command()
@click.argument("service")
@click.argument("data", nargs=-1, required=True, metavar="DATA…")
@parameters_option
@click.option(
    "--test-split", type=click.FloatRange(0, 1, max_open=True), help="Which part of the data to keep for testing."
)
@click.option("--measure", "measures", multiple=True, help="What to measure, such as acc; repeat it for several.")
@click.option("--no-wait", is_flag=True, help="End when the training is accepted.")
@click.option("--cancel-on-interrupt", "cancels", is_flag=True, help="Let Ctrl-C cancel the training.")
@asks
def train(
    target: Target,
    service: str,
    data: tuple[str, ...],
    parameters: Json | None,
    test_split: float | None,
    measures: tuple[str, ...],
    no_wait: bool,
    cancels: bool,
) -> None:
    """Train SERVICE with DATA and follow it to the end.

    DATA are paths on the server, the training set first, or rows with their header first; @FILE sends the rows of a
    file of this machine, and - those of standard input. Ctrl-C ends the following, not the training.
    """
    wanted = parameters or {}
    put(wanted, "input", "test_split", test_split)
    put(wanted, "output", "measure", list(measures) or None)
    body = {"service": service, "async": True, "parameters": wanted, "data": read_data(data)}
    answer = target.client.call("POST", "/train", body)
    head = answer.json.get("head") or {}
    if no_wait and target.as_json:
        return target.print_json(answer)
    task_id = int(head["task_id"])
    click.echo(f"task {task_id}: job {head.get('job')} of {clean(service)} is accepted", err=not no_wait)
    if no_wait:
        print_warnings(head.get("warnings") or ())
        return click.echo(f"follow it with: modelyard tasks follow {task_id}")
    from cli.remote.following import finish

    return finish(target, task_id, cancels=cancels)
