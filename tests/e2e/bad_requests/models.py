"""Bad input about where the models of new services come from."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from tests.e2e.bad_requests.cases import Json, request, train
from tests.e2e.bad_requests.stage import NETWORK, create, file, parameters, training_body
from tests.e2e.conftest import Answer, Client


def copy(client: Client, **mllib: Any) -> Answer:
    """A creation that takes its model from another place."""
    model = {"repository": "bad-input-never"}
    try:
        return create(client, model=model, parameters=parameters(mllib=mllib))
    finally:
        client.call("DELETE", "/services/never?clear=full")


def install(client: Client, archive: str, **changes: Any) -> Answer:
    """A creation that installs an archive."""
    model = {"repository": "bad-input-never", "init": archive}
    try:
        return create(client, model=model, **changes)
    finally:
        client.call("DELETE", "/services/never?clear=full")


def packed(client: Client, name: str, members: dict[str, bytes], link: str = "") -> str:
    """A tar archive in the data root, with a symbolic link to `link` if there is one."""
    path = client.data / name
    with tarfile.open(path, "w") as archive:
        for member, content in members.items():
            told = tarfile.TarInfo(member)
            told.size = len(content)
            archive.addfile(told, io.BytesIO(content))
        if link:
            told = tarfile.TarInfo("best.model")
            told.type, told.linkname = tarfile.SYMTYPE, link
            archive.addfile(told)
    return str(path)


@request
def init_missing(client: Client) -> Answer:
    return install(client, str(client.data / "no-such.tar"))


@request
def init_outside(client: Client) -> Answer:
    return install(client, "/etc/passwd")


@request
def init_broken(client: Client) -> Answer:
    return install(client, str(file(client, "broken-archive", b"\x1f\x8b" + b"x" * 100)))


@request
def init_with_link(client: Client) -> Answer:
    return install(client, packed(client, "link.tar", {"config.json": b"{}"}, link="/etc/passwd"))


@request
def init_that_leads_out(client: Client) -> Answer:
    return install(client, packed(client, "out.tar", {"../config.json": b"{}"}))


@request
def init_and_from_repository(client: Client) -> Answer:
    given = parameters(mllib={"from_repository": "bad-input-trained"})
    return install(client, packed(client, "both.tar", {"a": b"x"}), parameters=given)


@request
def from_repository_missing(client: Client) -> Answer:
    return copy(client, from_repository=str(client.data / "no/such/folder"))


@request
def from_repository_empty(client: Client) -> Answer:
    (client.data / "bare").mkdir(exist_ok=True)
    return copy(client, from_repository=str(client.data / "bare"))


@request
def from_repository_is_its_own(client: Client) -> Answer:
    (client.data / "same").mkdir(exist_ok=True)
    given = parameters(mllib={"from_repository": str(client.data / "same")})
    return create(client, model={"repository": str(client.data / "same")}, parameters=given)


@request
def from_repository_outside(client: Client) -> Answer:
    return copy(client, from_repository="/etc")


@request
def from_repository_of_another_library(client: Client) -> Answer:
    return copy(client, from_repository="bad-input-net-trained")


@request
def weights_missing(client: Client) -> Answer:
    return create(client, model={"repository": "bad-input-never", "weights": "no-such.model"})


@request
def weights_foreign(client: Client) -> Answer:
    return create(client, model={"repository": "bad-input-never", "weights": "notes.txt"})


@request
def weights_are_a_state(client: Client) -> Answer:
    given = {"input": {"connector": "csv"}, "mllib": NETWORK}
    model = {"repository": "bad-input-never", "weights": "solver-100.pt"}
    return create(client, mllib="torch", model=model, parameters=given)


@train
def target_repository_is_its_own(client: Client) -> Json:
    return training_body(client, output={"target_repository": str(client.data / "bad-input")})


@request
def repository_of_another_library(client: Client) -> Answer:
    given = {"input": {"connector": "csv"}, "mllib": NETWORK}
    return create(client, mllib="torch", model={"repository": "bad-input-trained"}, parameters=given)
