"""The settings that the environment of a command names, and where they put the API."""

from __future__ import annotations

import os

import click

from settings import BadSetting, Settings


def settings_here() -> Settings:
    """Settings from the environment; a value that cannot be used ends the command with its variable's name."""
    try:
        return Settings.from_env(os.environ)
    except BadSetting as error:
        raise click.ClickException(str(error)) from None


def local_url(settings: Settings) -> str:
    """The address of the API as seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
