"""What a key must be good for: each route says it with `needs`, and `api/app.py` looks before it calls one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask

from api.refusals import RoleNeeded
from storage.records import Caller, Role

View = TypeVar("View", bound=Callable[..., Any])

_NEEDED = "needed_role"


def needs(role: Role) -> Callable[[View], View]:
    """Say what role a route needs, between the route and its function."""

    def mark(view: View) -> View:
        setattr(view, _NEEDED, role)
        return view

    return mark


def needed(app: Flask, endpoint: str) -> Role | None:
    """The role that an endpoint needs; None when it says nothing."""
    role: Role | None = getattr(app.view_functions[endpoint], _NEEDED, None)
    return role


def check(caller: Caller, role: Role) -> None:
    """Raises RoleNeeded when a caller may not do what that role may."""
    if caller.role >= role:
        return
    if caller.key_id is None:
        raise RoleNeeded(f"this call needs a key with the role {role}; create one with `modelyard keys create`")
    raise RoleNeeded(f"this call needs a key with the role {role}, and this one has {caller.role}")
