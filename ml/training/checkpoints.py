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
from ml.training.history import History

#: A checkpoint may cost this share of the time between two of them.
COST_MAX = 0.02
_FILE = "training.json"


@dataclass
class Progress:
    """What the platform, not the library, remembers of a training.

    seed : seed of the data order that was really used.
    elapsed_s : seconds of training before this process.
    measures : those of the last test.
    """

    done: int = 0
    seed: int = 0
    elapsed_s: float = 0.0
    history: History = field(default_factory=History)
    best: Best | None = None
    measures: dict[str, Any] = field(default_factory=dict)
    threads: int = 0
    device: str = ""


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
        facts = {
            "done": progress.done,
            "seed": progress.seed,
            "elapsed_s": progress.elapsed_s,
            "history": progress.history.as_json(),
            "best": None if progress.best is None else asdict(progress.best),
            "measures": progress.measures,
            "threads": progress.threads,
            "device": progress.device,
        }
        (partial / _FILE).write_text(json.dumps(facts))
        sync_folder(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync(self._folder)
        self.saved_done = progress.done
        ended = self._clock()
        self._due_at = ended + max(self._interval_s, (ended - started) / COST_MAX)
        return final, ended - started


def read_progress(folder: Path) -> Progress:
    """What a checkpoint remembers. Raises ModelUnusable when the folder holds no checkpoint."""
    try:
        facts = json.loads((folder / _FILE).read_text())
        return Progress(
            done=facts["done"],
            seed=facts["seed"],
            elapsed_s=facts["elapsed_s"],
            history=History(facts["history"]),
            best=None if facts["best"] is None else Best(**facts["best"]),
            measures=facts["measures"],
            threads=facts["threads"],
            device=facts["device"],
        )
    except (OSError, ValueError, KeyError, TypeError):
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
