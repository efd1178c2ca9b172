"""The sender of a control worker: looks for deliveries that are due and sends several at once.

It asks the records again and again, so nothing has to tell it, and it works while Redis is away. Nothing is lost with
it: what it had begun is due again when the lease is over, for itself or another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Set

from storage.errors import StorageError
from storage.live import Telling
from storage.records import Due
from workers.figures import WebhookFigures, process_name
from workers.parts import Parts
from workers.webhooks.sending import deliver

SLOTS = 32
"""Most deliveries that one process sends at once."""

SLOTS_OF_HOST = 8
"""Most of them to one host, whatever the ports."""

SLOTS_OF_SLOW = 16
"""Most of them to hosts that were slow the last time: a quick one finds room whatever the others do."""

_OF_WEBHOOK = 4
_SLOW_S = 1.0
_LOOK_S, _NEXT_LOOK_S, _AGAIN_S = 0.5, 0.05, 5.0
_STOP_S = 3.0
_REMEMBERED = 10_000
_log = logging.getLogger(__name__)


class _Pool:
    """Places that accounts share: none takes one more unless it leaves as many free as it has.

    So the first may take half of them, the next half of the rest, and there is one left for a third.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._taken: Counter[int] = Counter()

    def has_room_for(self, account_id: int) -> bool:
        return self._taken[account_id] < self._free

    def take(self, account_id: int) -> None:
        self._free -= 1
        self._taken[account_id] += 1


class _Room:
    """What of the places of a process is free, beside what is under way."""

    def __init__(self, under_way: Iterable[Due], slow: Set[tuple[int, str]]) -> None:
        self._slow = slow
        self._all, self._all_slow = _Pool(SLOTS), _Pool(SLOTS_OF_SLOW)
        self._of_host: dict[str, _Pool] = defaultdict(lambda: _Pool(SLOTS_OF_HOST))
        for due in under_way:
            for pool in self._pools(due):
                pool.take(due.account_id)

    def take(self, due: Due) -> bool:
        """Take the places that a delivery needs; False when one of them is not to be had."""
        pools = self._pools(due)
        if not all(pool.has_room_for(due.account_id) for pool in pools):
            return False
        for pool in pools:
            pool.take(due.account_id)
        return True

    def _pools(self, due: Due) -> list[_Pool]:
        pools = [self._all, self._of_host[due.host]]
        return [*pools, self._all_slow] if _way(due) in self._slow else pools


class Courier:
    """Sends deliveries from threads of its own, from `start` to `stop`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._over = threading.Event()
        self._has_room = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[int, Due] = {}
        self._served: dict[object, float] = {}
        """When each account, and each host for an account, had its last turn."""
        self._slow: set[tuple[int, str]] = set()
        """Accounts and hosts of theirs."""
        self._after = 0
        self.figures = WebhookFigures()
        self._telling: Telling | None = None
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begin to look for deliveries, and to tell what is counted."""
        self._telling = self._parts.live.figures.keep_telling(process_name(), self.figures.told)
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more, and give what is under way a moment."""
        self._over.set()
        self._has_room.set()
        if self._telling is not None:
            self._telling.stop()
        until = time.monotonic() + _STOP_S
        if self._thread.ident is not None:  # it was started
            self._thread.join(_STOP_S)  # it may be about to begin something
        while self._under_way and time.monotonic() < until:
            time.sleep(0.05)

    def _run(self) -> None:
        while not self._over.is_set():
            wait_s = _LOOK_S
            try:
                self.look()
                if self._after:
                    wait_s = 0.0
            except StorageError as error:
                _log.warning("no deliveries were looked for: %s", error)
                wait_s = _AGAIN_S
            except Exception:
                # Nobody else would begin another one.
                _log.exception("looking for deliveries failed unexpectedly")
                wait_s = _AGAIN_S
            # However much ends at once, the records are asked now and then only.
            self._over.wait(_NEXT_LOOK_S)
            self._has_room.wait(wait_s)
            self._has_room.clear()

    def look(self) -> int:
        """Begin to send what is due and has room; returns how many. Raises RecordsUnavailable."""
        if len(self._under_way) >= SLOTS:
            return 0
        found, self._after = self._parts.records.deliveries.due(_OF_WEBHOOK, self._after)
        chosen = self._choose(found)
        for due in chosen:
            try:
                threading.Thread(target=self._carry, args=(due,), name=f"delivery {due.id}", daemon=True).start()
            except RuntimeError as error:  # the system gives no more threads now
                _log.warning("delivery %s comes later: %s", due.id, error)
                with self._lock:
                    del self._under_way[due.id]
        return len(chosen)

    def _choose(self, due: Collection[Due]) -> list[Due]:
        """Those that go now: accounts take turns, and so do the hosts of each; who waits longest for one comes first.

        due : the oldest first.
        """
        chosen: list[Due] = []
        with self._lock:
            waiting = [each for each in due if each.id not in self._under_way]
            waiting.sort(key=lambda each: self._served.get(_way(each), 0.0))  # stable: to one host the oldest first
            of_account: dict[int, list[Due]] = defaultdict(list)
            for each in waiting:
                of_account[each.account_id].append(each)
            turns = deque(sorted(of_account, key=lambda account_id: self._served.get(account_id, 0.0)))
            left = {account_id: iter(those) for account_id, those in of_account.items()}
            room = _Room(self._under_way.values(), self._slow)
            while turns:
                account_id = turns.popleft()
                # Room only becomes less here: what finds none now needs no second look.
                found = next((each for each in left[account_id] if room.take(each)), None)
                if found is not None:
                    self._under_way[found.id] = found
                    chosen.append(found)
                    turns.append(account_id)
            self._note_turns(chosen)
        return chosen

    def _note_turns(self, chosen: Collection[Due]) -> None:
        if len(self._served) > _REMEMBERED:
            self._served.clear()
            self._slow.clear()
        now = time.monotonic()
        for each in chosen:
            self._served[each.account_id] = self._served[_way(each)] = now

    def _carry(self, due: Due) -> None:
        parts, began = self._parts, time.monotonic()
        try:
            lease_s = parts.settings.webhook_timeout_s + parts.settings.lease_s
            parcel = parts.records.deliveries.claim(due.id, parts.owner, lease_s)
            if parcel is not None:
                self.figures.note(deliver(parts.records, parts.settings, parcel))
                self._note_pace(due, time.monotonic() - began)
        except StorageError as error:
            _log.warning("delivery %s comes again: %s", due.id, error)
        finally:
            with self._lock:
                del self._under_way[due.id]
            self._has_room.set()

    def _note_pace(self, due: Due, took_s: float) -> None:
        with self._lock:
            (self._slow.add if took_s > _SLOW_S else self._slow.discard)(_way(due))


def _way(due: Due) -> tuple[int, str]:
    """What is slow or quick together: the host, as far as one account uses it."""
    return due.account_id, due.host
