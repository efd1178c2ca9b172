"""Tells how much of a file is sent: a bar on a terminal, plain lines elsewhere, both on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from cli.remote.tables import can_draw, clean

# Of plain lines: what is told of in between.
_SAY_EVERY_S = 10.0


class Meter(Protocol):
    """Where it is shown."""

    def tell(self, sent: int) -> None:
        """Show that so many bytes are sent."""

    def say(self, line: str) -> None:
        """Show a line of its own."""


@contextmanager
def metered(name: str, size: int) -> Iterator[Meter]:
    """Show the sending of a file of `size` bytes."""
    if not can_draw():
        yield _Lines(clean(name), size)
        return
    with _bar(clean(name), size) as bar:
        yield bar


class _Lines:
    """A line now and then; none for what is sent in a moment."""

    def __init__(self, name: str, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._size = size
        self._clock = clock
        self._said_at = clock()

    def tell(self, sent: int) -> None:
        if self._clock() - self._said_at >= _SAY_EVERY_S:
            self._said_at = self._clock()
            self.say(f"{100 * sent // max(self._size, 1)} %  {sent} of {self._size} bytes are sent")

    def say(self, line: str) -> None:
        click.echo(f"{self._name}: {line}", err=True)


@contextmanager
def _bar(name: str, size: int) -> Iterator[Meter]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = shutil.get_terminal_size().columns
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    # On a narrow terminal sizes and times would push the rest out.
    more = (DownloadColumn(binary_units=True), TimeRemainingColumn()) if columns >= 80 else ()
    progress = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=max(4, min(30, columns // 6))),
        TaskProgressColumn(),
        *more,
        console=console,
        expand=True,
        refresh_per_second=4,
    )

    class Bar:
        def __init__(self) -> None:
            self._row = progress.add_task(name, total=max(size, 1))

        def tell(self, sent: int) -> None:
            progress.update(self._row, completed=sent if size else 1)

        def say(self, line: str) -> None:
            console.print(line, soft_wrap=True)

    with progress:
        yield Bar()
