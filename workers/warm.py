"""The models that a process keeps loaded, bounded by the memory that they were seen to take."""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from workers.memory import held_bytes

_SLACK_BYTES, _SLACK_SHARE = 32 << 20, 1 / 8
_log = logging.getLogger(__name__)


class Sized(Protocol):
    """A model. bytes : roughly what it occupies."""

    bytes: int


class Measure(Protocol):
    """Tells how much memory this process holds, in bytes, as `workers.memory.held_bytes` does."""

    def __call__(self, *, thorough: bool = False) -> int | None:
        """None when the system does not tell."""


M = TypeVar("M", bound=Sized)


@dataclass
class _Kept(Generic[M]):
    model: M
    bytes: int


class Warm(Generic[M]):
    """Loaded models by key, the least recently used ones given up first.

    What a model takes is what the memory of the process grew by while it was loaded and computed for the first time,
    and never less than it says itself, since it may fill what another one left free. What it takes of a GPU, it says.

    limit_bytes : what they may take together; a model that takes more is kept alone.
    forget : called with the key of each model that is given up.
    is_worn : whether the memory of models that were given up did not come back, so that only a new process has it.
    """

    def __init__(self, limit_bytes: int, forget: Callable[[Hashable], None], *, measure: Measure = held_bytes) -> None:
        self._limit = limit_bytes
        self._forget = forget
        self._measure = measure
        self._kept: OrderedDict[Hashable, _Kept[M]] = OrderedDict()
        self._before_all: int | None = None
        self._new: tuple[_Kept[M], int] | None = None
        self._gave_up = False
        self.is_worn = False

    def get(self, key: Hashable, load: Callable[[], M], *, is_here: bool = True) -> M:
        """The model of that key; `load` makes it when it is not kept, and what that raises is passed on.

        is_here : whether it lies in the memory of this process, not in that of a GPU.
        """
        kept = self._kept.get(key)
        if kept is None:
            self.settle()
            before = self._measure()
            if self._before_all is None:
                self._before_all = before
            model = load()
            kept = self._kept[key] = _Kept(model, model.bytes)
            after = self._measure()
            if is_here and before is not None and after is not None:
                kept.bytes = max(model.bytes, after - before)
            if self._give_up_old():
                after = self._measure()
            else:
                # What stays need not be looked through whenever garbage is looked for, which takes longer than to
                # predict on a thousand rows.
                gc.freeze()
            if is_here and after is not None:
                self._new = kept, after
        self._kept.move_to_end(key)
        return kept.model

    def settle(self, answers_bytes: int = 0) -> None:
        """Take stock when a batch was computed, and of it only the answers are held any more."""
        if self._new is not None:
            kept, before = self._new
            self._new = None
            kept.bytes += max(0, (self._measure() or 0) - before - answers_bytes)
            self._give_up_old()
        if self._gave_up:
            self._gave_up = False
            self.is_worn = self.is_worn or self._is_too_large()

    def _give_up_old(self) -> bool:
        some = False
        while len(self._kept) > 1 and self.bytes > self._limit:
            key, _ = self._kept.popitem(last=False)
            self._gave_up = some = True
            self._forget(key)
        if some:
            gc.unfreeze()  # what is given up may hold itself
        return some

    @property
    def count(self) -> int:
        """How many models are kept."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """What they take together."""
        return sum(kept.bytes for kept in self._kept.values())

    def _is_too_large(self) -> bool:
        if self._before_all is None:
            return False
        # A model that is larger than the limit is let be; an allocator never gives back all.
        allowed = self._before_all + max(self._limit, self.bytes) + _SLACK_BYTES + int(self._limit * _SLACK_SHARE)
        held = self._measure() or 0
        if held > allowed:
            held = self._measure(thorough=True) or 0
        if held > allowed:
            text = "%d MiB are held with %d MiB of models, %d MiB before the first: this process must be replaced"
            _log.warning(text, *(each >> 20 for each in (held, self.bytes, self._before_all)))
        return held > allowed
