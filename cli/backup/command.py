"""modelyard backup, restore, verify, and db settle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cli.environment import settings_here
from cli.remote.tables import counted

_SHOWN = 20


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be done ends the command with its reason."""
    from cli.backup.copying import NoBackup
    from storage.errors import StorageError

    try:
        yield
    except (NoBackup, StorageError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.argument("target", metavar="TO", type=click.Path(path_type=Path))
def backup(target: Path) -> None:
    """Copy records, objects and the home's data root into the new folder TO, while everything runs.

    For records in SQLite. Those of a database server are copied by its own means, between two copies of the bucket:
    see docs/operations.md.
    """
    from cli.backup.copying import backup as copy

    with _told():
        copied = copy(settings_here(), target.absolute(), click.echo)
    objects, files = counted(copied.objects, "object"), counted(copied.files, "file")
    click.echo(f"{target} is complete: {objects}, {files} of the data root, the records")


@click.command()
@click.argument("source", metavar="FROM", type=click.Path(path_type=Path))
def restore(source: Path) -> None:
    """Put a backup into the empty home that MODELYARD_HOME names; start the parts afterwards.

    Tasks that were queued or running when it was made begin again, or go on from their last checkpoint. Flower gets a
    new login, in the file `flower-login`, unless MODELYARD_FLOWER_LOGIN is set.
    """
    from cli.backup.restoring import restore as put_back

    with _told():
        put_back(settings_here(), source.absolute(), click.echo)
    click.echo(f"{source} is restored; `modelyard verify --contents` reads all of it")


@click.command()
@click.option("--contents", is_flag=True, help="Read every artifact, and compare its SHA-256 with that of its record.")
def verify(contents: bool) -> None:
    """Look whether everything that the records name lies in the object store, whole.

    Changes nothing, and may run beside everything else. Exit code 1 when something is missing or damaged.
    """
    from cli.backup.verifying import verify as look
    from storage.objects import connect
    from storage.records import Records

    settings = settings_here()
    with _told(), contextlib.closing(Records.connect(settings.database_url)) as records:
        records.check()
        store = connect(settings.objects_url, endpoint_url=settings.s3_endpoint_url)
        found = look(records, store, contents=contents)
    for named, fault in found.wrong[:_SHOWN]:
        click.echo(f"{named.what}: {named.key} {fault}")
    if len(found.wrong) > _SHOWN:
        click.echo(f"… and {len(found.wrong) - _SHOWN} more")
    click.echo(f"{counted(found.named, 'object')} of the records, {len(found.wrong)} of them missing or damaged")
    others = f"{counted(found.others, 'other')}, {found.others_bytes} bytes"
    click.echo(f"{others}: checkpoints, logs, inputs, what awaits cleaning")
    if found.wrong:
        raise click.exceptions.Exit(1)


@click.command()
def settle() -> None:
    """After records and objects were restored by other means: have them fit together.

    Nothing may run. Numbers of tasks go on above those that the object store knows, running tasks begin again or go on
    from a checkpoint, the folders of repositories are written anew, and Redis forgets the time that was lost.
    """
    from cli.backup.restoring import settle as fit
    from storage.objects import connect
    from storage.records import Records

    settings = settings_here()
    with _told(), contextlib.closing(Records.connect(settings.database_url)) as records:
        records.upgrade()
        store = connect(settings.objects_url, endpoint_url=settings.s3_endpoint_url)
        interrupted = fit(settings, records, store)
    click.echo(f"settled; {counted(interrupted, 'task')} to begin or go on again when the parts are started")
