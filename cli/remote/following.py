"""Follows a task to its end, with a bar on a terminal and plain lines elsewhere, both on standard error."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from cli.remote.client import Answer, Client, NoAnswer, Refused
from cli.remote.tables import can_draw, clean, counted, print_table, print_warnings, shown
from cli.remote.target import INTERRUPTED, Target

Json = dict[str, Any]

_FINAL = frozenset({"finished", "failed", "cancelled"})
_FIRST_LOOK_S, _LAST_LOOK_S = 0.1, 1.0
# How long a server may be away: as long as one takes to be restarted.
_PATIENCE_S = 60.0
# Of plain lines: what is told of in between, when nothing else happens.
_SAY_EVERY_S = 10.0
_MEASURES_SHOWN = 3
_LINES_AT_ONCE = 500
_ALARMING = frozenset({"warning", "error"})
# What stands among the measures besides them.
_NO_MEASURES = frozenset({"iteration", "elapsed_time_ms", "iter_time", "remain_time", "remain_time_str", "test_id"})


class _Display(Protocol):
    def tell(self, task: Json) -> None:
        """Show how far a task is."""

    def say(self, line: str) -> None:
        """Show a line of its own."""


def follow(
    client: Client,
    task_id: int,
    *,
    cancels: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    said: set[str] | None = None,
) -> Answer:
    """Follow a task until it is over; the answer holds it as it is then.

    cancels : whether Ctrl-C cancels the task; else it only ends the following.
    said : takes the warnings and errors of the task that were shown meanwhile.
    Raises click's Exit with 130 after Ctrl-C, NoAnswer or Refused when the server stays away.
    """
    asked = False
    lines, said = _Lines(client, task_id), set() if said is None else said
    with _display(task_id) as display:
        while True:
            try:
                answer = _to_the_end(client, task_id, display, sleep, lines, said)
                break
            except KeyboardInterrupt:
                if asked or not cancels:
                    display.say(f"no longer followed; it goes on: modelyard tasks follow {task_id}")
                    raise click.exceptions.Exit(INTERRUPTED) from None
            asked = True
            display.say("cancelling; once more stops waiting for it")
            client.call("DELETE", f"/tasks/{task_id}")
    if asked:
        click.echo(f"task {task_id} is {answer.json['state']}", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    return answer


def _to_the_end(
    client: Client,
    task_id: int,
    display: _Display,
    sleep: Callable[[float], None],
    lines: _Lines,
    said: set[str],
) -> Answer:
    step_s, away_since = _FIRST_LOOK_S, None
    while True:
        try:
            answer = client.call("GET", f"/tasks/{task_id}")
        except (NoAnswer, Refused) as error:
            if isinstance(error, Refused) and not error.is_passing:
                raise
            if away_since is None:
                away_since = time.monotonic()
                display.say(f"waiting for the server: {error.message}")
            elif time.monotonic() - away_since > _PATIENCE_S:
                raise
        else:
            away_since = None
            task = answer.json
            display.tell(task)
            for line in lines.new():
                if line.get("level") in _ALARMING:
                    said.add(str(line.get("message")))
                    display.say(clean(f"{line['level']}: {line.get('message')}"))
            if task.get("state") in _FINAL:
                return answer
        sleep(step_s)
        step_s = min(step_s * 1.5, _LAST_LOOK_S)


class _Lines:
    """The log lines of a task, each once."""

    def __init__(self, client: Client, task_id: int) -> None:
        self._client, self._path = client, f"/tasks/{task_id}/logs"
        self._after = 0

    def answers(self) -> Iterator[Answer]:
        """Answers with lines that were not there before. Raises Refused, NoAnswer."""
        while True:
            answer = self._client.call("GET", self._path, query={"after": self._after, "limit": _LINES_AT_ONCE})
            lines = answer.json.get("logs") or []
            if not lines:
                return
            self._after = int(answer.json.get("after") or self._after)
            yield answer
            if len(lines) < _LINES_AT_ONCE:
                return

    def new(self) -> Iterator[Json]:
        """New lines; none from a server that has none, or while it is away."""
        try:
            for answer in self.answers():
                yield from answer.json["logs"]
        except (NoAnswer, Refused):
            return


def print_logs(target: Target, task_id: int, *, follows: bool, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print the log lines of a task, until it is over when they are followed."""
    lines = _Lines(target.client, task_id)
    while True:
        # Asked before the lines are read: one that is over says nothing more.
        is_over = not follows or target.client.call("GET", f"/tasks/{task_id}").json.get("state") in _FINAL
        for answer in lines.answers():
            if target.as_json:
                target.print_json(answer)
                continue
            if dropped := answer.json.get("dropped"):
                click.echo(f"not kept any more: {counted(dropped, 'earlier line')}", err=True)
            for line in answer.json["logs"]:
                click.echo(
                    clean(f"{line.get('time')} {line.get('attempt')} {line.get('level'):7} {line.get('message')}")
                )
        if is_over:
            return
        sleep(_LAST_LOOK_S)


def end_well(task: Json, said: Collection[str] = ()) -> None:
    """Tell how an ended task ended: its warnings, but for those `said` already, and a failure as one line with exit
    code 1.
    """
    state, number = task.get("state"), task.get("task_id")
    warnings = task.get("warnings") or ()
    print_warnings(each for each in warnings if f"{each.get('parameter')}: {each.get('message')}" not in said)
    if state == "cancelled":
        raise click.ClickException(f"task {number} was cancelled")
    if state != "finished":
        failure = task.get("failure") or {}
        advice = f"; {failure['advice']}" if failure.get("advice") else ""
        raise click.ClickException(
            clean(f"task {number} failed ({failure.get('kind')}): {failure.get('message')}{advice}")
        )


def print_measures(target: Target, task: Json) -> None:
    """The final measures of a training, a column for each test set; nothing when it has none."""
    measures: list[Json] = []
    if task.get("report"):
        measures = target.client.call("GET", str(task["report"])).json.get("measures") or []
    measures = measures or [task.get("measure") or {}]
    names = list(dict.fromkeys(name for each in measures for name in each if _is_measure(name, each[name])))
    if names:
        heads = [str(each.get("test_name", "value")) for each in measures]
        print_table(("measure", *heads), [(name, *(_cell(each.get(name)) for each in measures)) for name in names])


def finish(target: Target, task_id: int, *, cancels: bool = False) -> None:
    """Follow a task, and print what came of it."""
    said: set[str] = set()
    answer = follow(target.client, task_id, cancels=cancels, said=said)
    if target.as_json:
        target.print_json(answer)
    task = answer.json
    end_well(task, said)
    if target.as_json:
        return
    version = f", version {task['version']}" if task.get("version") else ""
    click.echo(f"task {task_id} is finished{version}")
    print_measures(target, task)
    if task.get("result"):
        click.echo(f"save its result with: modelyard tasks result {task_id} --output FILE")


def _is_measure(name: str, value: Any) -> bool:
    return name not in _NO_MEASURES and name != "test_name" and value is not None


def _cell(value: Any) -> Any:
    """A number as it is; what has parts, such as a confusion matrix, as text."""
    return json.dumps(value) if isinstance(value, dict | list) else value


# How far a task is, in words


def percent_of(task: Json) -> float | None:
    """How much is done."""
    percent = task.get("percent")
    return float(percent) if isinstance(percent, int | float) else None


def news_of(task: Json, measures_max: int = _MEASURES_SHOWN) -> str:
    """Iteration, the newest measures, and the time that is left; empty when nothing is known."""
    if task.get("state") == "queued":
        before = task.get("queue_position")
        return f"waiting, {before} before it" if before else "waiting for a worker"
    if task.get("state") != "running":
        return str(task.get("state"))
    progress = task.get("progress") or {}
    words = []
    if (iteration := progress.get("iteration")) is not None:
        whole = f"/{progress['iterations']}" if progress.get("iterations") else ""
        words.append(f"iteration {iteration}{whole}")
    elif progress.get("phase"):
        words.append(str(progress["phase"]))
    numbers = {
        name: value
        for name, value in (progress.get("measure") or {}).items()
        if _is_measure(name, value) and isinstance(value, int | float)
    }
    # What a training minimises comes first, however the measures are ordered.
    first = sorted(numbers, key=lambda name: name != "train_loss")[:measures_max]
    words += [f"{name} {shown(float(numbers[name]))}" for name in first]
    remain_s = progress.get("remain_s")
    if isinstance(remain_s, int | float) and remain_s >= 0:
        words.append(f"{_time(remain_s)} left")
    if task.get("cancel_requested"):
        words.append("cancelling")
    return clean("  ".join(words)) or "starting"


def _time(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


# Where it is shown


@contextmanager
def _display(task_id: int) -> Iterator[_Display]:
    if not can_draw():
        yield Lines(task_id)
        return
    with _bar(task_id) as bar:
        yield bar


class Lines:
    """Plain lines: one when something happens, and one now and then."""

    def __init__(self, task_id: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._task_id = task_id
        self._clock = clock
        self._said: tuple[Any, ...] = ()
        self._said_at = float("-inf")

    def tell(self, task: Json) -> None:
        """A line when state or phase changed, a tenth more is done, or the last line is old."""
        percent = percent_of(task)
        phase = (task.get("progress") or {}).get("phase")
        happened = (task.get("state"), phase, task.get("attempt"), None if percent is None else int(percent // 10))
        if happened == self._said and self._clock() - self._said_at < _SAY_EVERY_S:
            return
        self._said, self._said_at = happened, self._clock()
        done = "" if percent is None or task.get("state") != "running" else f"{percent:.0f} %  "
        self.say(f"{done}{news_of(task)}")

    def say(self, line: str) -> None:
        """The line, with the task's number."""
        click.echo(f"task {self._task_id}: {line}", err=True)


@contextmanager
def _bar(task_id: int) -> Iterator[_Display]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    columns = shutil.get_terminal_size().columns
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=max(4, min(30, columns // 6))),
        TaskProgressColumn(),
        # What room is left is its own, so that a narrow terminal cuts the words and not the bar.
        TextColumn("{task.fields[news]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        console=console,
        expand=True,
        refresh_per_second=4,
    )

    class Bar:
        def __init__(self) -> None:
            self._row = progress.add_task(f"task {task_id}", total=None, news="")

        def tell(self, task: Json) -> None:
            percent = percent_of(task)
            is_known = percent is not None and task.get("state") != "queued"
            progress.update(
                self._row,
                total=100.0 if is_known else None,
                completed=percent if is_known else 0.0,
                # On a narrow terminal the measures would push the rest out.
                news=news_of(task, _MEASURES_SHOWN if columns >= 80 else 1),
            )

        def say(self, line: str) -> None:
            console.print(line, soft_wrap=True)

    with progress:
        yield Bar()
