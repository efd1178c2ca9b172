"""The settings that the environment of a command names."""

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
