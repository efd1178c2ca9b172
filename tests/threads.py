"""No module leaves a thread of ours behind, to fail a test of another module by chance.

One that still speaks to Redis when a unit test, which may open no socket, runs in the same process would end with an
error there. So the module that forgot to end it fails instead, every time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

_WITH_SERVERS = {"contracts", "integration", "e2e"}
_OURS = {"api", "cli", "logs", "ml", "storage", "workers"}
_END_S = 30.0
"""How long threads that were told to end may take."""

_HARMLESS = (
    "access-log",  # as long as the process; writes to standard error, whatever that is by then
    "audit",  # sees once a minute that it is over; what it counted until then goes to a file
    "doctor-",  # waits for servers that say nothing; all that it meets is a finding
    "errand",  # fetches until nobody has asked for a while; all that it meets is an answer
    "stack",  # of the one stack of all tests; looks at processes and files
)
"""How names of threads begin that may outlive a module: whatever they meet later, they raise none of it."""


@pytest.fixture(scope="module", autouse=True)
def _leaves_no_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.parent.name not in _WITH_SERVERS:
        yield
        return
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _END_S
    left = [each for each in threading.enumerate() if each not in before and _must_end(each)]
    for each in left:
        each.join(max(0.0, deadline - time.monotonic()))
    names = sorted(each.name for each in left if each.is_alive())
    assert not names, f"threads that nobody ended: {', '.join(names)}"


def _must_end(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)  # a pool's is not ours: its threads wait for work, and touch nothing
    package = str(getattr(target, "__module__", "")).partition(".")[0]
    return package in _OURS and not thread.name.startswith(_HARMLESS)
