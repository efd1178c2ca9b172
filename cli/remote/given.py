"""What commands are given: parameters as JSON, and data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

Json = dict[str, Any]


def json_object(context: click.Context, parameter: click.Parameter, value: str | None) -> Json | None:
    """The JSON object of an option: itself, when it begins with a brace, else what the file of that name holds.

    Raises click's BadParameter.
    """
    if value is None:
        return None
    text, where = value, "it"
    if not value.lstrip().startswith("{"):
        where = value
        try:
            text = Path(value).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8"
            raise click.BadParameter(f"{where} cannot be read: {reason}; give a file, or an object '{{…}}'") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{where} holds no JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"{where} holds no JSON object")
    return found


def parameters_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --parameters."""
    return click.option(
        "--parameters",
        callback=json_object,
        metavar="JSON",
        help="The object `parameters` of the request: a file that holds it, or itself, as '{\"mllib\": {…}}'. "
        "Other options win over it.",
    )(command)


def put(parameters: Json, section: str, name: str, value: Any) -> None:
    """Set `parameters.section.name`, unless there is nothing to set. Raises a usage error where no object is."""
    if value is None or value == ():
        return
    inside = parameters.setdefault(section, {})
    if not isinstance(inside, dict):
        raise click.BadParameter(f"parameters.{section} is no object", param_hint="--parameters")
    inside[name] = value


def read_data(words: Sequence[str]) -> list[str]:
    """The `data` of a request: `-` stands for the lines of standard input, `@FILE` for those of a file here.

    Anything else goes as it is: a path on the server, or a row. Raises usage errors.
    """
    if words.count("-") > 1:
        raise click.UsageError("standard input can be read once: give - once")
    data: list[str] = []
    for word in words:
        if word == "-":
            data += _lines(sys.stdin.buffer.read(), "standard input")
        elif word.startswith("@"):
            try:
                data += _lines(Path(word[1:]).read_bytes(), word[1:])
            except (OSError, ValueError) as error:
                raise click.UsageError(f"{word[1:]} cannot be read: {getattr(error, 'strerror', error)}") from None
        else:
            data.append(word)
    return data


def _lines(content: bytes, where: str) -> list[str]:
    try:
        lines = [line for line in content.decode("utf-8-sig").replace("\r\n", "\n").split("\n") if line.strip()]
    except UnicodeDecodeError:
        raise click.UsageError(f"{where} is no UTF-8") from None
    if not lines:
        raise click.UsageError(f"{where} holds no line")
    return lines
