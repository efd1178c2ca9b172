"""Connections to other hosts for clients' sake: the one place that opens them.

Whoever names a URL in a request could make this machine speak to its own network. So an address is used only when it
is public, or when the operator has named its host or its network. What is checked is the address that is connected to,
not the name: the name is resolved once, here, and may lead elsewhere the next time. After a redirect all begins anew.
Proxies of the environment are not used, as they would resolve the name themselves.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import HTTPResponse
from urllib3.util import Url, connection, make_headers, parse_url

from storage.errors import FetchAbandoned, FetchFailed, FetchForbidden, NoSuchFile
from storage.landing import landing, local_errors

REDIRECTS_MAX = 5
URL_LIMIT = 8192

_CHUNK = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_ALLOW = "MODELYARD_FETCH_ALLOW"
_CONNECT_S = 20.0
_LOOK_S = 0.25
_AGAIN_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_MISSING = frozenset({404, 410})
# What a host may call a content, RFC 9110; anything else would be sent back to it with every later request.
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,512}"')

# Which bytes of how many a part holds, RFC 9110; no file has more than such numbers tell.
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Where a network that speaks IPv6 only shows the hosts of IPv4: RFC 6052, section 2.1."""


@dataclass(frozen=True)
class Answer:
    """What another host answered.

    status : 200 to 599.
    content_type : its Content-Type, as it came; empty when there was none.
    """

    status: int
    body: bytes
    content_type: str


@dataclass(frozen=True)
class Taken:
    """What another host made of what it was sent.

    status : 200 to 599. beginning : the first bytes of its answer; none of one that is packed.
    retry_after : its Retry-After, as it came; empty when there was none.
    """

    status: int
    beginning: bytes
    retry_after: str


@dataclass(frozen=True)
class Seen:
    """What was seen of a file that was not taken.

    size : its bytes; None where that is not told. beginning : its first bytes, as many as were asked for or all; None
    where it could not be had for nothing.
    """

    size: int | None = None
    beginning: bytes | None = None


@dataclass(frozen=True)
class Known:
    """What tells whether a file is still the one that was fetched before.

    place : the address that it came from in the end, without query and credentials. etag, modified : what its host
    said of it, as it came; one of them may be empty.
    """

    place: str
    etag: str
    modified: str


@dataclass(frozen=True)
class Fetched:
    """A file that has come.

    size : bytes, unpacked. sha256 : in hexadecimal. known : None where its host says nothing to know it by.
    """

    size: int
    sha256: str
    known: Known | None


def check_url(url: str) -> None:
    """Refuse what can be refused without asking anybody: no http(s), no host, unreadable. Raises FetchForbidden."""
    _parsed(url)


def check_target(url: str, *, allow: Sequence[str] = ()) -> str:
    """The host and port that `url` leads to. A host that is written as an address is judged; a name is not resolved.

    allow : hosts and networks that may be used although their addresses are not public.
    Raises what `check_url` raises, also when `url` holds a user or password, or an address that may not be used.
    """
    target = _parsed(url)
    if target.auth is not None:
        raise FetchForbidden("the URL holds a user or password, which it must not")
    host = _host(target).rstrip(".")  # as it is connected to
    address = _written(host)
    if address is not None and not _allowed(tuple(allow)).permits(host.lower(), str(address)):
        raise _forbidden(host)
    return f"{target.host}:{_port(target)}"


def shown(url: str) -> str:
    """An address as messages and logs may tell it: without credentials, which the query of a signed one is too."""
    try:
        parsed = parse_url(url)
    except LocationParseError:
        parsed = Url()
    if not parsed.host or not parsed.scheme or _hides_credentials(url):
        return f"{url.partition(':')[0][:20]}://…"
    port = "" if parsed.port is None else f":{parsed.port}"
    query = "" if parsed.query is None else "?…"
    return f"{parsed.scheme}://{parsed.host}{port}{parsed.path or ''}"[:200] + query


def _hides_credentials(url: str) -> bool:
    """Whether what is read as host and path may hold a password: a slash or backslash in it was not escaped."""
    before_query = re.split("[?#]", url.partition("://")[2], maxsplit=1)[0]
    authority = re.split(r"[/\\]", before_query, maxsplit=1)[0]
    told = authority.rpartition("@")[2] + before_query[len(authority) :]
    return "@" in told.partition(":")[2]


def fetch_file(
    url: str,
    path: Path,
    *,
    allow: Sequence[str] = (),
    limit_bytes: int,
    timeout_s: float,
    redirects: int = REDIRECTS_MAX,
) -> int:
    """Fetch what is at `url` into the file `path`, which is there when all of it has come, else not; returns its bytes.

    The content is kept as it comes: one that is announced as packed stays packed.
    allow : hosts and networks that may be used although their addresses are not public.
    limit_bytes : most bytes of the file. timeout_s : for all of it, redirects included; only the time in which the
        system's resolver gives up is its own.
    redirects : how many are followed.
    Raises FetchForbidden, FetchFailed (also for any status but 200), StorageFull, StoreUnavailable (`path` cannot be
    written).
    """
    with _file_of(url, allow, _Clock(timeout_s), redirects) as (exchange, _):
        _check_whole(exchange)
        size = 0
        with local_errors(f"{path.name} cannot be written"), landing(path, durable=False) as file:
            for chunk in exchange.content(limit_bytes):
                file.write(chunk)
                size += len(chunk)
        return size


def fetch_changed(
    url: str,
    path: Path,
    known: Known | None,
    *,
    allow: Sequence[str] = (),
    limit_bytes: int,
    timeout_s: float,
    is_wanted: Callable[[], bool] | None = None,
    redirects: int = REDIRECTS_MAX,
) -> Fetched | None:
    """As `fetch_file`, unless the file is still the one that `known` tells of: then None, and `path` is not touched.

    The content is unpacked when it is announced as packed with gzip, and refused when it is packed otherwise.
    limit_bytes : most bytes of the file, packed and unpacked.
    is_wanted : asked now and then whether to go on.
    Raises what `fetch_file` raises, and FetchAbandoned when it is not wanted any more.
    """
    with _file_of(url, allow, _Clock(timeout_s, is_wanted), redirects, known) as (exchange, place):
        if exchange.response.status == 304 and _conditions(place, known):
            return None
        _check_whole(exchange)
        size, digest = 0, hashlib.sha256()
        with local_errors(f"{path.name} cannot be written"), landing(path, durable=False) as file:
            for chunk in _unpacked(exchange, limit_bytes):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return Fetched(size, digest.hexdigest(), _known(exchange.response.headers, place))


def look(url: str, count: int, *, allow: Sequence[str] = (), timeout_s: float, redirects: int = REDIRECTS_MAX) -> Seen:
    """Ask for the file at `url` without taking it, and for its first `count` bytes where its host offers parts of it.

    Nothing is seen of what may be otherwise for who fetches it later: silence, trouble of the host or of the network, a
    status that says no for now, or to this machine.
    allow, redirects : as `fetch_file`. timeout_s : for all of it; only the time in which the system's resolver gives up
        is its own.
    Raises NoSuchFile when the host says so, FetchForbidden, and FetchFailed when no host has that name.
    """
    clock = _Clock(timeout_s)
    try:
        # The file itself is not asked for as long as the host says that it has one: some addresses work once only.
        with contextlib.suppress(NoSuchFile):
            size, offering = _announced("HEAD", url, allow, clock, redirects)
            if size != 0:
                return Seen(size) if offering is None else _beginning(offering, size, count, allow, clock)
        # There are hosts that know no HEAD, and say to it that there is nothing, or that it is empty.
        return Seen(_announced("GET", url, allow, clock, redirects)[0])
    except (FetchForbidden, NoSuchFile):
        raise
    except FetchFailed as error:
        if isinstance(error.__cause__, socket.gaierror) and not error.is_transient and not clock.is_over:
            raise
        return Seen()


def _announced(
    method: str, url: str, allow: Sequence[str], clock: _Clock, redirects: int
) -> tuple[int | None, str | None]:
    """The bytes that an answer to HEAD or GET tells of, and the address behind all redirects if it offers parts.

    Raises NoSuchFile, FetchFailed.
    """
    with _file_of(url, allow, clock, redirects, method=method) as (exchange, _):
        if exchange.response.status in _MISSING:
            _check_whole(exchange)
        if exchange.response.status != 200:
            return None, None
        headers = exchange.response.headers
        length = headers.get("Content-Length", "")
        offers_parts = headers.get("Accept-Ranges", "").strip().lower() == "bytes" and _is_plain(exchange)
        return int(length[:20]) if length.isdecimal() else None, exchange.url if offers_parts else None


def _beginning(url: str, size: int | None, count: int, allow: Sequence[str], clock: _Clock) -> Seen:
    """The first bytes of a file, if its host gives just these.

    url : behind the redirects, as what leads there may work once only. size : that was announced, if it was.
    """
    try:
        with _exchange("GET", url, None, {"Range": f"bytes=0-{count - 1}"}, allow, clock) as exchange:
            told = _RANGE.fullmatch(exchange.response.headers.get("Content-Range", "").strip())
            if exchange.response.status != 206 or told is None or not _is_plain(exchange):
                return Seen(size)
            first, last, total = map(int, told.groups())
            wanted = min(count, total)
            if (first, last) != (0, wanted - 1) or size not in (None, total):
                return Seen(size)
            found = exchange.beginning(wanted + 1)
    except FetchFailed:  # the host said that it has the file: whoever wants all of it may get it
        return Seen(size)
    return Seen(total, found) if len(found) == wanted else Seen(size)


def send(
    url: str,
    method: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow: Sequence[str] = (),
    limit_bytes: int,
    timeout_s: float,
) -> Answer:
    """Send `body` to `url` and return the answer, whatever its status; redirects are not followed.

    allow : hosts and networks that may be used although their addresses are not public.
    limit_bytes : most bytes of the answer. timeout_s : for all of it, the answer included; only the time in which the
        system's resolver gives up is its own.
    Raises FetchForbidden, FetchFailed.
    """
    with _exchange(method, url, body, headers, allow, _Clock(timeout_s)) as exchange:
        response = exchange.response
        _check_final(exchange)
        if not _is_plain(exchange):
            raise FetchFailed(f"{exchange.host} answered with packed content, for which it was not asked")
        content = b"".join(exchange.content(limit_bytes))
        return Answer(response.status, content, response.headers.get("Content-Type", ""))


def notify(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow: Sequence[str] = (),
    kept_bytes: int,
    timeout_s: float,
) -> Taken:
    """Post `body` to `url`, whose answer is of interest for its status, whatever that is; no redirect is followed.

    allow : hosts and networks that may be used although their addresses are not public.
    kept_bytes : most bytes of the answer; what follows is not read. timeout_s : for all of it, these included; only
        the time in which the system's resolver gives up is its own.
    Raises FetchForbidden, FetchFailed.
    """
    with _exchange("POST", url, body, headers, allow, _Clock(timeout_s)) as exchange:
        response = exchange.response
        _check_final(exchange)
        beginning = exchange.beginning(kept_bytes) if _is_plain(exchange) else b""
        return Taken(response.status, beginning, response.headers.get("Retry-After", ""))


def _check_final(exchange: _Exchange) -> None:
    status = exchange.response.status
    if not 200 <= status < 600:
        raise FetchFailed(f"{exchange.host} answered with status {status}, which ends no request")


def _is_plain(exchange: _Exchange) -> bool:
    return exchange.response.headers.get("Content-Encoding", "identity").strip().lower() == "identity"


# A file, and how it is known again


@contextlib.contextmanager
def _file_of(
    url: str,
    allow: Sequence[str],
    clock: _Clock,
    redirects: int,
    known: Known | None = None,
    method: str = "GET",
) -> Iterator[tuple[_Exchange, str]]:
    """The answer behind all redirects, with its place."""
    for _ in range(redirects + 1):
        place = _place(url)
        with _exchange(method, url, None, _conditions(place, known), allow, clock) as exchange:
            where = exchange.response.headers.get("Location")
            if exchange.response.status in _REDIRECTS and where is not None:
                url = _joined(url, where)
                continue
            yield exchange, place
            return
    raise FetchFailed(f"{exchange.host} redirects once more after {redirects} redirects; give the final address")


def _check_whole(exchange: _Exchange) -> None:
    status = exchange.response.status
    if status != 200:
        text = f"{exchange.host} answered with status {status}, not with the file"
        if status in _MISSING:
            raise NoSuchFile(text)
        raise FetchFailed(text, is_transient=status in _AGAIN_LATER)


def _place(url: str) -> str:
    target = _parsed(url)
    return f"{target.scheme}://{target.host}:{_port(target)}{target.path or '/'}"


def _conditions(place: str, known: Known | None) -> dict[str, str]:
    """Headers that ask for the file only if it is another one than is known."""
    # A host knows its own names only: two files of one age are no reason to take one for the other.
    if known is None or known.place != place:
        return {}
    return {"If-None-Match": known.etag} if known.etag else {"If-Modified-Since": known.modified}


def _known(headers: Mapping[str, str], place: str) -> Known | None:
    etag = headers.get("ETag", "").strip()
    if _ETAG.fullmatch(etag):
        return Known(place, etag, "")
    modified, date = (_date(headers.get(name, "")) for name in ("Last-Modified", "Date"))
    # The time has whole seconds: a file that changed just now may change again without getting another one.
    if modified is None or date is None or date - modified < 2.0:
        return None
    return Known(place, "", email.utils.formatdate(modified, usegmt=True))


def _date(header: str) -> float | None:
    """Seconds since 1970."""
    try:
        return email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _unpacked(exchange: _Exchange, limit_bytes: int) -> Iterator[bytes]:
    """The content in pieces, unpacked if need be; a few bytes can be packed so that they fill any disk."""
    coding = exchange.response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from exchange.content(limit_bytes)
        return
    if coding not in ("gzip", "x-gzip"):
        raise FetchFailed(f"{exchange.host} answered with content packed as {coding[:40]!r}; only gzip is unpacked")
    size, unpacking = 0, _gzip()
    try:
        for packed in exchange.content(limit_bytes):
            rest = packed
            while rest:
                if unpacking.eof:  # files that were packed one by one may follow each other
                    unpacking = _gzip()
                piece = unpacking.decompress(rest, _CHUNK)
                rest = unpacking.unconsumed_tail or unpacking.unused_data
                size = _grown(size, piece, exchange, limit_bytes)
                yield piece
        while not unpacking.eof and (piece := unpacking.decompress(b"", _CHUNK)):
            size = _grown(size, piece, exchange, limit_bytes)
            yield piece
    except zlib.error:
        raise FetchFailed(f"{exchange.host} announced content packed with gzip, and sent something else") from None
    if not unpacking.eof:
        raise FetchFailed(f"{exchange.host} sent packed content that ends too early")


def _gzip() -> zlib._Decompress:
    return zlib.decompressobj(wbits=31)


def _grown(size: int, piece: bytes, exchange: _Exchange, limit_bytes: int) -> int:
    exchange.clock.check(exchange.host)
    if size + len(piece) > limit_bytes:
        raise FetchFailed(f"the answer of {exchange.host} is larger than {limit_bytes} bytes when it is unpacked")
    return size + len(piece)


# One request and its answer


class _Clock:
    """How long all that belongs to one call may take, and whether anybody still waits for it."""

    def __init__(self, timeout_s: float, is_wanted: Callable[[], bool] | None = None) -> None:
        self.timeout_s = timeout_s
        self.is_wanted = is_wanted
        self._deadline = time.monotonic() + timeout_s

    def check(self, host: str) -> None:
        """Raises FetchFailed when the time is over, FetchAbandoned when nobody waits."""
        if self.is_wanted is not None and not self.is_wanted():
            raise FetchAbandoned(f"what {host} sends is not wanted any more")
        if self.is_over:
            raise FetchFailed(f"{host} did not answer in full within {self.timeout_s:g} seconds")

    @property
    def left_s(self) -> float:
        """Never below a millisecond: zero would mean something else to a socket."""
        return max(0.001, self._deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline


@dataclass(frozen=True)
class _Exchange:
    """An answer whose head has come. url : that was asked. host : as it stands in messages."""

    response: HTTPResponse
    url: str
    host: str
    clock: _Clock

    def content(self, limit_bytes: int) -> Iterator[bytes]:
        """The body in pieces, unpacked by nobody. Raises FetchFailed."""
        too_large = f"the answer of {self.host} is larger than {limit_bytes} bytes"
        length = self.response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length[:20]) > limit_bytes:
            raise FetchFailed(too_large)
        size = 0
        while True:
            with _told(self.host, self.clock):
                # Not stream(): it reads the lines between chunks whole, however long they are.
                chunk = self.response.read(_CHUNK, decode_content=False)
            if not chunk:
                return
            size += len(chunk)
            if size > limit_bytes:
                raise FetchFailed(too_large)
            yield chunk

    def beginning(self, size: int) -> bytes:
        """At most `size` bytes of the body, unpacked by nobody. Raises FetchFailed."""
        found = b""
        while len(found) < size:
            with _told(self.host, self.clock):
                chunk = self.response.read(size - len(found), decode_content=False)
            if not chunk:
                break
            found += chunk
        return found


@contextlib.contextmanager
def _exchange(
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    allow: Sequence[str],
    clock: _Clock,
) -> Iterator[_Exchange]:
    target = _parsed(url)
    host = f"{target.host}:{_port(target)}"  # a whole URL may hold credentials
    opened = _opened(target, _Guard(_allowed(tuple(allow)), clock))
    # Credentials of the URL go to its own host only: a redirect brings its own, or none.
    own = {**make_headers(user_agent="modelyard", basic_auth=target.auth), "connection": "close"}
    try:
        with _told(host, clock):
            opened.connect()
        with _cut(opened.sock, clock), contextlib.ExitStack() as held:
            with _told(host, clock):
                opened.request(method, target.request_uri, body, {**own, **headers}, preload_content=False)
                # Closed also when the time is over although it has come: headers look whole when they are cut.
                response = held.enter_context(contextlib.closing(opened.getresponse()))
            yield _Exchange(response, url, host, clock)
    finally:
        opened.close()


@contextlib.contextmanager
def _told(host: str, clock: _Clock) -> Iterator[None]:
    """Turn what goes wrong on the way to `host`, and time that is over, into FetchFailed."""
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError, UnicodeError) as error:
        clock.check(host)
        raise FetchFailed(f"{host} {_reason(error)}", is_transient=_may_pass(error)) from error
    clock.check(host)  # an answer without announced length looks whole when it is cut


def _may_pass(error: Exception) -> bool:
    """Whether the same may go well a moment later."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    return not isinstance(error, ssl.SSLError | UnicodeError | http.client.InvalidURL)


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return "cannot be resolved: there is no such name, or the name server does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that cannot be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS as it should: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "takes no connection, or falls silent while it is made"
    if isinstance(error, ConnectionRefusedError):
        return "refuses the connection"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be reached: {error.strerror or type(error).__name__}"
    return "broke off, or answered what is no HTTP"


@contextlib.contextmanager
def _cut(held: socket.socket, clock: _Clock) -> Iterator[None]:
    """End a connection when the time is over, since a timeout of the socket begins anew with every byte that comes; or
    when nobody waits any more.
    """
    done = threading.Event()

    def watch() -> None:
        is_wanted = clock.is_wanted
        while not done.wait(clock.left_s if is_wanted is None else min(clock.left_s, _LOOK_S)):
            if clock.is_over or not (is_wanted is None or is_wanted()):
                with contextlib.suppress(OSError):
                    # Past TLS, whose own shutdown must not run beside a read of another thread.
                    socket.socket.shutdown(held, socket.SHUT_RDWR)
                return

    watching = threading.Thread(target=watch, name="fetch", daemon=True)
    watching.start()
    try:
        held.settimeout(clock.left_s)
        yield
    finally:
        done.set()


# Addresses


@dataclass(frozen=True)
class _Allowed:
    """Hosts and networks that the operator has named."""

    hosts: frozenset[str]
    networks: tuple[_Network, ...]

    def permits(self, host: str, address: str) -> bool:
        if host in self.hosts:
            return True
        forms = _forms(ipaddress.ip_address(address))
        return all(map(_is_public, forms)) or any(form in network for form in forms for network in self.networks)


@cache
def _allowed(entries: tuple[str, ...]) -> _Allowed:
    hosts, networks = [], []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            hosts.append(entry.lower().rstrip("."))
    return _Allowed(frozenset(hosts), tuple(networks))


def _forms(address: _Address) -> list[_Address]:
    """An address, and the IPv4 address that packets to it end at when it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:  # for the system this is the IPv4 address, written otherwise
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address] if address.sixtofour is None else [address, address.sixtofour]


def _written(host: str) -> _Address | None:
    """The address that a host is written as, in any form that the system reads as one; None for a name."""
    try:
        return ipaddress.IPv6Address(host) if ":" in host else ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _forbidden(host: str) -> FetchForbidden:
    # Without the address: it could tell a client how names of the inner network resolve.
    return FetchForbidden(f"{host} has no public address; it can be used when {_ALLOW} names it or its network")


def _is_public(address: _Address) -> bool:
    return address.is_global and not (
        address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False)
    )


@dataclass(frozen=True)
class _Guard:
    """Connects to permitted addresses only."""

    allowed: _Allowed
    clock: _Clock

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first permitted address of `host` that takes it. Raises FetchForbidden, OSError."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        permitted = [each for each in addresses if self.allowed.permits(host.lower(), each)]
        if not permitted:
            raise _forbidden(host)
        problem: OSError = TimeoutError()
        for tried, address in enumerate(permitted):
            if self.clock.is_over:
                break
            # One that is silent leaves time for the next.
            share_s = min(_CONNECT_S, self.clock.left_s / (len(permitted) - tried))
            try:
                opened = connection.create_connection(
                    (address, port), share_s, socket_options=HTTPConnection.default_socket_options
                )
            except OSError as error:
                problem = error
                continue
            opened.settimeout(min(_CONNECT_S, self.clock.left_s))  # TLS has yet to be agreed on
            return opened
        raise problem


class _Http(HTTPConnection):
    guard: _Guard

    def _new_conn(self) -> socket.socket:
        return self.guard.connect(self.host, self.port)


class _Https(HTTPSConnection):
    guard: _Guard

    def _new_conn(self) -> socket.socket:
        return self.guard.connect(self.host, self.port)


def _opened(target: Url, guard: _Guard) -> _Http | _Https:
    """A connection that is yet to be made."""
    host, port, timeout_s = _host(target), _port(target), guard.clock.left_s
    made: _Http | _Https
    if target.scheme == "https":
        made = _Https(host, port, timeout=timeout_s, ssl_context=_tls())
    else:
        made = _Http(host, port, timeout=timeout_s)
    made.guard = guard
    return made


@cache
def _tls() -> ssl.SSLContext:
    """Certificates and names are checked, against the authorities that the machine trusts."""
    return ssl.create_default_context()


def _parsed(url: str) -> Url:
    if len(url) > URL_LIMIT:
        raise FetchForbidden(f"the URL is longer than {URL_LIMIT} characters")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        parsed = Url()
    if parsed.scheme not in _PORTS or not parsed.host:
        raise FetchForbidden(f"{shown(url)!r} is no URL to use; it must begin with http:// or https:// and a host")
    return parsed


def _joined(url: str, where: str) -> str:
    """Where a redirect leads."""
    try:
        return urljoin(url, where)
    except ValueError:
        raise FetchForbidden(f"{shown(where)!r}, where a redirect leads, cannot be read as a URL") from None


def _host(target: Url) -> str:
    """As the system reads it."""
    return (target.host or "").strip("[]")


def _port(target: Url) -> int:
    return target.port or _PORTS[target.scheme or "http"]
