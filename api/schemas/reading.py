"""Reading the top level of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from api.answers import Json
from api.refusals import BadBody, ServiceMissing
from ml.errors import BadParameter
from ml.options import Loaded, Warning
from ml.options.loading import load, shown
from ml.options.requests import SECTIONS

T = TypeVar("T")

_ELSEWHERE = dict.fromkeys(SECTIONS, "it belongs into parameters")


def fold(name: str) -> str:
    """The name under which a service is kept: upper and lower case are the same."""
    return name.lower()


def service_of(given: dict[str, Any]) -> str:
    """The folded name in `service`. Raises ServiceMissing."""
    name = given.get("service")
    if not isinstance(name, str) or not name:
        raise ServiceMissing(
            "service is missing; name one" if name in (None, "") else f"service is {shown(name)}; it must be a text"
        )
    return fold(name)


def read(into: type[T], body: Json, owner: str, elsewhere: Mapping[str, str] = _ELSEWHERE) -> Loaded[T]:
    """The top level of a request as `into`, with warnings for unknown members. Raises BadParameter.

    elsewhere : members that belong into another place, and what is said of them.
    """
    try:
        loaded = load(into, body, path="body", section="service", owner=owner, elsewhere=elsewhere)
    except BadParameter as error:
        name, message = error.name.removeprefix("body."), str(error).replace("body.", "")
        raise BadParameter(name=name, section="service", message=message) from None
    warnings = [Warning(w.parameter.removeprefix("body."), w.message.replace("body.", "")) for w in loaded.warnings]
    return Loaded(loaded.value, warnings)


def read_strictly(into: type[T], body: Json, owner: str) -> T:
    """The body of a route of our own as `into`: a member that it does not know is an error. Raises BadBody."""
    try:
        loaded = read(into, body, owner, elsewhere={})
    except BadParameter as error:
        raise BadBody(str(error)) from None
    for each in loaded.warnings:
        raise BadBody(each.message.replace(" and was ignored", ""))
    return loaded.value
