"""Speaks HTTP with the API. What goes wrong is told as one line, and ends a command with exit code 1."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import click
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from cli.remote.tables import clean
from storage.landing import landing

Json = dict[str, Any]

_CONNECT_S = 5.0
_CHUNK_BYTES = 2**20
_SHOWN = 500
_IS_JSON = {"Content-Type": "application/json"}


class NoAnswer(click.ClickException):
    """The server was not reached, or did not answer in time."""


class Refused(click.ClickException):
    """The server answered with an error. code : HTTP status; body : its JSON, None when it is none."""

    def __init__(self, code: int, text: str, retry_after: str | None = None) -> None:
        self.code = code
        self.text = text
        told = _told(code, text)
        if code == 401:
            told += "; name a key in MODELYARD_KEY"
        if retry_after is not None and code in {429, 503}:
            told += f" (Retry-After: {clean(retry_after)})"
        super().__init__(told)

    @property
    def is_passing(self) -> bool:
        """Whether the same call may well succeed in a moment."""
        return self.code in {429, 502, 503, 504}

    @property
    def kind(self) -> str | None:
        """Our kind of the error, where it has one."""
        error = _object(self.text).get("error")
        return str(error.get("kind")) if isinstance(error, dict) else None


@dataclass(frozen=True)
class Answer:
    """A good answer: its status and its body as it came."""

    code: int
    text: str

    @property
    def json(self) -> Json:
        """The body as a JSON object. Raises NoAnswer when it is none: then no API stands behind the address."""
        try:
            value = json.loads(self.text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise NoAnswer("the answer is no JSON object; is --url the address of a Modelyard API?")
        return value


class Client:
    """One API and one key. Redirects are not followed, so that the key goes nowhere else."""

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        headers = {"User-Agent": "modelyard", "Accept-Encoding": "gzip"}
        if key:
            headers["X-API-KEY"] = key
        self._pool = urllib3.PoolManager(
            headers=headers,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s),
            retries=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.clear()

    def call(self, method: str, path: str, body: Json | None = None, query: Mapping[str, Any] | None = None) -> Answer:
        """Send a request and read the whole answer.

        query : members that are None are left out.
        Raises Refused for an error of the API, NoAnswer when there is no answer.
        """
        data, headers = (None, {}) if body is None else (json.dumps(body).encode(), _IS_JSON)
        return self._answer(method, path, data, query, headers)

    def send(
        self,
        method: str,
        path: str,
        content: bytes | BinaryIO,
        headers: Mapping[str, str],
        query: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send content that is no JSON; of a stream, `headers` must tell Content-Length. Else as `call`."""
        return self._answer(method, path, content, query, headers)

    def _answer(
        self,
        method: str,
        path: str,
        content: bytes | BinaryIO | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> Answer:
        response = self._send(method, path, content, query, headers)
        try:
            text = response.data.decode("utf-8", "replace")
        except (HTTPError, OSError) as error:
            raise NoAnswer(self._reason(error)) from None
        finally:
            response.release_conn()
        _check(response, text)
        return Answer(response.status, text)

    def save(self, path: str, target: Path, query: Mapping[str, Any] | None = None, sha256: str | None = None) -> int:
        """Write what is answered into the file `target`, which appears whole or not at all; return its bytes.

        sha256 : what the content must be. Raises NoAnswer when it is another, and else as `call`.
        """
        response = self._send("GET", path, None, query, {})
        try:
            if response.status >= 400:
                _check(response, response.data.decode("utf-8", "replace"))
            size, digest = 0, hashlib.sha256()
            with landing(target, durable=False) as file:
                for piece in response.stream(_CHUNK_BYTES):
                    size += file.write(piece)
                    digest.update(piece)
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise NoAnswer(f"what came of {path} is not what the server told before; try again")
            return size
        except (HTTPError, ConnectionError) as error:
            raise NoAnswer(self._reason(error)) from None
        except OSError as error:
            raise click.ClickException(f"{target} cannot be written: {error.strerror or error}") from None
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | BinaryIO | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> urllib3.BaseHTTPResponse:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        url = self.url + path + (f"?{urlencode(given)}" if given else "")
        headers = {**self._pool.headers, **headers}
        try:
            return self._pool.request(method, url, body=content, headers=headers, redirect=False, preload_content=False)
        except (HTTPError, OSError) as error:
            raise NoAnswer(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, NameResolutionError):
            return f"{self.url} does not answer: nobody knows its name; look at --url and MODELYARD_URL"
        if isinstance(error, NewConnectionError):
            cause = error.__cause__
            reason = (cause.strerror if isinstance(cause, OSError) else None) or str(error)
            return (
                f"{self.url} does not answer: {reason.lower()}; start the server (modelyard up), "
                "or name its address with --url or MODELYARD_URL"
            )
        if isinstance(error, ConnectTimeoutError):
            return f"{self.url} does not answer: no connection within {min(_CONNECT_S, self.timeout_s):g} s"
        if isinstance(error, ReadTimeoutError | TimeoutError):
            return f"{self.url} gave no answer within {self.timeout_s:g} s; give it more with --timeout"
        if isinstance(error, SSLError):
            return f"{self.url} cannot be trusted: {error}"
        if isinstance(error, ProtocolError):
            return f"{self.url} broke the connection off before its answer was there"
        return f"{self.url} does not answer: {error}"


def service_path(name: str) -> str:
    """The address of a service."""
    return f"/services/{quote(name, safe='')}"


def dataset_path(name: str) -> str:
    """The address of a data set. Raises UsageError for a name that would become another address."""
    if name in {"", ".", ".."} or "/" in name:
        raise click.UsageError(f"{name!r} cannot be the name of a data set: it is empty, has a slash, or is . or ..")
    return f"/datasets/{quote(name, safe='')}"


def usable_url(url: str) -> str:
    """`url` when it is the address of an API; else ValueError, which does not repeat what could be a password."""
    try:
        parts = urlsplit(url)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("is no address such as http://127.0.0.1:8080") from None
    if "@" in parts.netloc:
        raise ValueError("holds a user or password; put the key into MODELYARD_KEY")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_right:
        raise ValueError("is no address such as http://127.0.0.1:8080")
    if parts.query or parts.fragment:
        raise ValueError("ends with a query; give the address without it")
    return url


def _check(response: urllib3.BaseHTTPResponse, text: str) -> None:
    if response.status >= 300:
        raise Refused(response.status, text, response.headers.get("Retry-After"))


def _told(code: int, text: str) -> str:
    """One line of an error: status, DeepDetect's code or our kind, and the message."""
    body = _object(text)
    status = body.get("status")
    if isinstance(status, dict):
        number = f" ({status['dd_code']})" if "dd_code" in status else ""
        words = [str(status[name]) for name in ("dd_msg", "message") if status.get(name)]
        return clean(f"{code}{number} {': '.join(words or [str(status.get('msg', ''))])}")
    error = body.get("error")
    if isinstance(error, dict):
        return clean(f"{code} {error.get('kind')}: {error.get('message')}")
    return clean(f"{code} {' '.join(text.split())[:_SHOWN]}".strip())


def _object(text: str) -> Json:
    """The JSON object that a text is; an empty one when it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
