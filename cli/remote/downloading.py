"""Saves the files of a service, a task or a data set: into a folder one by one, or as an archive that the API makes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import click

from cli.remote.tables import clean
from cli.remote.target import Target
from storage.landing import sha256_of

Json = dict[str, Any]

FORMATS = {".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar": "tar", ".zip": "zip"}
"""Archives by the endings of their names."""

to_option = click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="PLACE",
    help="A folder, which is made where it is missing, or an archive whose name ends in .tar.gz, .tgz, .tar or .zip. "
    "Default: a folder here, of the same name.",
)


def archive_format(place: Path) -> str | None:
    """The kind of archive that a place is named as; None for a folder."""
    if place.is_dir():
        return None
    return next((form for ending, form in FORMATS.items() if place.name.lower().endswith(ending)), None)


def save_archive(target: Target, base: str, place: Path, form: str, query: Json) -> None:
    """Save all files as an archive. base : the address of what they are files of."""
    if not place.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {place.absolute().parent} for --to")
    size = target.client.save(f"{base}/archive", place.absolute(), query={**query, "format": form})
    click.echo(f"{size} bytes are saved in {place}", err=target.as_json)


def save_files(target: Target, base: str, folder: Path, files: Iterable[Json], query: Json) -> None:
    """Save files under their paths below a folder; those that lie there already are left alone."""
    saved, there, size = 0, 0, 0
    for each in files:
        path, sha256 = str(each.get("path")), str(each.get("sha256"))
        place = folder / _checked(path)
        if place.is_file() and sha256_of(place) == sha256:
            there += 1
            continue
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.ClickException(f"{place.parent} cannot be made: {error.strerror or error}") from None
        size += target.client.save(f"{base}/files/{quote(path)}", place.absolute(), query=query, sha256=sha256)
        saved += 1
    if not saved and not there:
        raise click.ClickException("it has no files")
    rest = f"; {there} were there already" if there else ""
    what = "1 file is saved" if saved == 1 else f"{saved} files are saved"
    click.echo(f"{what} in {folder}, {size} bytes{rest}", err=target.as_json)


def _checked(path: str) -> PurePosixPath:
    """A path that stays below its folder, whatever a server tells."""
    found = PurePosixPath(path)
    if found.is_absolute() or not found.parts or ".." in found.parts or "\0" in path:
        raise click.ClickException(f"the server names a file {clean(path)!r}, which would lie outside of the folder")
    return found
