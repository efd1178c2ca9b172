"""Mustache templates in the dialect of the DeepDetect API, which no library speaks.

    {{a.b}}                 the value, with & " ' < > escaped as in HTML; nothing when there is none
    {{{a.b}}}  {{&a.b}}     the value as it is
    {{.}}                   the value that the section has entered
    {{%a}}                  how many members an array, or characters a text, has
    {{#a}}…{{/a}}           once for each member of an array, else once when `a` is there and not false; enters it
    {{?a}}…{{/a}}           once when `a` is there and not false; enters nothing
    {{^a}}…{{/a}}           once when `a` is missing or false; enters nothing
    {{=a word}}…{{/a}}      once when `a` is that text, in upper or lower case; enters nothing
    {{!=a word}}…{{/a}}     once when it is not; enters nothing
    {{! anything }}         nothing

Unlike in other dialects names are looked up in the value entered last and nowhere else, only false, null and what is
missing count as false (an empty array, 0 and an empty text do not), lines that hold tags only are kept, and numbers
that are not whole are written with six significant digits. Keys with dots or spaces stand in quotes: {{a."b c".d}}.
Partials, blocks and other delimiters are refused: a template is one text that reads one document.

A template is compiled once and then takes time and memory in proportion to what it writes, with limits on all of it.
"""

from __future__ import annotations

import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

TEMPLATE_LIMIT = 65536
"""Characters of a template."""

DEPTH_LIMIT = 32
"""Sections inside each other."""

OUTPUT_LIMIT = 64 * 2**20
"""Characters that a template may write."""

STEP_LIMIT = 20_000_000
"""Pieces of a template, text or tag, that may be gone through, those in sections each time again."""

_NAME = r'(?:"[^"{}]+"|[^\s."{}]+)(?:\.(?:"[^"{}]+"|[^\s."{}]+))*'
_PATH = re.compile(rf"\.|\.*{_NAME}\.*")
_PART = re.compile(r'"([^"]+)"|([^".]+)')
_COMPARED = re.compile(rf"({_NAME})\s+(.+)", re.DOTALL)
_ESCAPES = str.maketrans({"&": "&amp;", '"': "&quot;", "'": "&apos;", "<": "&lt;", ">": "&gt;"})
_REFUSED = {
    ">": "partials are not offered: write the text here",
    "<": "parents are not offered: write the text here",
    "$": "blocks are not offered: write the text here",
    "*": "dynamic names are not offered: write the name",
    "~": "values are not written as JSON: leave the template out to get JSON",
}

_Path = tuple[str, ...]


class BadTemplate(ValueError):
    """A text is no template of this dialect; `str(error)` says where and why."""


class TooMuch(Exception):
    """A template writes or does more than it may on the document it was given."""


@lru_cache(maxsize=32)
def compiled(text: str) -> Template:
    """The template of a text; the last ones are remembered. Raises BadTemplate."""
    return Template(_Parser(text).parse())


class Template:
    """A compiled template, for any number of documents and threads."""

    def __init__(self, body: Sequence[_Piece]) -> None:
        self._body = body

    def render(self, document: Any) -> str:
        """What the template makes of a JSON document, as Python has it. Raises TooMuch."""
        output = _Output()
        output.run(self._body, document)
        return output.text()


class _Output:
    """What was written, and how much more may be."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self._characters_left = OUTPUT_LIMIT
        self._steps_left = STEP_LIMIT

    def run(self, body: Sequence[_Piece], context: Any) -> None:
        self._steps_left -= len(body) + 1
        if self._steps_left < 0:
            raise TooMuch(f"it takes more than {STEP_LIMIT} steps; use fewer sections on long arrays")
        for piece in body:
            piece.render(context, self)

    def write(self, text: str) -> None:
        self._characters_left -= len(text)
        if self._characters_left < 0:
            raise TooMuch(f"it writes more than {OUTPUT_LIMIT} characters; write less, or predict on less data at once")
        self._file.write(text)

    def text(self) -> str:
        return self._file.getvalue()


# Pieces of a template


class _Piece(ABC):
    """Text between tags, a tag, or a section with its body."""

    __slots__ = ()

    @abstractmethod
    def render(self, context: Any, output: _Output) -> None:
        """Write what the piece makes of the value entered last."""


@dataclass(frozen=True, slots=True)
class _Text(_Piece):
    text: str

    def render(self, context: Any, output: _Output) -> None:
        output.write(self.text)


@dataclass(frozen=True, slots=True)
class _Value(_Piece):
    path: _Path
    is_raw: bool

    def render(self, context: Any, output: _Output) -> None:
        value = _found(context, self.path)
        if isinstance(value, str):
            output.write(value if self.is_raw else value.translate(_ESCAPES))
        elif isinstance(value, bool):
            output.write("true" if value else "false")
        elif isinstance(value, int):
            output.write(str(value))
        elif isinstance(value, float) and math.isfinite(value):  # as in JSON answers, which hold no others
            output.write(f"{value:.6g}")


@dataclass(frozen=True, slots=True)
class _Length(_Piece):
    path: _Path

    def render(self, context: Any, output: _Output) -> None:
        value = _found(context, self.path)
        if isinstance(value, list | str):
            output.write(str(len(value)))


@dataclass(frozen=True, slots=True)
class _Section(_Piece):
    path: _Path
    body: list[_Piece]


@dataclass(frozen=True, slots=True)
class _Each(_Section):
    def render(self, context: Any, output: _Output) -> None:
        value = _found(context, self.path)
        if isinstance(value, list):
            for each in value:
                output.run(self.body, each)
        elif value is not None and value is not False:
            output.run(self.body, value)


@dataclass(frozen=True, slots=True)
class _If(_Section):
    wanted: bool

    def render(self, context: Any, output: _Output) -> None:
        value = _found(context, self.path)
        if (value is not None and value is not False) is self.wanted:
            output.run(self.body, context)


@dataclass(frozen=True, slots=True)
class _Equal(_Section):
    word: str
    wanted: bool

    def render(self, context: Any, output: _Output) -> None:
        value = _found(context, self.path)
        # In lower case no text is shorter: a long one need not be gone through each time again.
        is_equal = isinstance(value, str) and len(value) <= len(self.word) and value.lower() == self.word
        if is_equal is self.wanted:
            output.run(self.body, context)


def _found(context: Any, path: _Path) -> Any:
    """The value at `path`; None when it is null or nothing is there."""
    for key in path:
        if not isinstance(context, dict):
            return None
        context = context.get(key)
    return context


# Parsing


@dataclass(frozen=True)
class _Open:
    """A section whose end is yet to come. name : as its end says it. start : where it begins in the template."""

    name: str
    start: int
    body: list[_Piece]


class _Parser:
    """Reads a template from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = 0  # of the tag that is read
        self._root: list[_Piece] = []
        self._open: list[_Open] = []

    def parse(self) -> list[_Piece]:
        """All pieces, those in sections inside of them. Raises BadTemplate."""
        text, position = self._text, 0
        if len(text) > TEMPLATE_LIMIT:
            raise BadTemplate(f"it has {len(text)} characters; {TEMPLATE_LIMIT} are the most")
        while True:
            self._start = text.find("{{", position)
            literal = text[position : self._start] if self._start >= 0 else text[position:]
            if literal:
                self._body.append(_Text(literal))
            if self._start < 0:
                break
            braces = 3 if text.startswith("{{{", self._start) else 2
            end = text.find("}" * braces, self._start + braces)
            if end < 0:
                raise self._error(f"the tag is not closed; end it with {'}' * braces}")
            tag = text[self._start + braces : end].strip()
            position = end + braces
            if braces == 3:
                self._body.append(_Value(self._path(tag), is_raw=True))
            else:
                self._take(tag)
        if self._open:
            last = self._open[-1]
            raise self._error(f"the section is not closed; end it with {{{{/{last.name}}}}}", last.start)
        return self._root

    @property
    def _body(self) -> list[_Piece]:
        return self._open[-1].body if self._open else self._root

    def _take(self, tag: str) -> None:
        """A tag with two braces."""
        if not tag:
            raise self._error("the tag is empty; name a value, as in {{head.service}}")
        operator, rest = tag[0], tag[1:].strip()
        if tag.startswith("!="):
            self._compare(tag[2:].strip(), wanted=False)
        elif operator == "=":
            self._compare(rest, wanted=True)
        elif operator == "#":
            self._enter(_Each(self._path(rest), []), rest)
        elif operator in "?^":
            self._enter(_If(self._path(rest), [], wanted=operator == "?"), rest)
        elif operator == "/":
            self._leave(rest)
        elif operator == "%":
            self._body.append(_Length(self._path(rest)))
        elif operator == "&":
            self._body.append(_Value(self._path(rest), is_raw=True))
        elif operator in _REFUSED:
            raise self._error(_REFUSED[operator])
        elif operator != "!":
            self._body.append(_Value(self._path(tag), is_raw=False))

    def _compare(self, rest: str, *, wanted: bool) -> None:
        if rest.endswith("="):
            raise self._error("delimiters cannot be changed: tags stand in {{ and }}")
        found = _COMPARED.fullmatch(rest)
        if found is None:
            raise self._error("a comparison needs a name and a text, as in {{=cat dog}}")
        self._enter(_Equal(self._path(found[1]), [], found[2].lower(), wanted), found[1])

    def _enter(self, section: _Section, name: str) -> None:
        if len(self._open) == DEPTH_LIMIT:
            raise self._error(f"more than {DEPTH_LIMIT} sections stand inside each other")
        self._body.append(section)
        self._open.append(_Open(name, self._start, section.body))

    def _leave(self, name: str) -> None:
        if not self._open:
            raise self._error(f"{{{{/{name[:40]}}}}} closes no section: none is open")
        opened = self._open[-1]
        if name.strip(".") != opened.name.strip("."):
            raise self._error(f"{{{{/{name[:40]}}}}} stands where {{{{/{opened.name}}}}} must close the open section")
        self._open.pop()

    def _path(self, name: str) -> _Path:
        if not _PATH.fullmatch(name):
            shown = name if len(name) <= 40 else name[:39] + "…"
            raise self._error(f"{shown!r} is no name; names are keys with dots between them, as in {{{{head.time}}}}")
        return () if name == "." else tuple(quoted or plain for quoted, plain in _PART.findall(name))

    def _error(self, why: str, start: int | None = None) -> BadTemplate:
        """The error for what begins at `start`, or at the tag that is read."""
        start = self._start if start is None else start
        line = self._text.count("\n", 0, start) + 1
        column = start - self._text.rfind("\n", 0, start)
        return BadTemplate(f"line {line} column {column}: {why}")
