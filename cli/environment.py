"""What the environment of a command names: the settings, the records, and where the API is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from settings import BadSetting, Settings

if TYPE_CHECKING:
    from storage.records import Records


def settings_here() -> Settings:
    """Settings from the environment; a value that cannot be used ends the command with its variable's name."""
    try:
        return Settings.from_env(os.environ)
    except BadSetting as error:
        raise click.ClickException(str(error)) from None


def make_home(settings: Settings) -> None:
    """Make the folder with the state of this machine where it is missing, for its owner alone.

    What is kept in it follows the umask. Raises ClickException when it cannot be made.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise click.ClickException(
            f"MODELYARD_HOME={settings.home} cannot be written ({error.strerror}); name another folder"
        ) from None


@contextmanager
def open_records(settings: Settings) -> Iterator[Records]:
    """The records of an installation; what they raise ends the command."""
    from storage.errors import StorageError
    from storage.records import Records

    records = None
    try:
        records = Records.connect(settings.database_url, settings.quotas)
        yield records
    except StorageError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if records is not None:
            records.close()


def local_url(settings: Settings) -> str:
    """The address of the API as seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
