"""The API: reachable, let in by the key, ready; its ports; and whether strangers can come in."""

from __future__ import annotations

import errno
import json
import socket

import click

from cli.doctor.findings import Found, fail, ok, warn
from cli.doctor.stores import records_of
from cli.remote.client import Client, NoAnswer, Refused
from settings import Settings
from storage.errors import StorageError

_ANSWER_S = 5.0


def api(url: str, key: str | None) -> Found:
    """Whether it answers, knows the key, and has all that it needs."""
    with Client(url, key, _ANSWER_S) as client:
        try:
            client.call("GET", "/healthz")
        except NoAnswer as error:
            yield fail(
                error.message.partition(";")[0],
                "start it (modelyard up, or modelyard api), or name its address in MODELYARD_URL",
            )
            return
        except Refused as error:
            yield fail(f"{url} answers {error.message}", "name the address of a Modelyard API in MODELYARD_URL")
            return
        yield ok(f"{url} answers")
        yield from _key(client, key)
        yield from _ready(client)


def _key(client: Client, key: str | None) -> Found:
    try:
        head = client.call("GET", "/info").json.get("head") or {}
    except Refused as error:
        if error.code != 401:
            yield fail(f"/info answers {error.message}", "look into the log of the API")
        elif key is None:
            yield fail("it asks for a key", "put one into MODELYARD_KEY; modelyard keys create makes one")
        else:
            yield fail("it does not know this key", "put a key in force into MODELYARD_KEY; see modelyard keys list")
        return
    except click.ClickException as error:
        yield fail(error.message, "look into the log of the API")
        return
    yield ok(f"it lets us in{' with this key' if key else ' without a key'}, version {head.get('version')}")


def _ready(client: Client) -> Found:
    try:
        client.call("GET", "/readyz")
    except Refused as error:
        try:
            missing = json.loads(error.text)["missing"]
        except (ValueError, KeyError, TypeError):
            missing = {"readyz": error.message}
        yield fail(
            f"it is not ready: {'; '.join(f'{name}: {why}' for name, why in missing.items())}", "mend these first"
        )
    except click.ClickException as error:
        yield fail(error.message, "look into the log of the API")
    else:
        yield ok("it is ready")


def ports(settings: Settings) -> Found:
    """Whether what listens on our ports is ours; free ports are right while nothing runs."""
    from cli.services import listen_address
    from cli.stack import StackError, is_held

    is_running = is_held(settings.home)
    try:
        wanted = [(listen_address(settings), settings.port, "MODELYARD_PORT")]
    except StackError as error:
        yield fail(str(error), "set MODELYARD_HOST to an address of this machine")
        return
    if settings.flower_port:
        wanted.append(("127.0.0.1", settings.flower_port, "MODELYARD_FLOWER_PORT"))
    for host, port, variable in wanted:
        problem = _bind_problem(host, port)
        if problem is None:
            yield ok(f"port {port} of {host} is free")
        elif problem.errno == errno.EADDRINUSE and is_running:
            yield ok(f"port {port} of {host} is in use, as modelyard up runs here")
        elif problem.errno == errno.EADDRINUSE:
            yield warn(
                f"port {port} of {host} is in use",
                f"right if a part of Modelyard was started alone; else end what uses it, or set {variable}",
            )
        else:
            yield fail(
                f"nobody can listen on port {port} of {host}: {problem.strerror}", f"set MODELYARD_HOST or {variable}"
            )


def _bind_problem(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            tried.listen(1)
    except OSError as error:
        return error
    return None


def strangers(settings: Settings) -> Found:
    """Whether the API would be open to others without a key."""
    if settings.is_loopback:
        yield ok(f"the API listens on {settings.host}, which only this machine reaches")
        return
    try:
        with records_of(settings) as records:
            is_guarded = records.keys.any_active()
    except StorageError:
        yield fail("nobody knows whether there are keys while the records do not answer", "mend the records first")
        return
    if is_guarded:
        yield ok(f"MODELYARD_HOST={settings.host} can be reached by others, and asks them for a key")
    else:
        cure = "run: modelyard keys create --account NAME; the API does not start before"
        yield fail(f"MODELYARD_HOST={settings.host} can be reached by others, and there is no key", cure)
