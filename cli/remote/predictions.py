"""Predictions as tables, and the results of prediction tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from cli.remote.client import Answer
from cli.remote.tables import print_facts, print_table, print_warnings, shown
from cli.remote.target import Target

Json = dict[str, Any]

_ROWS_SHOWN = 100
"""Predictions of a task that are printed; all of them can be saved."""


def print_answer(answer: Answer) -> None:
    """Print what /predict answers: its predictions or measures as a table, anything else as it is."""
    try:
        value = json.loads(answer.text)
    except ValueError:
        value = None
    body = value.get("body") if isinstance(value, dict) else None
    if not isinstance(body, dict):  # a template or another host made it
        return click.echo(answer.text)
    print_warnings((value.get("head") or {}).get("warnings") or ())
    if "measure" in body:
        return print_facts((name, _measured(found)) for name, found in body["measure"].items())
    return print_predictions(body.get("predictions") or [])


def print_predictions(predictions: Sequence[Json]) -> None:
    """Print a row for each class, target, loss or list of values."""
    kinds = {kind for one in predictions for kind in _READERS if kind in one}
    if len(kinds) != 1:
        return click.echo("no predictions" if not predictions else json.dumps(predictions, ensure_ascii=False))
    kind = kinds.pop()
    head, reader = _READERS[kind]
    return print_table(head, [row for one in predictions for row in reader(str(one.get("uri")), one.get(kind))])


def _measured(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _classes(uri: str, found: Any) -> Iterator[tuple[Any, ...]]:
    for one in found:
        yield uri, str(one.get("cat")), one.get("prob")
    if not found:  # none was probable enough
        yield uri, "-", None


def _targets(uri: str, found: Any) -> Iterator[tuple[Any, ...]]:
    for one in found:
        yield uri, str(one.get("cat")), one.get("val")


def _losses(uri: str, found: Any) -> Iterator[tuple[Any, ...]]:
    for one in found:
        yield uri, one.get("loss")


def _values(uri: str, found: Any) -> Iterator[tuple[Any, ...]]:
    yield uri, found if isinstance(found, str) else " ".join(shown(each) for each in found)


_READERS = {
    "classes": (("uri", "class", "probability"), _classes),
    "vector": (("uri", "target", "value"), _targets),
    "losses": (("uri", "loss"), _losses),
    "vals": (("uri", "values"), _values),
}


def print_result(target: Target, task_id: int) -> None:
    """Print the result of a task: as it is with --json, else its first predictions as a table."""
    answer = target.client.call("GET", f"/tasks/{task_id}/result")
    if target.as_json:
        return target.print_json(answer)
    try:
        value = json.loads(answer.text)
    except ValueError:
        value = None
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        body = value["body"]
        if "measure" in body:
            return print_answer(answer)
        return _print_first(body.get("predictions") or [], task_id)
    try:
        return _print_first([json.loads(line) for line in answer.text.splitlines() if line], task_id)
    except ValueError:
        raise click.ClickException(
            f"the result is no text; save it with: modelyard tasks result {task_id} --output FILE"
        ) from None


def _print_first(predictions: Sequence[Json], task_id: int) -> None:
    print_predictions(predictions[:_ROWS_SHOWN])
    if len(predictions) > _ROWS_SHOWN:
        more = len(predictions) - _ROWS_SHOWN
        click.echo(f"and {more} more; save all with: modelyard tasks result {task_id} --output FILE", err=True)


def save_result(target: Target, task_id: int, output: Path) -> None:
    """Save the result of a task."""
    size = target.client.save(f"/tasks/{task_id}/result", output.absolute())
    click.echo(f"{size} bytes are saved in {output}", err=target.as_json)
