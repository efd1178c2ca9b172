"""Where data comes from: a file of this machine, or lines that came with the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ml.errors import BadInput
from ml.other_formats import IN_MEMORY


@dataclass(frozen=True)
class FileSource:
    """A file; `name` is how the client wrote it and is used in messages and as `uri`.

    is_resolved : whether the links on the absolute `path` were followed already. One that is there now was put there
        since, to lead elsewhere, and is not followed.
    """

    path: Path
    name: str
    is_resolved: bool = False


class LinesSource:
    """Lines that came with the request, in order: as texts, or `encoded` as an array of JSON without blanks."""

    def __init__(self, lines: Sequence[str] = (), *, encoded: bytes = b"") -> None:
        self._lines, self._encoded = tuple(lines), encoded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinesSource) and self.lines == other.lines

    def __hash__(self) -> int:
        return hash(self.lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines as texts."""
        if not self._lines and self._encoded:
            self._lines = tuple(orjson.loads(self._encoded))
        return self._lines

    @property
    def encoded(self) -> bytes:
        """The lines as an array of JSON."""
        return self._encoded or orjson.dumps(self._lines)

    @property
    def name(self) -> str:
        """How messages call this source."""
        return IN_MEMORY


Source = FileSource | LinesSource


def from_json(given: Mapping[str, Any]) -> Source:
    """A source from its JSON form: {"path": …, "name": …, "resolved": …} or {"lines": […]}."""
    if "path" in given:
        name, is_resolved = str(given.get("name") or given["path"]), bool(given.get("resolved"))
        return FileSource(Path(given["path"]), name, is_resolved)
    if "lines" in given:
        return LinesSource([str(each) for each in given["lines"]])
    raise BadInput("missing data: an entry of data is neither a file nor lines")


def to_json(source: Source) -> dict[str, Any]:
    """The JSON form that `from_json` reads."""
    if isinstance(source, FileSource):
        return {"path": str(source.path), "name": source.name, "resolved": source.is_resolved}
    return {"lines": list(source.lines)}
