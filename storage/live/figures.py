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

    def keep_telling(self, process: str, count: Callable[[], bytes]) -> Telling:
        """Tell what `count` gives again and again, from a thread of its own, until that is stopped."""
        return Telling(self, process, count)


class Telling:
    """Figures of one process that are told every few seconds, until `stop` or the end of the process."""

    def __init__(self, figures: Figures, process: str, count: Callable[[], bytes]) -> None:
        self._figures, self._process, self._count = figures, process, count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="figures", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell no more, from the return of this call on."""
        self._over.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._over.is_set():
            try:
                self._figures.tell(self._process, self._count())
            except LiveUnavailable as error:
                _log.info("figures were not told: %s", error)
            except Exception:
                # Nobody else would begin another thread.
                _log.exception("telling figures failed unexpectedly")
            self._over.wait(EVERY_S)
