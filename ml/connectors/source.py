"""Where data comes from: a file of this machine, or lines that came with the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import BadInput


@dataclass(frozen=True)
class FileSource:
    """A file; `name` is how the client wrote it and is used in messages and as `uri`."""

    path: Path
    name: str


@dataclass(frozen=True)
class LinesSource:
    """Lines that came with the request, in order."""

    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """How messages call this source."""
        return "in-memory data"


Source = FileSource | LinesSource


def from_json(given: Mapping[str, Any]) -> Source:
    """A source from its JSON form: {"path": …, "name": …} or {"lines": […]}."""
    if "path" in given:
        return FileSource(Path(given["path"]), str(given.get("name") or given["path"]))
    if "lines" in given:
        return LinesSource(tuple(map(str, given["lines"])))
    raise BadInput("missing data: an entry of data is neither a file nor lines")


def to_json(source: Source) -> dict[str, Any]:
    """The JSON form that `from_json` reads."""
    if isinstance(source, FileSource):
        return {"path": str(source.path), "name": source.name}
    return {"lines": list(source.lines)}
