"""Files of this machine that are to be uploaded, and where each will lie in a data set."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True)
class Source:
    """A file here, its path in the data set, and its size in bytes."""

    file: Path
    path: str
    size: int


def sources_of(files: Sequence[Path], folder: str | None, as_path: str | None, *, is_packed: bool) -> list[Source]:
    """What is to be uploaded of `files`, of folders all that lies in them.

    folder : of the data set; it comes before all paths.
    as_path : the path of the only file, instead of its name.
    is_packed : whether each must be a file of its own, as archives are, and paths do not matter.
    Raises click's ClickException when one cannot be read, is no file, or two have the same path.
    """
    before = f"{folder.rstrip('/')}/" if folder else ""
    found: dict[str, Source] = {}
    for file in files:
        if file.is_dir() and (is_packed or as_path is not None):
            raise click.ClickException(f"{file} is a folder; give a file")
        inside = list(_inside(file)) if file.is_dir() else [(file, as_path or file.name)]
        if not inside:
            raise click.ClickException(f"folder {file} holds no files")
        for each, path in inside:
            key = str(each) if is_packed else before + path
            if key in found:
                raise click.ClickException(f"{found[key].file} and {each} would both be {key} in the data set")
            found[key] = Source(each, key, _size(each))
    return list(found.values())


def _inside(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a folder with their paths below it. No data set takes hidden ones."""
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(above, name), Path(above, name).relative_to(folder).as_posix()


def _size(file: Path) -> int:
    """Size of a file that can be read. Raises click's ClickException."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise click.ClickException(f"{file} is no file")
        with file.open("rb"):
            return found.st_size
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
