"""What processes count, for Prometheus: each tells its own figures, and any API process can show all of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import cast

from storage.errors import LiveUnavailable
from storage.live.server import LiveServer

LIFETIME_S = 20
"""After how long the figures of a process that fell silent vanish."""

EVERY_S = 5.0
"""How often a process tells its figures."""

_log = logging.getLogger(__name__)


class Figures:
    """Figures by process, as text in the exposition format of Prometheus."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def tell(self, process: str, text: bytes) -> None:
        """Say what a process counted so far."""
        with self._server.errors():
            self._server.redis.set(f"figures:{process}", text, ex=LIFETIME_S)

    def all(self) -> dict[str, str]:
        """The figures of every process that told some lately."""
        with self._server.errors():
            names = sorted(self._server.redis.scan_iter("figures:*", count=500))
            values = cast("list[str | None]", self._server.redis.mget(names)) if names else []
        told = zip(names, values, strict=True)
        return {str(name).removeprefix("figures:"): value for name, value in told if value is not None}

    def keep_telling(self, process: str, count: Callable[[], bytes]) -> None:
        """Tell what `count` gives again and again, from a thread of its own, until the process ends."""

        def tell() -> None:
            over = threading.Event()
            while True:
                try:
                    self.tell(process, count())
                except LiveUnavailable as error:
                    _log.info("figures were not told: %s", error)
                over.wait(EVERY_S)

        threading.Thread(target=tell, name="figures", daemon=True).start()
