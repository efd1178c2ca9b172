"""Which API a command speaks with: --url, --key, --timeout; and --json, which prints its answer as it came."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cli.environment import local_url, settings_here

if TYPE_CHECKING:
    from cli.remote.client import Answer, Client

INTERRUPTED = 130
_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Target:
    """The API, and whether its answers are printed as they come."""

    client: Client
    as_json: bool

    def print_json(self, answer: Answer) -> None:
        """Print the body of an answer unchanged."""
        click.echo(answer.text)


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that name an API, and, as its first argument, the Target that they name."""

    @click.option(
        "--url",
        envvar="MODELYARD_URL",
        show_envvar=True,
        metavar="URL",
        help="Address of the API. Default: that of this machine, by MODELYARD_HOST and MODELYARD_PORT.",
    )
    @click.option(
        "--key",
        envvar="MODELYARD_KEY",
        show_envvar=True,
        metavar="KEY",
        help="Key of an account. Better in the variable: other users of a machine may see command lines.",
    )
    @click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0.1, 86400),
        default=_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        help="How long one answer may take.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the answer of the API as it is, for programs.")
    @functools.wraps(command)
    def asked(*, url: str | None, key: str | None, timeout_s: float, as_json: bool, **given: Any) -> None:
        from cli.remote.client import Client, Refused

        with Client(address(url), usable_key(key), timeout_s) as client:
            try:
                command(Target(client, as_json), **given)
            except Refused as error:
                if as_json:
                    click.echo(error.text)
                raise
            except KeyboardInterrupt:
                click.echo(err=True)
                raise click.exceptions.Exit(INTERRUPTED) from None

    return asked


def address(url: str | None) -> str:
    """`url` when it can be used, or the API of this machine. Raises a usage error."""
    from cli.remote.client import usable_url

    if not url:
        return local_url(settings_here())
    try:
        return usable_url(url)
    except ValueError as error:
        raise click.BadParameter(f"it {error}", param_hint="--url (MODELYARD_URL)") from None


def usable_key(key: str | None) -> str | None:
    """`key` when a header can hold it. Raises a usage error, which does not repeat it."""
    if not key or not key.strip():
        return None
    if not (key.strip().isascii() and key.strip().isprintable()):
        raise click.BadParameter("it holds characters that no key has", param_hint="--key (MODELYARD_KEY)")
    return key.strip()
