"""Finds backends: every module in `ml/backends/` that says of itself what it is, its library not yet imported."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from ml import backends
from ml.backends.base import Backend
from ml.errors import UnknownLibrary


@cache
def listed() -> dict[str, Backend]:
    """Every backend by name; read once from the folder."""
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
