"""What is done with any input: it is taken, or refused with a few words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def refusing(error: type[Exception], characters: int) -> Iterator[None]:
    """Let a refusal pass, if its text has fewer than so many characters."""
    try:
        yield
    except error as refusal:
        text = str(refusal)
        if len(text) >= characters:
            raise AssertionError(f"the refusal has {len(text)} characters: {text[:200]!r}") from refusal
