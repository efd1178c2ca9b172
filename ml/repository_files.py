"""The files of a model repository, known by their names: those that DeepDetect gives them.

`endings` is everywhere what `BackendInfo.files` and `LibraryOptions.files` hold: how a library's model files end.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

CONFIG = "config.json"
REQUEST = "model.json"
METRICS = "metrics.json"
REPORTS = frozenset({CONFIG, REQUEST, METRICS})
"""What requests and trainings leave in the folder of a repository; no part of a model."""

BEST = "best_model.txt"
PROGRESS = "training.json"
DESCRIPTION = "modelyard.json"

TEXT_BYTES = 64 * 2**20
"""Most bytes of a text beside a model. It is read whole, and JSON takes twenty times its length in memory."""

INDEX = ("index.ann", "index.faiss", "index_mmap.faiss", "names.bin")
"""Patterns of a similarity index."""

_COMPANIONS = (
    "corresp.txt",
    "best_model*.txt",
    "vocab.dat",
    "bounds.dat",
    "model.fmap",
    "*.prototxt",
    "mean.binaryproto",
    "mean_values.txt",
    "class_weights.binaryproto",
    DESCRIPTION,
    PROGRESS,
)
_STATES = ("solver-*.pt", "*.solverstate")
_NUMBERED = re.compile(r"(?:checkpoint-|solver-|.*_iter_)(\d{1,15})\.[a-z]+|(\d{4,15})\.model")


def read_text(folder: Path, name: str) -> str:
    """A text that stands beside a model, with plain line feeds. Raises OSError, also for one of more than `TEXT_BYTES`;
    UnicodeDecodeError.
    """
    with (folder / name).open("rb") as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def is_state(name: str) -> bool:
    """Whether a file holds the state of a solver, with which a training can be resumed, and no model."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _STATES)


def is_model(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a file holds a model."""
    return name.endswith(endings) and not is_state(name)


def belongs(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a file is part of a model: the model itself, the state of its solver, or what stands beside them."""
    return name.endswith(endings) or is_state(name) or any(fnmatch.fnmatchcase(name, each) for each in _COMPANIONS)


def iteration_of(name: str) -> int | None:
    """The iteration that a file's name tells (checkpoint-400.npt, model_iter_400.caffemodel, 0400.model), if any."""
    found = _NUMBERED.fullmatch(name)
    return None if found is None else int(found[1] or found[2])


def best_iteration(text: str) -> int | None:
    """The iteration that best_model.txt names; None when it names none."""
    found = re.search(r"^iteration:\s*(\d{1,15})\s*$", text, re.MULTILINE)
    return None if found is None else int(found[1])


def newest(times: Mapping[str, int], endings: tuple[str, ...], best: Iterable[int] = ()) -> set[str]:
    """Of the files of a folder those that make up its newest model, without the ones that it has left behind.

    times : when each was written, by name. best : iterations that are kept as well, those of best_model.txt.
    Numbered files go by kind (what their names are but for the number): the newest of each kind stays, and with it
    every file of the same iteration, as a model and the state of its solver belong together.
    """
    belonging = [name for name in times if belongs(name, endings)]
    latest: dict[str, str] = {}
    for name in belonging:
        number = iteration_of(name)
        if number is None:
            continue
        kind = re.sub(r"\d+", "#", name)
        before = latest.get(kind)
        if before is None or (times[name], number) > (times[before], iteration_of(before) or 0):
            latest[kind] = name
    kept = {iteration_of(name) for name in latest.values()} | set(best) | {None}
    return {name for name in belonging if iteration_of(name) in kept}


def published(names: Collection[str], endings: tuple[str, ...], file: str) -> set[str]:
    """Of the files of a model those that predictions with `file` need: no other checkpoint, no state of a solver."""
    wanted = iteration_of(file)
    return {
        name
        for name in names
        if belongs(name, endings)
        and not is_state(name)
        and name != PROGRESS
        and (name == file or iteration_of(name) in (None, wanted))
    }


def in_order(names: Iterable[str], file: str | None) -> list[str]:
    """Names so that a reader who takes the newest file of a kind takes the right one: by iteration, `file` last."""

    def place(name: str) -> tuple[bool, int, str]:
        return name == file, iteration_of(name) or 0, name

    return sorted(names, key=place)
