"""Models are bounded by the memory that they were seen to take, and memory that does not come back is noticed."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import pytest

from workers.warm import Warm

MIB = 1 << 20
LIMIT = 100 * MIB


@pytest.fixture(autouse=True)
def nothing_stays_frozen() -> Iterator[None]:
    yield
    gc.unfreeze()


@dataclass(eq=False)
class Toy:
    """bytes : what it says itself."""

    name: str
    bytes: int = 1 * MIB


class Process:
    """The memory of a process whose models are toys.

    garbage : what goes only when garbage is collected.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.held: int | None = 50 * MIB
        self.garbage = 0
        self.given_up: list[Hashable] = []
        self.sizes: dict[str, float] = {}
        self.keeps = 0.0
        """Which part of a model stays when it is given up."""
        self.warm: Warm[Toy] = Warm(limit, self._forget, measure=self._measure)

    def _measure(self, *, thorough: bool = False) -> int | None:
        if thorough:
            self.garbage = 0
        return None if self.held is None else self.held + self.garbage

    def _forget(self, key: Hashable) -> None:
        self.given_up.append(key)
        self.grow(-self.sizes.pop(str(key)) * (1 - self.keeps))

    def grow(self, mib: float) -> None:
        if self.held is not None:
            self.held += round(mib * MIB)

    def ask(self, name: str, *, load: float = 0, compute: float = 0, says: float = 1, is_here: bool = True) -> None:
        """A batch of a model that takes so many MiB when it is loaded, and so many more with its first batch."""

        def make() -> Toy:
            self.sizes[name] = load
            self.grow(load)
            return Toy(name, round(says * MIB))

        is_new = name not in self.sizes
        assert self.warm.get(name, make, is_here=is_here).name == name
        if is_new:
            self.sizes[name] += compute
            self.grow(compute)
        self.warm.settle()


def test_what_a_model_takes_is_seen_while_it_is_loaded() -> None:
    process = Process()
    process.ask("one", load=60)
    process.ask("two", load=39)
    assert process.given_up == []
    process.ask("three", load=2)
    assert process.given_up == ["one"]


def test_what_a_model_takes_to_compute_counts() -> None:
    process = Process()
    process.ask("one", load=10, compute=50)
    process.ask("two", load=10, compute=31)
    assert process.given_up == ["one"]


def test_what_later_batches_take_does_not_count() -> None:
    process = Process()
    process.ask("one", load=60)
    process.grow(30)
    process.ask("one")
    process.ask("two", load=35)
    assert process.given_up == []


def test_model_takes_never_less_than_it_says() -> None:
    """It may fill what another one left free: the process does not grow then."""
    process = Process()
    process.ask("one", load=0, says=60)
    process.ask("two", load=0, says=60)
    assert process.given_up == ["one"]


def test_models_that_were_asked_lately_stay() -> None:
    process = Process()
    process.ask("one", load=40)
    process.ask("two", load=40)
    process.ask("one")
    process.ask("three", load=40)
    assert process.given_up == ["two"]
    process.ask("one")
    assert process.given_up == ["two"]


def test_growth_beside_a_model_that_is_given_up_is_seen() -> None:
    process = Process()
    process.ask("one", load=90)
    process.ask("two", load=30, compute=60)
    assert process.given_up == ["one"]
    process.ask("three", load=20)
    assert process.given_up == ["one", "two"]


def test_model_larger_than_the_limit_is_kept_alone() -> None:
    process = Process()
    process.ask("large", load=300)
    process.ask("large")
    assert process.given_up == []
    process.ask("small", load=1)
    assert process.given_up == ["large"]
    process.ask("large", load=300)
    assert process.given_up == ["large", "small"]
    assert not process.warm.is_worn


def test_system_that_does_not_tell_its_memory_has_models_at_their_word() -> None:
    process = Process()
    process.held = None
    process.ask("one", says=60)
    process.ask("two", says=30)
    assert process.given_up == []
    process.ask("three", says=20)
    assert process.given_up == ["one"]
    assert not process.warm.is_worn


def test_model_on_a_gpu_is_had_at_its_word() -> None:
    process = Process()
    process.ask("one", load=90, says=10, is_here=False)
    process.ask("two", load=60, says=10, is_here=False)
    assert process.given_up == []


def test_model_that_cannot_be_loaded_is_tried_again() -> None:
    process = Process()

    def fail() -> Toy:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        process.warm.get("one", fail)
    process.ask("one", load=10)
    assert process.given_up == []


def test_memory_that_comes_back_wears_nothing() -> None:
    process = Process()
    for number in range(50):
        process.ask(f"{number}", load=60)
    assert len(process.given_up) == 49
    assert not process.warm.is_worn


def test_memory_that_does_not_come_back_wears_the_process() -> None:
    process = Process()
    process.keeps = 0.5
    # Allowed: 100 MiB and an eighth of them, and 32 MiB more.
    for name in ("one", "two", "three"):
        process.ask(name, load=60)
    assert not process.warm.is_worn, "60 with two halves of 60 fit"
    process.ask("four", load=60)
    assert process.warm.is_worn
    process.grow(-500)
    process.ask("five", load=60)
    assert process.warm.is_worn, "it ends in any case"


def test_garbage_wears_nothing() -> None:
    process = Process()
    process.ask("one", load=60)
    process.garbage = 500 * MIB
    process.ask("two", load=60)
    assert process.given_up == ["one"]
    assert not process.warm.is_worn


def test_memory_that_grew_without_a_model_given_up_wears_nothing() -> None:
    process = Process()
    process.ask("one", load=60)
    process.grow(500)
    process.ask("one")
    assert not process.warm.is_worn


PROBE = """
from workers.memory import anonymous_bytes, held_bytes
before = held_bytes()
parts = [bytearray(range(256)) * 4 for _ in range(60_000)]
full = held_bytes()
keep = parts[-1]
del parts
print(full - before, held_bytes() - before, anonymous_bytes(2**22 + 1))
"""


def test_memory_of_this_process_without_what_is_free() -> None:
    told = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True).stdout.split()
    full, left = int(told[0]), int(told[1])
    assert 60_000 * 1024 <= full <= 100_000 * 1024
    assert left < full / 10
    assert told[2] == "None"


def test_garbage_is_not_looked_for_among_models_until_one_is_given_up():
    process = Process()
    process.ask("a", load=40)
    assert gc.get_freeze_count() > 0
    process.ask("a")
    assert gc.get_freeze_count() > 0
    process.ask("b", load=80)
    assert process.given_up == ["a"]
    assert gc.get_freeze_count() == 0
    process.ask("c", load=10)
    assert gc.get_freeze_count() > 0


def test_answers_that_are_still_held_are_no_part_of_a_model():
    process = Process()
    process.warm.get("one", lambda: Toy("one", 1 * MIB))
    process.grow(305)
    process.warm.settle(300 * MIB)
    assert process.warm.bytes == (1 + 5) * MIB
