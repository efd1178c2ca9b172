"""Network architectures, by the names that requests give them.

A template turns options into a structure, a JSON object, and a structure into a network. The structure lies in the
file of every model, so that a model needs no options to be built again. A new family is one file here with a tuple
`TEMPLATES`, and its names in `ml.options.torch.TEMPLATES`.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from ml.errors import ModelUnusable
from ml.templates.network import Network, Template

__all__ = ["Network", "Template", "find", "listed"]


@cache
def listed() -> dict[str, Template]:
    """Every template by name; read once."""
    modules = (import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__))
    return {template.name: template for module in modules for template in getattr(module, "TEMPLATES", ())}


def find(name: object) -> Template:
    """The template of that name. Raises ModelUnusable, as names of requests were looked at before."""
    found = listed().get(name) if isinstance(name, str) else None
    if found is None:
        raise ModelUnusable(f"the model is of the template {str(name)[:80]!r}, which is unknown here")
    return found
