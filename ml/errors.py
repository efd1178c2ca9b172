"""What `ml` raises. The errors know no HTTP; `api/errors.py` maps each `kind` to the codes of the APIs."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class MlError(Exception):
    """Base of all errors of `ml`; `str(error)` is fit for a client."""

    kind: ClassVar[str] = "ml"

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self)

    @property
    def section(self) -> str | None:
        """Part of the request at fault: "input", "mllib", "output", "model", "service" or None."""
        return None


class BadInput(MlError):
    """The data cannot be used as the request wants it: missing, unreadable, or not of the announced form."""

    kind = "bad_input"

    @property
    def section(self) -> str | None:
        """Always the input connector."""
        return "input"


class BadParameter(MlError):
    """A parameter has a wrong type, lies out of range, is missing, or does not go with another one.

    name : dotted path of the parameter, e.g. "parameters.mllib.iterations".
    section : "input", "mllib", "output" (the three parts of `parameters`), "model" (the repository object of a
        service) or "service" (its top level).
    """

    kind = "bad_parameter"

    def __init__(self, *, name: str, section: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self._section = section

    @property
    def section(self) -> str | None:
        """Part of the request that holds the parameter."""
        return self._section


class UnknownName(MlError):
    """Base of the errors for a name that nothing is registered under."""

    kind = "unknown_name"
    what: ClassVar[str] = "name"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "use one of " + ", ".join(known)
        super().__init__(f"{self.what} {name!r} is unknown; {hint}")
        self.name = name


class UnknownLibrary(UnknownName):
    """No backend has the name given as `mllib`."""

    kind = "unknown_library"
    what = "library"


class UnknownConnector(UnknownName):
    """No input connector of that name exists, or the library does not take it."""

    kind = "unknown_connector"
    what = "input connector"


class UnknownType(UnknownName):
    """The service `type` is not one that the library offers."""

    kind = "unknown_type"
    what = "service type"


class ModelUnusable(MlError):
    """A repository holds no model, or one that cannot be read."""

    kind = "model_unusable"


class StorageFull(MlError):
    """The disk has no space left for what is written."""

    kind = "storage_full"


class MissingExtra(MlError):
    """The library of a backend is not installed on this machine."""

    kind = "missing_extra"

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed here; install it with: pip install 'modelyard[{extra}]'")
        self.extra = extra


class NotIsolated(MlError):
    """Files from elsewhere are to be looked into without a network only, and the kernel forbids to leave it."""

    kind = "not_isolated"

    def __init__(self) -> None:
        super().__init__(
            "what looks into files from elsewhere cannot leave the network on this machine, and MODELYARD_ISOLATION "
            "requires it; allow user namespaces where the worker runs"
        )


class OutOfMemory(MlError):
    """The machine ran out of memory."""

    kind = "out_of_memory"
