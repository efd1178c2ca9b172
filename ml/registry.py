"""Finds backends and connectors by name, their libraries not yet imported."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from ml import backends
from ml.backends.base import Backend
from ml.connectors.base import Connector
from ml.errors import UnknownConnector, UnknownLibrary
from ml.options.catalog import connectors


@cache
def listed() -> dict[str, Backend]:
    """Every backend by name: each module of `ml/backends/` that says of itself what it is; read once."""
    found = {}
    for each in pkgutil.iter_modules(backends.__path__):
        module = import_module(f"{backends.__name__}.{each.name}")
        if hasattr(module, "INFO"):
            found[module.INFO.name] = cast(Backend, module)
    return found


def find(name: str) -> Backend:
    """The backend registered as `name`.

    Raises UnknownLibrary. Its own functions raise MissingExtra when the library is not installed.
    """
    if name not in listed():
        raise UnknownLibrary(name, listed())
    return listed()[name]


def connector(name: str) -> Connector:
    """The input connector registered as `name`: the module of that name in `ml/connectors/`.

    Raises UnknownConnector.
    """
    if name not in connectors():
        raise UnknownConnector(name, connectors())
    return cast(Connector, import_module(f"ml.connectors.{name}"))
