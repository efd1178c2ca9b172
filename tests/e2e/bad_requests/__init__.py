"""Every bad input that `docs/errors.md` lists, as a request. The names are those of the table's first column.

A module an area, each of which registers its cases when it is imported.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tests.e2e.bad_requests.cases import CASES
from tests.e2e.bad_requests.stage import NET_TRAINED, SERVICE, SVM_TRAINED, TRAINED, prepare

__all__ = ["CASES", "NET_TRAINED", "SERVICE", "SVM_TRAINED", "TRAINED", "prepare"]

for _area in iter_modules(__path__, f"{__name__}."):
    import_module(_area.name)
