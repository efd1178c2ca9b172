"""Every option of `input`, `mllib` and `output` is given values that are none of its own, and refused by its name.

The walk follows the schema classes, so that an option that is added is walked over as well.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from marshmallow.fields import Field

from ml.errors import BadParameter
from ml.options.catalog import connectors, libraries
from ml.options.loading import Choice, Flag, Group, Json, Range, Real, Several, Table, Text, Whole, schema_of
from ml.options.output import OutputOptions
from ml.options.requests import load_prediction, load_service, load_training

NESTED: Any = []
for _ in range(90):
    NESTED = [NESTED]
HUGE = 10**30
#: Too large for a double as well.
LARGER = 10**400

NUMBERS = (1, 2.5, HUGE, LARGER, -LARGER, math.nan, math.inf, -math.inf)
OBJECTS = ({}, {"a": 1}, {"a": {"b": None}})
LISTS = ([], ["a"], [1, [2]], [None], [{}], NESTED)
WORDS = ("", "1", "true", "null", "\ud800", "x" * 100_000)


@dataclasses.dataclass(frozen=True)
class Option:
    """An option where it stands in a request: the members on the way to it, its kind and its schema."""

    place: str
    path: tuple[str, ...]
    kind: Field[Any]
    library: str = "xgboost"
    connector: str = "csv"

    @property
    def name(self) -> str:
        return ".".join(self.path)


def of(place: str, into: type, path: tuple[str, ...], **where: str) -> Iterator[Option]:
    for kind in schema_of(into).fields.values():
        here = (*path, str(kind.data_key))
        yield Option(place, here, kind, **where)
        if isinstance(kind, Group):
            yield from of(str(kind.data_key), kind.into, here, **where)


def every_option() -> list[Option]:
    found: list[Option] = []
    for name, each in connectors().items():
        found += of(name, each.options, ("parameters", "input"), connector=name)
    for name, library in libraries().items():
        found += of(name, library.options, ("parameters", "mllib"), library=name)
    found += of("output", OutputOptions, ("parameters", "output"))
    return found


EVERY = every_option()


def wrong_values(kind: Field[Any]) -> list[Any]:
    """Values that the kind of an option forbids, from its class and its validators."""
    wrong: list[Any] = []
    match kind:
        case Group():
            wrong = [*NUMBERS, *WORDS, *LISTS, True, False]
        case Several():
            inner = [each for each in wrong_values(kind.inner) if not isinstance(each, list)]
            wrong = [*inner, *([each] for each in inner), *([allowed_value(kind.inner), each] for each in inner)]
            # A list of lists is right only where the members are lists.
            if not isinstance(kind.inner, Several):
                wrong += [[[allowed_value(kind.inner)]], [None], NESTED]
        case Table():
            wrong = [*NUMBERS, *WORDS, *LISTS, True, *({"a": each} for each in wrong_values(kind.inner))]
            wrong.append({"a": None})
        case Flag():
            wrong = [2, -1, 0.5, 1.5, HUGE, math.nan, math.inf, *WORDS, *OBJECTS, *LISTS]
        case Whole():
            wrong = [0.5, 1.5, *NUMBERS[1:], -HUGE, 1e30, True, False, *WORDS, *OBJECTS, *LISTS]
        case Real():
            wrong = [LARGER, -LARGER, math.nan, math.inf, -math.inf, True, False, *WORDS, *OBJECTS, *LISTS]
        case Text():
            wrong = [0, *NUMBERS, True, False, *OBJECTS, *LISTS]
        case Json():
            return []
        case _:
            raise AssertionError(f"the walk does not know {type(kind).__name__}")
    return wrong + beyond(kind)


def beyond(kind: Field[Any]) -> list[Any]:
    """Values of the right type that the validators forbid."""
    whole = isinstance(kind, Whole) or (isinstance(kind, Several) and isinstance(kind.inner, Whole))
    found: list[Any] = []
    for each in kind.validators:
        if isinstance(each, Range):
            if each.low is not None:
                found.append(each.low if each.above else each.low - 1 if whole else below(each.low))
                found += [-HUGE, -HUGE - 0.5 if not whole else -HUGE]
            if each.high is not None:
                found += [each.high + 1 if whole else above(each.high), HUGE]
        elif isinstance(each, Choice):
            found += ["", "no such word", each.words[0] + " ", each.words[0] + "\n", each.words[0] + "\0"]
        else:
            raise AssertionError(f"the walk does not know {type(each).__name__}")
    return found


def below(number: float) -> float:
    return math.nextafter(number, -math.inf)


def above(number: float) -> float:
    return math.nextafter(number, math.inf)


def allowed_value(kind: Field[Any]) -> Any:
    match kind:
        case Several():
            return [allowed_value(kind.inner)]
        case Whole() | Real():
            return 1
        case Flag():
            return True
        case Text():
            return "a"
    return {}


def request_with(option: Option, value: Any) -> dict[str, Any]:
    """A creation request that holds the option, and otherwise what is needed."""
    body: dict[str, Any] = {
        "mllib": option.library,
        "description": "walk",
        "type": "supervised",
        "model": {"repository": "walk"},
        "parameters": {
            "input": {"connector": option.connector, **({"label": "y"} if option.connector == "csv" else {})},
            "mllib": {"nclasses": 2},
            "output": {},
        },
    }
    if option.library == "xgboost":
        body["parameters"]["mllib"]["iterations"] = 1
    at = body
    for member in option.path[:-1]:
        at = at.setdefault(member, {})
    at[option.path[-1]] = value
    return body


def readers(option: Option) -> list[Any]:
    """Everything that reads the parameters of a request: of a creation, a training and a prediction."""
    return [
        load_service,
        lambda body: load_training(option.library, option.connector, body["parameters"]),
        lambda body: load_prediction(option.library, option.connector, body["parameters"]),
    ]


def told(value: Any) -> str:
    text = repr(value) if not (isinstance(value, int) and abs(value) >= LARGER) else "a huge number"
    return text[:60]


def outcome(reader: Any, body: Any) -> BadParameter | str:
    try:
        reader(body)
    except BadParameter as error:
        return error
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    return "accepted"


def assert_refused(option: Option, value: Any) -> None:
    for number, reader in enumerate(readers(option)):
        if option.name == "parameters.input.connector" and number > 0:
            continue  # known by then
        found = outcome(reader, request_with(option, value))
        assert isinstance(found, BadParameter), f"{option.name} = {told(value)} was {found} by reader {number}"
        assert found.name == option.name, f"{option.name} = {told(value)}: the error names {found.name}: {found}"
        assert option.name in str(found)
        assert len(str(found)) < 1000
        json.dumps(str(found)).encode()


@pytest.mark.parametrize(
    "option",
    EVERY,
    ids=[f"{each.connector if each.path[1] == 'input' else each.library}-{each.name}" for each in EVERY],
)
def test_values_of_another_type_or_out_of_range_are_refused_by_name(option):
    faults = []
    for value in wrong_values(option.kind):
        try:
            assert_refused(option, value)
        except AssertionError as error:
            faults.append(str(error).splitlines()[0])
    assert not faults, "\n".join(faults)
