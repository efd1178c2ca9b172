"""The sender of a control worker: looks for deliveries that are due and sends several at once.

It asks the records again and again, so nothing has to tell it, and it works while Redis is away. Nothing is lost with
it: what it had begun is due again when the lease is over, for itself or another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection

from storage.errors import StorageError
from storage.records import Due
from workers.figures import WebhookFigures, process_name
from workers.parts import Parts
from workers.webhooks.sending import deliver

SLOTS = 32
"""Most deliveries that one process sends at once."""

SLOTS_OF_PLACE = 4
"""Most of them to one host and port."""

SLOTS_OF_SLOW = 16
"""Most of them to hosts that were slow the last time: a quick one finds room whatever the others do."""

_SLOW_S = 1.0
_LOOK_S, _AGAIN_S = 0.5, 5.0
_STOP_S = 3.0
_REMEMBERED = 10_000
_log = logging.getLogger(__name__)


class Courier:
    """Sends deliveries from threads of its own, from `start` to `stop`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._over = threading.Event()
        self._has_room = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[int, str] = {}
        """The places of what is being sent."""
        self._served: dict[str, float] = {}
        """When each place had its last turn."""
        self._slow: set[str] = set()
        self.figures = WebhookFigures()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begin to look for deliveries, and to tell what is counted."""
        self._parts.live.figures.keep_telling(process_name(), self.figures.told)
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more, and give what is under way a moment."""
        self._over.set()
        self._has_room.set()
        until = time.monotonic() + _STOP_S
        while self._under_way and time.monotonic() < until:
            time.sleep(0.05)

    def _run(self) -> None:
        while not self._over.is_set():
            wait_s = _LOOK_S
            try:
                self.look()
            except StorageError as error:
                _log.warning("no deliveries were looked for: %s", error)
                wait_s = _AGAIN_S
            except Exception:
                # Nobody else would begin another one.
                _log.exception("looking for deliveries failed unexpectedly")
                wait_s = _AGAIN_S
            self._has_room.wait(wait_s)
            self._has_room.clear()

    def look(self) -> int:
        """Begin to send what is due and has room; returns how many. Raises RecordsUnavailable."""
        if len(self._under_way) >= SLOTS:
            return 0
        chosen = self._choose(self._parts.records.deliveries.due(SLOTS_OF_PLACE))
        for due in chosen:
            try:
                threading.Thread(target=self._carry, args=(due,), name=f"delivery {due.id}", daemon=True).start()
            except RuntimeError as error:  # the system gives no more threads now
                _log.warning("delivery %s comes later: %s", due.id, error)
                with self._lock:
                    del self._under_way[due.id]
        return len(chosen)

    def _choose(self, due: Collection[Due]) -> list[Due]:
        """Those that go now: places take turns, whoever waits longest for one comes first."""
        chosen: list[Due] = []
        with self._lock:
            waiting = [each for each in due if each.id not in self._under_way]
            busy = Counter(self._under_way.values())
            waiting.sort(key=lambda each: self._served.get(each.place, 0.0))  # stable: of one place the oldest first
            for each in waiting:
                if len(self._under_way) >= SLOTS:
                    break
                if busy[each.place] >= SLOTS_OF_PLACE or (
                    each.place in self._slow and self._slow_ones >= SLOTS_OF_SLOW
                ):
                    continue
                busy[each.place] += 1
                self._under_way[each.id] = each.place
                chosen.append(each)
            if len(self._served) > _REMEMBERED:
                self._served.clear()
                self._slow.clear()
            self._served |= {each.place: time.monotonic() for each in chosen}
        return chosen

    @property
    def _slow_ones(self) -> int:
        return sum(place in self._slow for place in self._under_way.values())

    def _carry(self, due: Due) -> None:
        parts, began = self._parts, time.monotonic()
        try:
            lease_s = parts.settings.webhook_timeout_s + parts.settings.lease_s
            parcel = parts.records.deliveries.claim(due.id, parts.owner, lease_s)
            if parcel is not None:
                self.figures.note(deliver(parts.records, parts.settings, parcel))
        except StorageError as error:
            _log.warning("delivery %s comes again: %s", due.id, error)
        finally:
            with self._lock:
                del self._under_way[due.id]
                (self._slow.add if time.monotonic() - began > _SLOW_S else self._slow.discard)(due.place)
            self._has_room.set()
