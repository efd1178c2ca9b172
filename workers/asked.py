"""How a prediction and its answer travel: a line of JSON that says what it is, then the data or the result as JSON.

The parts stay apart so that nobody reads what he need not: the head of a request is the same for every request with the
same options, and the result goes through the API as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import orjson

from ml.json_text import dump

if TYPE_CHECKING:
    from ml.serving import Prediction

Json = dict[str, Any]

DATA_COMING = "data_coming"
"""The kind of the answer that the data of a request are still being fetched: to be asked again, under its number."""


@dataclass(frozen=True)
class Asked:
    """A prediction to be made.

    head : JSON object that says with which model and options.
    data : entries, as an array of JSON without blanks; empty when they lie in the object store.
    trace : what `workers.tracing` carries along; not in the head, which is the same for many requests.
    """

    head: bytes
    data: bytes
    trace: str = ""

    def joined(self) -> bytes:
        """What `split` reads."""
        joined = self.head + b"\n" + self.data
        return joined + b"\n" + self.trace.encode() if self.trace else joined

    @classmethod
    def split(cls, asked: bytes) -> Asked:
        """What `joined` wrote."""
        head, _, rest = asked.partition(b"\n")
        data, _, rest = rest.partition(b"\n")
        # What a later version of this program adds comes on further lines.
        return cls(head, data, rest.partition(b"\n")[0].decode())


@dataclass(frozen=True)
class Answer:
    """What came of a prediction.

    name : of the result, "predictions" or "measure"; empty for an error. content : the result as JSON. count : rows.
    timings : milliseconds by part. error : kind, message and section.
    together : how many requests were computed at once.
    """

    name: str
    content: bytes
    count: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: list[dict[str, str]] = field(default_factory=list)
    error: Json | None = None
    together: int = 1

    @classmethod
    def split(cls, answer: bytes) -> Answer:
        """What `told` and `failed` wrote."""
        head, _, content = answer.partition(b"\n")
        # Members that a later version of this program adds are nothing to this one.
        known = {name: value for name, value in orjson.loads(head).items() if name in _MEMBERS}
        return cls(content=content, **known)


_MEMBERS = frozenset(each.name for each in fields(Answer)) - {"content"}


def told(made: Prediction, timings: Mapping[str, float], together: int, rows: int) -> bytes:
    """The answer with a result, which is of so many rows."""
    result: Any = made.predictions if made.measure is None else made.measure
    head: Json = {
        "name": "predictions" if made.measure is None else "measure",
        "count": rows,
        "timings": {name: round(value, 3) for name, value in timings.items()},
        "together": together,
    }
    if made.warnings:
        head["warnings"] = [each.as_json() for each in made.warnings]
    return orjson.dumps(head) + b"\n" + dump(result)


def failed(kind: str, message: str, section: str | None = None) -> bytes:
    """The answer that there is none."""
    error = {"kind": kind, "message": message, "section": section}
    return orjson.dumps({"name": "", "error": error}) + b"\n"
