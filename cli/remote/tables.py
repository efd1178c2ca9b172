"""Tables and lines for people, on a terminal of any width or in a file."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

# Wider than any table: in a file nothing is folded.
_UNFOLDED = 1_000_000
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def clean(text: object) -> str:
    """`text` on one line without control characters: what a server tells must not steer a terminal."""
    return "".join(
        char if char.isprintable() else " " if char in "\n\r\t" else char.encode("unicode_escape").decode()
        for char in str(text)
    )


def can_draw() -> bool:
    """Whether standard error is a terminal on which a bar can move."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown", ""}


def shown(value: Any) -> str:
    """A value as a cell shows it: six significant digits, nothing for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return clean(value)


def counted(count: Any, noun: str, several: str = "") -> str:
    """A number with what it counts, as in `1 task` and `2 tasks`. several : the plural that has more than an s."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def size(count: int) -> str:
    """A number of bytes as people read it, in units of 1024."""
    amount, unit = float(count), 0
    while round(amount, 1) >= 1024:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows below a head. Numbers stand to the right; on a narrow terminal long cells are folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(head):
        is_number = bool(cells) and all(
            isinstance(row[place], int | float | None) and not isinstance(row[place], bool) for row in cells
        )
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(shown(value)) for value in row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNFOLDED
    drawn = io.StringIO()
    Console(file=drawn, width=max(width, 20), color_system=None, force_terminal=False, legacy_windows=False).print(
        table
    )
    for line in drawn.getvalue().splitlines():
        click.echo(line.rstrip())


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line."""
    told = [(name, shown(value)) for name, value in facts]
    width = max(len(name) for name, _ in told)
    for name, value in told:
        click.echo(f"{name.ljust(width)}  {value}".rstrip())


def print_warnings(warnings: Iterable[Any]) -> None:
    """Tell on standard error what had no effect, or another one than asked."""
    for warning in warnings:
        text = warning.get("message", warning) if isinstance(warning, dict) else warning
        click.echo(f"warning: {clean(text)}", err=True)
