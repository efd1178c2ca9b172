"""A mark that changes whenever services or their versions do, so that what was read of them may be kept for a while."""

from __future__ import annotations

import uuid
from typing import cast

from storage.live.server import LiveServer

KEY = "changes"
_LIFETIME_S = 86400


class Changes:
    """The mark of now. Another one, or none because Redis lost it, says: read again."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def note(self) -> None:
        """Say that something changed; to be called after the records tell it."""
        with self._server.errors():
            self._server.redis.set(KEY, uuid.uuid4().hex, ex=_LIFETIME_S)

    def current(self) -> str:
        """The mark; empty when there is none."""
        with self._server.errors():
            return cast("str | None", self._server.redis.get(KEY)) or ""
