"""Attacks by way of an address: server-side request forgery, from every place that fetches.

Each case is an attack. It is made four times: through `data`, through `model.init` of a new service, through
`output.network`, and through the address of a webhook. Each is refused without a connection to the inner host; and each
gets through when the lock that it meets is taken away, which shows that the request was one to be refused for that lock
alone. The look that is taken at `data` before a training is accepted brings nothing back; it is attacked at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import ipaddress
import itertools
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api import pushing, reach
from api.refusals import PushFailed
from ml.errors import BadInput, BadParameter
from ml.options.output import NetworkOptions
from settings import Settings
from storage import fetch
from storage.data_roots import DataRoots
from storage.errors import FetchFailed, StorageError
from storage.objects.cache import Cache
from tests.receiver import Receiver, answer, receiving
from workers.data import sources
from workers.fetching import fetching
from workers.installing import fetch_archive
from workers.webhooks import sending

REFUSALS = (BadInput, BadParameter, FetchFailed, PushFailed)
TIMEOUT_S = 1.0
OPEN = ("0.0.0.0/0", "::/0")
"""An allow list that is wide open: without the lock on addresses."""


@dataclasses.dataclass(frozen=True)
class Door:
    """A place that fetches what a request names.

    follows : whether it follows redirects. reads : whether what it gets is unpacked.
    """

    name: str
    go: Callable[[str, Settings, Path], bytes]
    follows: bool = True

    def __str__(self) -> str:
        return self.name


def through_data(url: str, settings: Settings, folder: Path) -> bytes:
    cache = Cache(settings.cache, settings.cache_limit_bytes)
    with fetching(settings, cache, is_wanted=lambda: True) as fetched:
        [found] = sources([url], DataRoots((folder,)), fetch=fetched)
        return Path(found["path"]).read_bytes()


def through_init(url: str, settings: Settings, folder: Path) -> bytes:
    fetch_archive(url, folder / "archive", settings)
    return (folder / "archive").read_bytes()


def through_network(url: str, settings: Settings, folder: Path) -> bytes:
    network = NetworkOptions(url=url, http_method="POST", content_type="application/json")
    pushing.check(network)
    made = pushing.push(network, b"{}", settings)
    return made.get_data()


def through_webhook(url: str, settings: Settings, folder: Path) -> bytes:
    return sending.post(url, "msg_1", b"{}", ["whsec_c2VjcmV0"], settings).beginning


DATA, INIT, NETWORK, WEBHOOK = (
    Door("data", through_data),
    Door("model.init", through_init),
    Door("output.network", through_network, follows=False),
    Door("webhook", through_webhook, follows=False),
)
DOORS = (DATA, INIT, NETWORK, WEBHOOK)
each_door = pytest.mark.parametrize("door", DOORS, ids=str)
each_that_follows = pytest.mark.parametrize("door", [door for door in DOORS if door.follows], ids=str)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """What an operator has who allows nothing."""
    return patient(settings, TIMEOUT_S)


@pytest.fixture
def inner() -> Iterator[Receiver]:
    """A host of the inner network: it answers everybody who can reach it."""
    with receiving(answer("200 OK", b"secret of the inner network")) as server:
        yield server


def patient(settings: Settings, seconds: float) -> Settings:
    """With so much time for everything."""
    return dataclasses.replace(settings, fetch_timeout_s=seconds, push_timeout_s=seconds, webhook_timeout_s=seconds)


def opened(settings: Settings, *hosts: str) -> Settings:
    """Without the lock: all addresses are allowed, or those named; with time for what is to be answered."""
    return dataclasses.replace(patient(settings, 20.0), fetch_allow=hosts or OPEN)


def refused(door: Door, url: str, settings: Settings, folder: Path) -> str:
    """Why the door did not open."""
    with pytest.raises(REFUSALS) as refusal:
        door.go(url, settings, folder)
    return str(refusal.value)


Resolver = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """A name server under the attacker's control: the answers to one name, one after the other, the last for good."""
    told: Resolver = {}
    ask = socket.getaddrinfo

    def lookup(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        known = told.get(host)
        if known is None:
            assert _is_address(host) or host == "localhost", f"no test may ask for {host}"
            return ask(host, port, *more, **options)
        address = known.pop(0) if len(known) > 1 else known[0]
        return ask(address, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return told


def _is_address(host: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        socket.inet_aton(host)
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


# This machine, however it is written

LOOPBACK = {
    "127.0.0.1": "as it is",
    "127.255.255.254": "another address of this machine",
    "localhost": "its name",
    "LOCALHOST.": "its name, written otherwise",
    "2130706433": "one decimal number",
    "0x7f000001": "one hexadecimal number",
    "017700000001": "one octal number",
    "127.1": "parts left out",
    "0177.0.0.1": "an octal part",
    "0x7f.0.0.1": "a hexadecimal part",
    "0.0.0.0": "the address of nobody, which is this machine",
    "0": "the same, as a number",
    "[::ffff:127.0.0.1]": "inside an address of IPv6",
    "[::ffff:7f00:1]": "the same, in hexadecimal",
}


@each_door
@pytest.mark.parametrize("written", LOOPBACK)
def test_loopback_is_no_place_to_speak_to_however_it_is_written(
    door: Door, written: str, inner: Receiver, settings: Settings, tmp_path: Path
):
    url = f"http://{written}:{inner.port}/"
    assert "MODELYARD_FETCH_ALLOW" in refused(door, url, settings, tmp_path)
    assert inner.heads == [], "not even a connection was made"
    if written != "127.255.255.254":
        assert door.go(url, opened(settings), tmp_path) == b"secret of the inner network"


@each_door
def test_loopback_of_ipv6_is_none_either(door: Door, settings: Settings, tmp_path: Path):
    try:
        with receiving(answer("200 OK", b"secret"), host="::1") as inner:
            for written in ("[::1]", "[0:0:0:0:0:0:0:1]", "[::]"):
                url = f"http://{written}:{inner.port}/"
                assert "MODELYARD_FETCH_ALLOW" in refused(door, url, settings, tmp_path)
                assert inner.heads == []
            assert door.go(f"http://[::1]:{inner.port}/", opened(settings), tmp_path) == b"secret"
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


# Other addresses that are not public. Nothing lives there, so that what would be connected to is noted instead.

INNER = {
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "shared by the customers of a provider",
    "169.254.169.254": "link-local: where clouds tell a machine its credentials",
    "[fe80::1]": "link-local of IPv6",
    "[fc00::1]": "private of IPv6",
    "[fd00:ec2::254]": "where a cloud tells a machine its credentials, in IPv6",
    "[fec0::1]": "site-local of IPv6",
    "[64:ff9b::a9fe:a9fe]": "link-local of IPv4, seen through a network of IPv6",
    "[64:ff9b:1::a9fe:a9fe]": "the same, through a translator of one's own",
    "[2002:7f00:1::]": "loopback of IPv4, tunnelled",
    "[::127.0.0.1]": "loopback of IPv4, in the oldest form of IPv6",
    "[::ffff:169.254.169.254]": "link-local of IPv4 inside IPv6",
    "[ff02::1]": "all machines of the network",
    "224.0.0.1": "the same, in IPv4",
    "255.255.255.255": "the same, by broadcast",
    "240.0.0.1": "reserved",
    "192.0.2.1": "documentation",
    "198.18.0.1": "measurements of networks",
}


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, names: Resolver) -> list[str]:
    """The addresses that a connection was tried to; none comes about."""
    tried: list[str] = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        tried.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(fetch.connection, "create_connection", connect)
    return tried


@each_door
@pytest.mark.parametrize("written", INNER)
def test_inner_networks_are_no_place_to_speak_to(
    door: Door, written: str, connected: list[str], settings: Settings, tmp_path: Path
):
    url = f"http://{written}/latest/meta-data/"
    assert "MODELYARD_FETCH_ALLOW" in refused(door, url, settings, tmp_path)
    assert connected == []
    assert "refuses the connection" in refused(door, url, opened(settings), tmp_path)
    assert connected, "without the lock it would have been spoken to"


@each_door
def test_public_addresses_are_spoken_to(door: Door, connected: list[str], settings: Settings, tmp_path: Path):
    """Else the tests above would prove nothing."""
    refused(door, "http://11.0.0.1/", settings, tmp_path)
    refused(door, "http://[2600::1]/", settings, tmp_path)
    assert {*connected} == {"11.0.0.1", "2600::1"}


# Names


@each_door
def test_name_that_leads_to_an_inner_address_is_refused(
    door: Door, names: Resolver, inner: Receiver, settings: Settings, tmp_path: Path
):
    names["files.attacker.test"] = ["127.0.0.1"]
    url = f"http://files.attacker.test:{inner.port}/"
    assert "127.0.0.1" not in refused(door, url, settings, tmp_path), "what names resolve to is no business of clients"
    assert inner.heads == []
    assert door.go(url, opened(settings), tmp_path) == b"secret of the inner network"


@each_door
def test_name_that_leads_elsewhere_when_it_is_asked_again_is_judged_by_where_it_leads(
    door: Door, names: Resolver, inner: Receiver, connected: list[str], settings: Settings, tmp_path: Path
):
    """DNS rebinding: a public address for whoever checks, an inner one for whoever connects."""
    names["changing.attacker.test"] = ["11.0.0.1", "127.0.0.1"]
    url = f"http://changing.attacker.test:{inner.port}/"
    refused(door, url, dataclasses.replace(settings, fetch_timeout_s=5.0), tmp_path)
    # One that is tried again is asked and checked anew.
    assert {*connected} == {"11.0.0.1"}, "what was checked is what was connected to"
    assert "MODELYARD_FETCH_ALLOW" in refused(door, url, settings, tmp_path)
    assert inner.heads == []


@each_door
def test_check_of_the_name_before_another_look_at_it_would_not_be_enough(
    door: Door,
    names: Resolver,
    inner: Receiver,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The same attack on a lock that checks one answer and connects by another: it gets through."""
    connect = fetch._Guard.connect

    def checks_first(self: fetch._Guard, host: str, port: int) -> socket.socket:
        [(*_, place)] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if not self.allowed.permits(host, str(place[0])):
            return connect(self, host, port)
        return socket.create_connection(socket.getaddrinfo(host, port)[0][4][:2])

    monkeypatch.setattr(fetch._Guard, "connect", checks_first)
    names["changing.attacker.test"] = ["11.0.0.1", "127.0.0.1"]
    url = f"http://changing.attacker.test:{inner.port}/"
    assert door.go(url, settings, tmp_path) == b"secret of the inner network"


@each_door
def test_of_several_addresses_of_a_name_only_permitted_ones_are_used(
    door: Door, inner: Receiver, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A public address that takes no connection, so that the next one is tried: an inner one."""
    ask = socket.getaddrinfo

    def lookup(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        several = ["127.0.0.3", "127.0.0.1"] if host == "both.attacker.test" else [host]
        return [found for each in several for found in ask(each, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    url = f"http://both.attacker.test:{inner.port}/"
    # 127.0.0.3 stands for the public one.
    assert "refuses the connection" in refused(door, url, opened(settings, "127.0.0.3"), tmp_path)
    assert inner.heads == []
    assert door.go(url, opened(settings), tmp_path) == b"secret of the inner network"


# How addresses are read

TRICKS = {
    "http://files.example.org@127.0.0.1:{port}/": "a name of a user that looks like a host",
    "http://files.example.org:80@127.0.0.1:{port}/": "with a password that looks like a port",
    "http://files.example.org%2f@127.0.0.1:{port}/": "with a slash that is none yet",
    "http://127.0.0.1:{port}#@files.example.org/": "with a fragment",
    "http://127.0.0.1:{port}?@files.example.org/": "with a query",
    "http://127.0.0.1:{port}\\@files.example.org/": "with a slash of another kind",
    "http://127.0.0.1:{port}/files.example.org/": "with a path",
    "http:///127.0.0.1:{port}/": "with a slash too many",
    "http:127.0.0.1:{port}/": "with slashes too few",
    "http://files.example.org&@127.0.0.1:{port}/": "with a separator",
    "http:// 127.0.0.1:{port}/": "with a blank",
    "http://127.0.0.1:{port}\t/": "with a tab",
    "http://127。0。0。1:{port}/": "with dots of another alphabet",
    "http://①②⑦.⓪.⓪.①:{port}/": "with digits of another alphabet",
}


@each_door
@pytest.mark.parametrize("trick", TRICKS)
def test_host_is_read_as_it_is_connected_to(
    door: Door, trick: str, names: Resolver, inner: Receiver, settings: Settings, tmp_path: Path
):
    """The operator allows one host, and the address pretends to be there."""
    names["files.example.org"] = ["127.0.0.4"]
    url = trick.format(port=inner.port)
    # What is no address is a line of data, and not fetched either.
    with contextlib.suppress(*REFUSALS, AssertionError, KeyError):
        got = door.go(url, opened(settings, "files.example.org"), tmp_path)
        pytest.fail(f"{url} gave {got!r}")
    assert inner.heads == [], "nothing was asked of the inner host"
    if "@127.0.0.1" in trick:
        assert door.go(url, opened(settings), tmp_path) == b"secret of the inner network"


OTHER_SCHEMES = [
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "dict://127.0.0.1:{port}/info",
    "ldap://127.0.0.1:{port}/",
    "redis://127.0.0.1:{port}/",
    "unix:///run/redis.sock",
    "jar:http://127.0.0.1:{port}/!/",
    "data:text/plain,secret",
    "javascript:alert(1)",
    "//127.0.0.1:{port}/",
]


@each_door
@pytest.mark.parametrize("url", OTHER_SCHEMES)
def test_other_schemes_are_not_spoken(
    door: Door, url: str, names: Resolver, inner: Receiver, settings: Settings, tmp_path: Path
):
    """Even with an allow list that is wide open."""
    with contextlib.suppress(*REFUSALS, StorageError, KeyError, OSError):
        got = door.go(url.format(port=inner.port), opened(settings), tmp_path)
        pytest.fail(f"{url} gave {got!r}")
    assert inner.heads == []


@each_door
@pytest.mark.parametrize("port", ["65536", "99999999999", "-1", "0x50", "80:80", "http"])
def test_port_that_is_none_is_refused(door: Door, port: str, settings: Settings, tmp_path: Path):
    """One that wraps around would lead to another service."""
    refused(door, f"http://127.0.0.1:{port}/", opened(settings), tmp_path)


@each_door
@pytest.mark.parametrize("port", [22, 25, 5432, 6379, 9200, 11211])
def test_ports_of_inner_services_are_not_told_apart(
    door: Door, port: int, connected: list[str], settings: Settings, tmp_path: Path
):
    """Who could tell an open port from a closed one could map the inner network."""
    texts = {
        refused(door, f"http://10.0.0.1:{each}/", settings, tmp_path).replace(f":{each}/", "/") for each in (port, 1)
    }
    assert len(texts) == 1
    assert connected == []


# Redirects

TARGETS = {
    "http://127.0.0.2:{port}/": "loopback",
    "//127.0.0.2:{port}/": "the same, without a scheme",
    "http://2130706434:{port}/": "the same, as a number",
    "http://allowed@127.0.0.2:{port}/": "the same, with the name of a user",
}


@each_that_follows
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See other", "307 Again", "308 For good"])
def test_redirect_into_the_inner_network_is_refused(
    door: Door, target: str, status: str, settings: Settings, tmp_path: Path
):
    """127.0.0.1 stands for a public host, 127.0.0.2 for an inner one."""
    with (
        receiving(answer("200 OK", b"secret"), host="127.0.0.2") as inner,
        receiving(answer(status, b"", f"Location: {target.format(port=inner.port)}")) as outer,
    ):
        assert "MODELYARD_FETCH_ALLOW" in refused(door, outer.url, opened(settings, "127.0.0.1"), tmp_path)
        assert inner.heads == []
        assert door.go(outer.url, opened(settings), tmp_path) == b"secret"


@each_that_follows
@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/_", "s3://b/k"])
def test_redirect_to_another_scheme_is_refused(door: Door, target: str, settings: Settings, tmp_path: Path):
    with receiving(answer("302 Found", b"", f"Location: {target}")) as outer:
        assert "must begin with http:// or https://" in refused(door, outer.url, opened(settings), tmp_path)


@each_that_follows
def test_chain_of_redirects_is_checked_at_each_link(door: Door, settings: Settings, tmp_path: Path):
    with (
        receiving(answer("200 OK", b"secret"), host="127.0.0.2") as inner,
        receiving(answer("302 Found", b"", f"Location: {inner.url}")) as second,
        receiving(answer("302 Found", b"", f"Location: {second.url}")) as first,
    ):
        refused(door, first.url, opened(settings, "127.0.0.1"), tmp_path)
        assert (len(second.heads), inner.heads) == (1, [])
        assert door.go(first.url, opened(settings), tmp_path) == b"secret"


@each_that_follows
def test_redirects_without_end_come_to_one(door: Door, settings: Settings, tmp_path: Path):
    with receiving(answer("302 Found", b"", "Location: /again")) as outer:
        assert "redirects once more" in refused(door, outer.url, opened(settings), tmp_path)
        assert len(outer.heads) == fetch.REDIRECTS_MAX + 1


@pytest.mark.parametrize("door", [NETWORK, WEBHOOK], ids=str)
def test_what_is_sent_follows_no_redirect(door: Door, inner: Receiver, settings: Settings, tmp_path: Path):
    """Else it would go to whoever the first host names."""
    with receiving(answer("307 Again", b"moved", f"Location: {inner.url}")) as outer:
        assert door.go(outer.url, opened(settings), tmp_path) == b"moved"
    assert inner.heads == []


@each_that_follows
def test_credentials_stay_with_the_host_that_they_are_for(door: Door, settings: Settings, tmp_path: Path):
    with (
        receiving(answer("200 OK", b"x")) as other,
        receiving(answer("302 Found", b"", f"Location: {other.url}")) as first,
    ):
        door.go(f"http://me:secret@127.0.0.1:{first.port}/", opened(settings), tmp_path)
    assert "authorization: Basic" in first.heads[0]
    assert "authorization" not in other.heads[0].lower()


# What is sent along

INJECTIONS = [
    "http://127.0.0.1:{port}/a\r\nX-Injected: 1",
    "http://127.0.0.1:{port}/a HTTP/1.1\r\nX-Injected: 1\r\n\r\n",
    "http://127.0.0.1:{port}/?q=\r\nX-Injected: 1",
    "http://127.0.0.1:{port}/a\nX-Injected:1",
    "http://me:x\r\nX-Injected: 1@127.0.0.1:{port}/",
    "http://127.0.0.1\r\nX-Injected: 1:{port}/",
    "http://127.0.0.1:{port}/\x00X-Injected: 1",
    "http://127.0.0.1:{port}/\u560d\u560aX-Injected:1",
]


@each_door
@pytest.mark.parametrize("url", INJECTIONS, ids=range(len(INJECTIONS)))
def test_address_cannot_add_headers_or_requests(
    door: Door, url: str, inner: Receiver, settings: Settings, tmp_path: Path
):
    """CR and LF in an address, also as characters whose lowest bytes are those."""
    with contextlib.suppress(*REFUSALS, KeyError, StorageError):
        door.go(url.format(port=inner.port), opened(settings), tmp_path)
    for head in inner.heads:
        names = [line.partition(":")[0].lower() for line in head.split("\r\n")[1:]]
        assert "x-injected" not in names
        assert "\n" not in head.replace("\r\n", "")
    with socket.create_connection(("127.0.0.1", inner.port)) as naive:  # what a careless client would have sent
        naive.sendall(b"GET /a\r\nX-Injected: 1 HTTP/1.1\r\nHost: x: y\r\n\r\n")
        naive.recv(1000)
    assert "x-injected" in [line.partition(":")[0].lower() for line in inner.heads[-1].split("\r\n")]


@each_that_follows
def test_redirect_cannot_add_headers(door: Door, inner: Receiver, settings: Settings, tmp_path: Path):
    where = f"Location: {inner.url}/a%0d%0aX-Injected:%201"
    with receiving(answer("302 Found", b"", where)) as outer:
        door.go(outer.url, opened(settings), tmp_path)
    assert "x-injected" not in [line.partition(":")[0].lower() for line in inner.heads[0].split("\r\n")]


def test_name_of_a_content_cannot_add_headers_when_it_is_asked_after(settings: Settings, tmp_path: Path):
    """The host chooses what it is sent back with the next request."""
    for tag in ('ETag: "a"\r\n X-Injected: 1', 'ETag: "' + "x" * 5000 + '"', "Last-Modified: now\r\n X-Injected: 1"):
        with receiving(answer("200 OK", b"x", tag)) as host:
            for _ in range(2):
                assert DATA.go(host.url, opened(settings), tmp_path) == b"x"
        assert not any(name in host.heads[1] for name in ("If-None-Match", "If-Modified-Since", "X-Injected"))


# Too much, too slow

BODIES = {
    "larger than announced limits allow": lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
    "without end": lambda c: _pour(c, b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
    "without end, in chunks": lambda c: _pour(
        c, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
    ),
    "headers without end": lambda c: _pour(c, b"HTTP/1.1 200 OK\r\n", b"A: " + b"x" * 60000 + b"\r\n"),
    "an interim answer without end": lambda c: _pour(c, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


def _pour(connection: socket.socket, head: bytes, piece: bytes, pause_s: float = 0.0) -> None:
    connection.sendall(head)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        connection.sendall(piece)
        if select.select([connection], [], [], pause_s)[0] and not connection.recv(65536):
            return  # nobody is there any more


@each_door
@pytest.mark.parametrize("body", BODIES)
def test_answer_without_measure_fills_neither_memory_nor_disk(
    door: Door, body: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pushing, "ANSWER_LIMIT_BYTES", 2**20)
    small = dataclasses.replace(patient(opened(settings), 5.0), fetch_limit_bytes=2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with receiving(BODIES[body]) as host:
        if door is WEBHOOK and body.startswith("without end"):
            # What it is told is of no interest but for its beginning.
            assert door.go(host.url, small, tmp_path) == b"x" * sending.KEPT_BYTES
        else:
            refused(door, host.url, small, tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"
    assert _kept(settings, tmp_path) < 2**20


DRIPS = {
    "the status": (b"", b"H"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "the content": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "packed content": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"x")[:10], b""),
}


@each_door
@pytest.mark.parametrize("drip", DRIPS)
def test_host_that_drips_is_cut_in_time(door: Door, drip: str, settings: Settings, tmp_path: Path):
    """A byte now and then keeps any timeout of a socket from coming; the time for all of it comes nevertheless."""
    head, piece = DRIPS[drip]
    with receiving(lambda connection: _pour(connection, head, piece, 0.05)) as host:
        if door is WEBHOOK and drip == "packed content":
            assert door.go(host.url, opened(settings), tmp_path) == b"", "nobody waits for it"
            return
        began = time.monotonic()
        refused(door, host.url, patient(opened(settings), TIMEOUT_S), tmp_path)
        assert time.monotonic() - began < 10, "it drips for 15 seconds"
        # Nothing but the limit ends it: with more time it takes more time.
        began = time.monotonic()
        refused(door, host.url, patient(opened(settings), 2.0), tmp_path)
        assert time.monotonic() - began >= 2.0 or drip == "packed content"


def test_few_bytes_that_unpack_to_many_are_cut_at_the_limit(settings: Settings, tmp_path: Path):
    """A bomb: 200 KB on the way, 200 MB on the disk."""
    bomb = gzip.compress(b"\0" * (200 << 20), 9)
    small = dataclasses.replace(opened(settings), fetch_limit_bytes=2**20, fetch_timeout_s=60.0)
    assert len(bomb) < small.fetch_limit_bytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with receiving(answer("200 OK", bomb, "Content-Encoding: gzip")) as host:
        assert "when it is unpacked" in refused(DATA, host.url, small, tmp_path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024, "KiB"
        assert _kept(settings, tmp_path) < 2**20
        large = dataclasses.replace(small, fetch_limit_bytes=2**30)
        assert len(DATA.go(host.url, large, tmp_path)) == 200 << 20


@pytest.mark.parametrize("door", [INIT, NETWORK, WEBHOOK], ids=str)
def test_bomb_is_not_unpacked_where_nothing_is(door: Door, settings: Settings, tmp_path: Path):
    bomb = gzip.compress(b"\0" * (20 << 20), 9)
    with receiving(answer("200 OK", bomb, "Content-Encoding: gzip")) as host:
        if door is INIT:
            assert door.go(host.url, opened(settings), tmp_path) == bomb
        elif door is WEBHOOK:
            assert door.go(host.url, opened(settings), tmp_path) == b""
        else:
            assert "packed content" in refused(door, host.url, opened(settings), tmp_path)


def test_bomb_inside_a_bomb_is_not_opened(settings: Settings, tmp_path: Path):
    bomb = gzip.compress(gzip.compress(b"\0" * (20 << 20), 9), 9)
    with receiving(answer("200 OK", bomb, "Content-Encoding: gzip, gzip")) as host:
        assert "only gzip is unpacked" in refused(DATA, host.url, opened(settings), tmp_path)


def _kept(settings: Settings, folder: Path) -> int:
    """Bytes of all files that were left behind."""
    places = [settings.cache, folder]
    return sum(
        each.stat().st_size for each in itertools.chain(*(place.rglob("*") for place in places)) if each.is_file()
    )


# Buckets


@pytest.mark.parametrize(
    "address",
    [
        "s3://other/key",
        "s3://",
        "s3:///key",
        "s3://data@other/key",
        "s3://data%2fother/key",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/data/key",
        "s3://../data/key",
        "s3://DATA/key",
    ],
)
def test_bucket_that_is_not_named_is_not_read(
    address: str, connected: list[str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    chosen = dataclasses.replace(settings, data_s3_buckets=("data",), data_s3_endpoint_url="http://127.0.0.1:1")
    monkeypatch.setattr("storage.buckets.Buckets.fetch", lambda self, place, *_: asked.append(place.bucket))
    assert "MODELYARD_DATA_S3_BUCKETS" in refused(DATA, address, chosen, tmp_path)
    assert "MODELYARD_DATA_S3_BUCKETS" in refused(DATA, "s3://data/key", settings, tmp_path), "off unless it is set"
    assert asked == []
    bucket = address.removeprefix("s3://").partition("/")[0]
    with contextlib.suppress(AttributeError, AssertionError, BadInput):
        DATA.go(address, dataclasses.replace(chosen, data_s3_buckets=(bucket,)), tmp_path)
    assert asked == [bucket] or not bucket


# The look before a training is accepted, which the API takes


def look(url: str, settings: Settings) -> str:
    """What is said of an address; nothing when its host was asked, and had the file."""
    try:
        reach.check(settings, [url], 9, lambda *_: None)
    except BadInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize("written", [each for each in LOOPBACK if each != "127.255.255.254"])
def test_look_is_taken_at_no_loopback_however_it_is_written(written: str, inner: Receiver, settings: Settings):
    url = f"http://{written}:{inner.port}/"
    assert "MODELYARD_FETCH_ALLOW" in look(url, settings)
    assert inner.heads == []
    assert look(url, opened(settings)) == ""
    assert len(inner.heads) == 1


@pytest.mark.parametrize("written", INNER)
def test_look_is_taken_at_no_inner_network(written: str, connected: list[str], settings: Settings):
    url = f"http://{written}/latest/meta-data/"
    assert "MODELYARD_FETCH_ALLOW" in look(url, settings)
    assert connected == []
    assert look(url, opened(settings)) == ""
    assert connected


def test_look_follows_neither_names_nor_redirects_to_inner_addresses(
    names: Resolver, inner: Receiver, settings: Settings
):
    names["files.attacker.test"] = ["127.0.0.1"]
    names["outer.test"] = ["127.0.0.1"]
    url = f"http://files.attacker.test:{inner.port}/"
    assert "127.0.0.1" not in look(url, settings)
    with receiving(answer("302 Found", b"", f"Location: {inner.url}")) as outer:
        first = f"http://outer.test:{outer.port}/"
        assert "MODELYARD_FETCH_ALLOW" in look(first, opened(settings, "outer.test"))
        assert len(outer.heads) == 1
        assert inner.heads == []
        assert look(first, opened(settings)) == ""
    assert look(url, opened(settings)) == ""
    assert len(inner.heads) == 2


@pytest.mark.parametrize("drip", DRIPS)
def test_look_at_a_host_that_drips_is_over_in_time(drip: str, settings: Settings):
    head, piece = DRIPS[drip]
    hurried = dataclasses.replace(opened(settings), precheck_timeout_s=0.5)
    with receiving(lambda connection: _pour(connection, head, piece, 0.05)) as host:
        began = time.monotonic()
        assert look(host.url, hurried) == ""
        assert time.monotonic() - began < 10, "it drips for 15 seconds"
