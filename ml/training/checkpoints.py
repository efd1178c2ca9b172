"""Recovery checkpoints: everything a training needs to go on, bit for bit, in a folder that is complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ml.backends.base import Trainer
from ml.errors import ModelUnusable
from ml.measures import Best
from ml.training.history import History, Steps

#: A checkpoint may cost this share of the time between two of them.
COST_MAX = 0.02
PROGRESS_FILE = "training.json"


@dataclass
class Progress:
    """What the platform, not the library, remembers of a training.

    seed : seed of the data order that was really used.
    elapsed_s : seconds of training before this process.
    best : the best test by the mean over all test sets; `bests` of each set, when there are several.
    measures : those of the last test; `each` of every set.
    """

    done: int = 0
    seed: int = 0
    elapsed_s: float = 0.0
    history: History = field(default_factory=History)
    steps: Steps = field(default_factory=Steps)
    best: Best | None = None
    bests: list[Best | None] = field(default_factory=list)
    measures: dict[str, Any] = field(default_factory=dict)
    each: list[dict[str, Any]] = field(default_factory=list)
    threads: int = 0
    device: str = ""

    @property
    def kept(self) -> frozenset[int]:
        """At how many iterations done the best tests were made."""
        return frozenset(best.iteration for best in (self.best, *self.bests) if best is not None)

    def as_json(self) -> dict[str, Any]:
        """The object that `from_json` takes."""
        return {
            "done": self.done,
            "seed": self.seed,
            "elapsed_s": self.elapsed_s,
            "history": self.history.as_json(),
            "steps": self.steps.as_json(),
            "best": None if self.best is None else asdict(self.best),
            "bests": [None if best is None else asdict(best) for best in self.bests],
            "measures": self.measures,
            # Truths and guesses of every row are for the report alone: a later test makes them anew.
            "each": [{name: value for name, value in one.items() if name != "raw"} for one in self.each],
            "threads": self.threads,
            "device": self.device,
        }

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Progress:
        """The progress that `as_json` came from. Raises KeyError or TypeError for anything else."""
        return cls(
            done=facts["done"],
            seed=facts["seed"],
            elapsed_s=facts["elapsed_s"],
            history=History(facts["history"]),
            steps=Steps.from_json(facts["steps"]),
            best=None if facts["best"] is None else Best(**facts["best"]),
            bests=[None if best is None else Best(**best) for best in facts["bests"]],
            measures=facts["measures"],
            each=facts["each"],
            threads=facts["threads"],
            device=facts["device"],
        )


class Checkpoints:
    """Writes checkpoints into a folder of its own, at most every `interval_s` and never beyond their cost."""

    def __init__(self, folder: Path, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._interval_s = interval_s
        self._clock = clock
        self._due_at = clock() + interval_s
        self.saved_done: int | None = None
        """Iterations that the newest checkpoint holds."""

    def is_due(self) -> bool:
        """Whether enough time has passed since the last one."""
        return self._clock() >= self._due_at

    def save(self, trainer: Trainer, progress: Progress) -> tuple[Path, float]:
        """Write a checkpoint; returns its folder and the seconds it took.

        The folder appears under its name only when every byte of it is on the disk.
        """
        started = self._clock()
        final = self._folder / f"{progress.done:06d}"
        partial = self._folder / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        trainer.save_state(partial)
        write_progress(partial, progress)
        sync_folder(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync(self._folder)
        self.saved_done = progress.done
        ended = self._clock()
        self._due_at = ended + max(self._interval_s, (ended - started) / COST_MAX)
        return final, ended - started


def write_progress(folder: Path, progress: Progress) -> None:
    """Write what `read_progress` reads."""
    (folder / PROGRESS_FILE).write_text(json.dumps(progress.as_json()))


def read_progress(folder: Path) -> Progress:
    """What a checkpoint remembers. Raises ModelUnusable when the folder holds no checkpoint."""
    try:
        return Progress.from_json(json.loads((folder / PROGRESS_FILE).read_text()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise ModelUnusable(f"{folder.name} is no checkpoint of a training") from None


def sync_folder(folder: Path) -> None:
    """Force all files below a folder, and their names, to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
