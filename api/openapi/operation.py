"""What the document says of a route beyond what the code knows of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from marshmallow import Schema

from api.schemas.paging import LIMIT, LIMIT_MOST

JSON = "application/json"
_TIME = {"type": "string"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, the path or the headers.

    schema : JSON Schema of its value. example : a value that works in the order in which the examples are made to run.
    """

    name: str
    text: str
    schema: Mapping[str, Any]
    place: str = "query"
    is_required: bool = False
    example: Any = None


def number_in_path(text: str, name: str = "number", example: int = 1) -> Parameter:
    """The number of something, as part of an address."""
    return Parameter(name, text, {"type": "integer", "minimum": 1}, "path", True, example=example)


def limit_of(text: str) -> Parameter:
    """How many members of a list may come at once."""
    schema = {"type": "integer", "minimum": 1, "maximum": LIMIT_MOST, "default": LIMIT}
    return Parameter("limit", text, schema, example=10)


PAGES = (
    limit_of("Most of a page."),
    Parameter("cursor", "`next_cursor` of the page before.", {"type": "string"}),
)
"""Which page of a list is wanted."""

CREATED = (
    Parameter("since", "Only those created at this time or later, in ISO 8601; UTC where no zone is named.", _TIME),
    Parameter("until", "Only those created before this time.", _TIME),
)
"""Which time the members of a list come from."""


@dataclass(frozen=True)
class Link:
    """A request that an answer brings what is needed for.

    to : endpoint and verb of the request. parameters : where each of its parameters stands, as a runtime expression of
    OpenAPI.
    """

    to: tuple[str, str]
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What comes back when all goes well.

    content : by content type, the schema, as a class or as JSON Schema that may hold classes; None where it is no JSON.
    links : what can be asked next, by name.
    """

    text: str
    content: Mapping[str, type[Schema] | Mapping[str, Any] | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)

    def then(self, **links: Link) -> Answer:
        """The same answer with what can be asked next."""
        return replace(self, links={**self.links, **links})


def json_answer(text: str, schema: type[Schema], **headers: str) -> Answer:
    """An answer in JSON; headers by name, with `_` for the hyphen."""
    return Answer(text, {JSON: schema}, {name.replace("_", "-"): said for name, said in headers.items()})


def links_to_task(number: str) -> dict[str, Link]:
    """What can be asked of a task; `number` : where an answer tells its number."""
    given = {"number": number}
    return {
        "task": Link(("tasks.one", "GET"), given),
        "events": Link(("tasks.events", "GET"), given),
        "cancel": Link(("tasks.cancel", "DELETE"), given),
    }


@dataclass(frozen=True)
class Operation:
    """A route and what can be done with it.

    kinds : errors it gives besides those of every route; names of `api.errors.CODES`.
    body : name of the component that its body is, or JSON Schema where it is no JSON; body_type : what it is then.
    examples : bodies by name, each a summary and a value.
    other : what answers of any other status are, if there are such.
    """

    tag: str
    summary: str
    text: str
    answers: Mapping[int, Answer]
    kinds: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: str | Mapping[str, Any] | None = None
    examples: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    other: str | None = None
    body_type: str = JSON
