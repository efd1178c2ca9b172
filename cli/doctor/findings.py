"""Checks, what they find, and running them so that none can hold up the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cli.remote.tables import clean


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What a check found. text : one line; cure : one sentence for the operator, empty when all is well."""

    check: str
    status: Status
    text: str
    cure: str = ""


Found = Iterable[tuple[Status, str, str]]
"""Status, text and cure, one for each thing that a check looked at."""


@dataclass(frozen=True)
class Check:
    """A look at one part. limit_s : how long it may take before it counts as failed."""

    name: str
    look: Callable[[], Found]
    limit_s: float = 10.0


def ok(text: str) -> tuple[Status, str, str]:
    """All is well."""
    return Status.OK, text, ""


def warn(text: str, cure: str) -> tuple[Status, str, str]:
    """It works, but not as well or as safely as it should."""
    return Status.WARN, text, cure


def fail(text: str, cure: str) -> tuple[Status, str, str]:
    """Something does not work."""
    return Status.FAIL, text, cure


def run(checks: Sequence[Check]) -> Iterator[Finding]:
    """Do all checks at once; yields what they find in their order, each as soon as it is known."""
    started = [_Running(check) for check in checks]
    for running in started:
        yield from running.findings()


class _Running:
    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: list[tuple[Status, str, str]] = []
        self._until = time.monotonic() + check.limit_s
        # A daemon: a driver that never returns must not keep the command from ending.
        self._thread = threading.Thread(target=self._look, daemon=True, name=f"doctor-{check.name}")
        self._thread.start()

    def _look(self) -> None:
        try:
            self._found = list(self._check.look())
        except Exception as error:
            # Whatever a broken installation raises is what the operator wants to know, not the end of the others.
            self._found = [fail(f"{type(error).__name__}: {error}", "look into what this names")]

    def findings(self) -> Iterator[Finding]:
        self._thread.join(max(0.0, self._until - time.monotonic()))
        found = self._found
        if self._thread.is_alive():
            found = [fail(f"no answer within {self._check.limit_s:g} s", "see why it hangs: a network, a disk, a lock")]
        for status, text, cure in found:
            yield Finding(self._check.name, status, clean(text), clean(cure))
