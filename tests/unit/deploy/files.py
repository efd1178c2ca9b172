"""What the tests of deployment files know of the program: its commands, its settings, its folders."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

import settings
from cli.main import main
from ml.options.catalog import engines
from settings import Settings

ROOT = Path(settings.__file__).parent
VARIABLES = {each.metadata["variable"] for each in fields(Settings)}
# Read by boto3, which nothing of ours wraps.
OF_S3 = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"}


def check_command(words: list[str]) -> dict[str, object]:
    """The options of a command line; raises click.UsageError unless the program has this command with these options."""
    assert words[0] == "modelyard"
    command: click.Command = main
    context = click.Context(main)
    rest = words[1:]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None
        assert found is not None
        command = found
    return command.make_context(words[1], rest).params


def queues_of(device: str) -> set[str]:
    """Every queue of a kind of device, as the program names them."""
    kinds = ("predict", "batch")
    return {f"train.{device}", *(f"{kind}.{engine}.{device}" for engine in engines() for kind in kinds)}
