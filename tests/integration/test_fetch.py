"""Fetching from and sending to other hosts, with servers on the loopback address."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import itertools
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from storage import fetch
from storage.errors import FetchFailed, FetchForbidden, StorageFull, StoreUnavailable
from storage.fetch import fetch_file, send
from tests.receiver import Answering, answer, receiving

LOOPBACK = ("127.0.0.0/8",)
LIMIT = 1 << 20
OK = b"HTTP/1.1 200 OK\r\n"


def fetched(url: str, path: Path, **more) -> int:
    return fetch_file(url, path, **{"allow": LOOPBACK, "limit_bytes": LIMIT, "timeout_s": 5.0, **more})


def sent(url: str, body: bytes = b"{}", method: str = "POST", headers: dict[str, str] | None = None, **more):
    given = {"allow": LOOPBACK, "limit_bytes": LIMIT, "timeout_s": 5.0, **more}
    return send(url, method, body, headers or {"Content-Type": "application/json"}, **given)


# What comes


def test_file_is_there_when_all_of_it_has_come(tmp_path: Path):
    content = bytes(range(256)) * 1000
    with receiving(answer("200 OK", content)) as server:
        assert fetched(f"{server.url}/models/a.tar.gz?x=1#part", tmp_path / "a") == len(content)
    assert (tmp_path / "a").read_bytes() == content
    [head] = server.heads
    assert head.startswith("GET /models/a.tar.gz?x=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}" in head
    assert "Accept-Encoding: identity" in head


def test_chunked_content_is_put_together(tmp_path: Path):
    def chunked(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;odd=1\r\n world\r\n0\r\n\r\n"
        )

    with receiving(chunked) as server:
        assert fetched(server.url, tmp_path / "a") == 11
    assert (tmp_path / "a").read_bytes() == b"hello world"


def test_content_without_length_ends_with_the_connection(tmp_path: Path):
    with receiving(lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as server:
        assert fetched(server.url, tmp_path / "a") == 9


def test_packed_content_stays_as_it_came(tmp_path: Path):
    with receiving(answer("200 OK", b"\x1f\x8bnot unpacked", "Content-Encoding: gzip")) as server:
        fetched(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"\x1f\x8bnot unpacked"


def test_answer_to_what_is_sent_comes_back_whatever_its_status():
    with receiving(
        answer("418 I'm a teapot", b'{"short":true}', "Content-Type: text/x-tea", "Set-Cookie: a=b")
    ) as server:
        found = sent(f"{server.url}/hook", b'{"a":1}', "PUT", {"Content-Type": "text/plain"})
    assert (found.status, found.body, found.content_type) == (418, b'{"short":true}', "text/x-tea")
    assert server.bodies == [b'{"a":1}']
    assert server.heads[0].startswith("PUT /hook HTTP/1.1\r\n")
    assert "Content-Type: text/plain\r\n" in server.heads[0] + "\r\n"


def test_credentials_of_the_url_are_sent_and_never_told(tmp_path: Path):
    with receiving(answer("404 Not Found")) as server, pytest.raises(FetchFailed, match="404") as failure:
        fetched(f"http://me:secret@127.0.0.1:{server.port}/", tmp_path / "a")
    assert "authorization: Basic bWU6c2VjcmV0" in server.heads[0]
    assert "secret" not in str(failure.value)


# Redirects


def test_redirects_are_followed_to_the_file_but_without_credentials(tmp_path: Path):
    with (
        receiving(answer("200 OK", b"moved here")) as last,
        receiving(answer("302 Found", b"", f"Location: {last.url}/b")) as middle,
        receiving(answer("301 Moved", b"", f"Location: {middle.url}/a")) as first,
    ):
        fetched(f"http://me:secret@127.0.0.1:{first.port}/", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"moved here"
    assert "authorization" in first.heads[0]
    assert "authorization" not in middle.heads[0] + last.heads[0]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/meta-data",
        "http://[::1]/",
        "//10.0.0.1/",
        "file:///etc/passwd",
        "http://[odd",
    ],
)
def test_redirect_to_a_forbidden_address_is_refused(target: str, tmp_path: Path):
    moved = answer("302 Found", b"", f"Location: {target}")
    with receiving(moved) as server, pytest.raises(FetchForbidden):
        fetched(server.url, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_redirects_in_a_circle_come_to_an_end(tmp_path: Path):
    with receiving(answer("302 Found", b"", "Location: /again")) as server:
        with pytest.raises(FetchFailed, match="once more after 5 redirects"):
            fetched(server.url, tmp_path / "a")
        assert len(server.heads) == 6


def test_what_is_sent_follows_no_redirect():
    with receiving(answer("307 Elsewhere", b"", "Location: http://127.0.0.1:1/")) as server:
        assert sent(server.url).status == 307
        assert len(server.heads) == 1


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "127.1",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "LOCALHOST.",
    ],
)
def test_this_machine_is_no_place_to_fetch_from_however_it_is_written(host: str, tmp_path: Path):
    with receiving(answer("200 OK", b"inner")) as server:
        with pytest.raises(FetchForbidden, match="MODELYARD_FETCH_ALLOW"):
            fetched(f"http://{host}:{server.port}/", tmp_path / "a", allow=())
        assert server.heads == [], "not even a connection was made"


def test_allowed_host_is_known_by_its_name_and_another_name_of_the_same_address_is_not(tmp_path: Path):
    with receiving(answer("200 OK", b"inner")) as server:
        assert fetched(f"http://LocalHost:{server.port}/", tmp_path / "a", allow=("localhost",)) == 5
        with pytest.raises(FetchForbidden):
            fetched(server.url, tmp_path / "b", allow=("localhost",))


def test_address_that_is_checked_is_the_one_that_is_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answers = itertools.chain(["127.0.0.2"], itertools.repeat("127.0.0.1"))
    ask = socket.getaddrinfo

    def lookup(host, port, *more, **options):
        return ask(next(answers) if host == "changing.test" else host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with receiving(answer("200 OK", b"inner")) as server:
        # The first answer of the name server is allowed and leads nowhere, the second one would lead to the server.
        with pytest.raises(FetchFailed, match="refuses the connection"):
            fetched(f"http://changing.test:{server.port}/", tmp_path / "a", allow=("127.0.0.2",))
        with pytest.raises(FetchForbidden):
            fetched(f"http://changing.test:{server.port}/", tmp_path / "a", allow=("127.0.0.2",))
        assert server.heads == []


def test_permitted_addresses_of_a_name_are_tried_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ask = socket.getaddrinfo

    def lookup(host, port, *more, **options):
        names = ["10.9.9.9", "127.0.0.2", "127.0.0.1"] if host == "several.test" else [host]
        return [found for name in names for found in ask(name, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with receiving(answer("200 OK", b"found")) as server:
        assert fetched(f"http://several.test:{server.port}/", tmp_path / "a") == 5
    assert f"Host: several.test:{server.port}" in server.heads[0]


def test_ipv6_is_spoken(tmp_path: Path):
    try:
        with receiving(answer("200 OK", b"six"), host="::1") as server:
            assert fetched(f"http://[::1]:{server.port}/", tmp_path / "a", allow=("::1",)) == 3
            with pytest.raises(FetchForbidden):
                fetched(f"http://[::1]:{server.port}/", tmp_path / "a")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_proxies_of_the_environment_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiving(answer("200 OK", b"direct")) as server:
        assert fetched(server.url, tmp_path / "a") == 6


# Limits


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Answering:
    def send_on(connection: socket.socket) -> None:
        connection.sendall(head)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(pause_s)

    return send_on


ENDLESS = {
    "announced": endless(OK + b"Content-Length: 99999999999999999999999\r\n\r\n", b"x" * 65536),
    "not announced": endless(OK + b"\r\n", b"x" * 65536),
    "chunked": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "huge chunk": endless(OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n", b"x" * 65536),
    "line between chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1" * 65536),
    "headers": endless(OK, b"A: " + b"x" * 60000 + b"\r\n"),
    "header": endless(OK + b"A: ", b"x" * 65536),
    "status line": endless(b"HTTP/1.1 200 ", b"x" * 65536),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_answers_are_cut_without_filling_memory_or_disk(kind: str, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with receiving(ENDLESS[kind]) as server:
        with pytest.raises(FetchFailed):
            fetched(server.url, tmp_path / "a", timeout_s=10.0)
        with pytest.raises(FetchFailed):
            sent(server.url, timeout_s=10.0)
    assert list(tmp_path.iterdir()) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"


SLOW = {
    "status line": endless(b"", b"H", 0.02),
    "headers": endless(OK, b"A: b\r\n", 0.05),
    "header": endless(OK + b"A: ", b"x", 0.02),
    "content": endless(OK + b"Content-Length: 1000000\r\n\r\n", b"x", 0.02),
    "content without length": endless(OK + b"\r\n", b"x", 0.02),
    "line between chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1", 0.02),
    "nothing": lambda connection: connection.recv(1),  # until the client goes
}


@pytest.mark.parametrize("kind", SLOW)
def test_slow_answers_are_cut_in_time(kind: str, tmp_path: Path):
    with receiving(SLOW[kind]) as server:
        began = time.monotonic()
        with pytest.raises(FetchFailed, match=r"did not answer in full within 0\.5 seconds"):
            fetched(server.url, tmp_path / "a", timeout_s=0.5)
        assert time.monotonic() - began < 10
    assert list(tmp_path.iterdir()) == []


def test_receiver_that_does_not_read_is_given_up_in_time():
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        began = time.monotonic()
        with pytest.raises(FetchFailed, match="did not answer in full"):
            sent(f"http://127.0.0.1:{listening.getsockname()[1]}/", b"x" * (64 << 20), timeout_s=0.5)
        assert time.monotonic() - began < 10


def test_host_that_takes_no_connection_is_given_up_in_time(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        place = listening.getsockname()
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:  # once nobody accepts them, the kernel drops what comes on top
            filler.setblocking(False)
            filler.connect_ex(place)
        began = time.monotonic()
        with pytest.raises(FetchFailed, match="did not answer in full"):
            fetched(f"http://127.0.0.1:{place[1]}/", tmp_path / "a", timeout_s=0.5)
        assert time.monotonic() - began < 10
        for filler in fillers:
            filler.close()


def test_content_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(tmp_path: Path):
    for make in (lambda body: answer("200 OK", body), lambda body: lambda c: c.sendall(OK + b"\r\n" + body)):
        with receiving(make(b"x" * 1000)) as server:
            assert fetched(server.url, tmp_path / "a", limit_bytes=1000) == 1000
            assert len(sent(server.url, limit_bytes=1000).body) == 1000
        with receiving(make(b"x" * 1001)) as server:
            with pytest.raises(FetchFailed, match="larger than 1000 bytes"):
                fetched(server.url, tmp_path / "b", limit_bytes=1000)
            with pytest.raises(FetchFailed, match="larger than 1000 bytes"):
                sent(server.url, limit_bytes=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# Failures


@pytest.mark.parametrize(
    ("answering", "text"),
    [
        (answer("500 Oh", b"x"), "status 500"),
        (answer("206 Partial", b"x"), "status 206"),
        (answer("204 Nothing"), "status 204"),
        (answer("302 Found"), "status 302"),
        (lambda connection: None, "broke off"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), "no HTTP"),
        (lambda connection: connection.sendall(OK + b"Content-Length: 100\r\n\r\ncut off"), "broke off"),
        (
            lambda connection: connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n"),
            "broke off",
        ),
    ],
)
def test_failed_fetch_says_why_and_leaves_nothing(answering: Answering, text: str, tmp_path: Path):
    (tmp_path / "a").write_text("before")
    with receiving(answering) as server, pytest.raises(FetchFailed, match=text):
        fetched(server.url, tmp_path / "a")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("status", ["101 Switching Protocols", "199 Odd", "600 Beyond", "999 Far beyond"])
def test_status_that_ends_no_request_is_a_failure(status: str):
    with receiving(answer(status, b"x")) as server, pytest.raises(FetchFailed):
        sent(server.url)


def test_packed_answer_to_what_was_sent_is_a_failure():
    packed = answer("200 OK", b"\x1f\x8b", "Content-Encoding: gzip")
    with receiving(packed) as server, pytest.raises(FetchFailed, match="packed"):
        sent(server.url)


def test_unreachable_and_unknown_hosts_are_told_apart(tmp_path: Path):
    with pytest.raises(FetchFailed, match="refuses the connection"):
        fetched("http://127.0.0.1:1/", tmp_path / "a")
    with pytest.raises(FetchFailed, match="cannot be resolved"):
        fetched("http://nowhere.invalid/", tmp_path / "a")
    with pytest.raises(FetchFailed, match="cannot be resolved"):
        fetched(f"http://{'a' * 70}.example/", tmp_path / "a")


def test_file_that_cannot_be_written_is_no_failure_of_the_other_host(tmp_path: Path):
    with receiving(answer("200 OK", b"x" * 100_000)) as server:
        with pytest.raises(StoreUnavailable):
            fetched(server.url, tmp_path / "missing" / "a")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises((StoreUnavailable, StorageFull)):
                fetched(server.url, tmp_path / "a")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


# TLS


def certificate(path: Path, name: str) -> ssl.SSLContext:
    """A certificate that signs itself for `name`, in a file for clients to trust, and the server's side of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(pem)
    with_key = path.with_suffix(".key")
    with_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(with_key)
    return context


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """The server's side of a certificate for `localhost` that this process trusts."""
    made = certificate(tmp_path / "trusted.pem", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    fetch._tls.cache_clear()
    yield made
    fetch._tls.cache_clear()


def test_tls_is_spoken_for_the_name_and_not_for_the_address(tls: ssl.SSLContext, tmp_path: Path):
    names: list[str | None] = []
    tls.sni_callback = lambda connection, name, context: names.append(name)
    with receiving(answer("200 OK", b"safe"), tls=tls) as server:
        assert fetched(f"https://localhost:{server.port}/", tmp_path / "a") == 4
        assert sent(f"https://localhost:{server.port}/", b"x" * 100_000).body == b"safe"
        with pytest.raises(FetchFailed, match="certificate that cannot be trusted"):
            fetched(f"https://127.0.0.1:{server.port}/", tmp_path / "b")
    assert names[0] == "localhost"
    assert f"Host: localhost:{server.port}" in server.heads[0]


def test_foreign_certificate_is_a_failure(tls: ssl.SSLContext, tmp_path: Path):
    other = certificate(tmp_path / "other.pem", "localhost")
    with receiving(answer("200 OK", b"not safe"), tls=other) as server:
        with pytest.raises(FetchFailed, match="certificate that cannot be trusted"):
            fetched(f"https://localhost:{server.port}/", tmp_path / "a")
        assert server.heads == [], "nothing was sent to a host that is not who it should be"


def test_what_is_no_tls_is_a_failure(tls: ssl.SSLContext, tmp_path: Path):
    with (
        receiving(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), listens=False) as server,
        pytest.raises(FetchFailed, match="does not speak TLS as it should"),
    ):
        fetched(f"https://localhost:{server.port}/", tmp_path / "a")


@pytest.mark.parametrize("kind", ["header", "content", "content without length", "nothing"])
def test_slow_answers_over_tls_are_cut_in_time(kind: str, tls: ssl.SSLContext, tmp_path: Path):
    with receiving(SLOW[kind], tls=tls) as server:
        began = time.monotonic()
        with pytest.raises(FetchFailed, match=r"did not answer in full within 0\.5 seconds"):
            fetched(f"https://localhost:{server.port}/", tmp_path / "a", timeout_s=0.5)
        assert time.monotonic() - began < 10


def test_handshake_that_never_ends_is_given_up_in_time(tls: ssl.SSLContext, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        began = time.monotonic()
        with pytest.raises(FetchFailed, match="did not answer in full"):
            fetched(f"https://localhost:{listening.getsockname()[1]}/", tmp_path / "a", timeout_s=0.5)
        assert time.monotonic() - began < 10


def test_networks_are_read_as_operators_write_them():
    permits = fetch._allowed(("10.1.2.3/8", "fd00::/8", "[::1]", "Files.Local.")).permits
    inside = {"10.200.0.1", "fd12::1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"}
    outside = {"11.0.0.1", "fe80::1", "127.0.0.1", "192.168.0.1"}
    assert {each for each in inside | outside if permits("other.host", each)} == inside | {"11.0.0.1"}
    assert permits("files.local", "192.168.0.1")
    assert ipaddress.ip_address("11.0.0.1").is_global
