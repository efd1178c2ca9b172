"""Who calls: keys, the account they stand for, and the account `local` of a machine without keys."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

from api.refusals import ForeignOrigin, KeyNeeded
from settings import Settings, is_loopback
from storage.errors import StorageError
from storage.records import LOCAL, Account, Caller, Records, Role

# One origin and nothing else: several headers come joined, and the first of them must not speak for the others.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/\\,@?#]+", re.IGNORECASE)
_FRESH_S = 1.0
_KEPT = 1024


class OpenDoor(Exception):
    """The API would listen beyond this machine although no key says who may come in."""


def check_bind(settings: Settings, records: Records) -> None:
    """Raises OpenDoor when the address to listen on is no loopback address and no key is in force."""
    if not settings.is_loopback and not records.keys.any_active():
        raise OpenDoor(
            f"MODELYARD_HOST={settings.host} can be reached by others, and without a key everybody would be let in. "
            "Create one with `modelyard keys create --account NAME`, or set MODELYARD_HOST=127.0.0.1"
        )


class Headers(Protocol):
    """Headers of a request; names are asked for in lower case."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """One of them."""


class Access:
    """Finds the account of a request. What the records say is believed for a second: no SQL on most requests."""

    def __init__(self, records: Records, *, is_loopback: bool) -> None:
        self._records = records
        self._is_loopback = is_loopback
        self._lock = threading.Lock()
        self._accounts: dict[str, tuple[float, Caller | None]] = {}
        self._keys_exist: tuple[float, bool] = (float("-inf"), False)
        self._owner: Account | None = None
        self._local: tuple[float, Caller] | None = None

    def account_of(self, headers: Headers) -> Caller:
        """The account that a request with such headers acts for, and what it may do.

        Raises KeyNeeded without a key in force where one is needed, ForeignOrigin when a browser brings a request of
        another site, or one meant for another host, to a machine without keys.
        """
        if not self._any_key():
            if not self._is_loopback:
                raise KeyNeeded("no key is in force; create one with `modelyard keys create --account NAME`")
            self._check_host(headers)
            self._check_origin(headers)
            return self._local_account()
        secret = _secret(headers)
        if secret is None:
            # Without a comma or a colon behind the header's name, so that nothing is taken for its value and left out.
            raise KeyNeeded("a key is needed: send it in X-API-KEY or as a Bearer token, or as the password of Basic")
        account = self._account(secret)
        if account is None:
            raise KeyNeeded("this key is unknown or was revoked")
        return account

    def needs_key(self) -> bool:
        """Whether requests need a key; assumed of a server that cannot read its records."""
        try:
            return not self._is_loopback or self._any_key()
        except StorageError:
            return True

    def kept(self, headers: Headers) -> Caller | None:
        """As `account_of`, of what is known and fresh; None when the records must be asked, or the caller refused."""
        asked_at, any_key = self._keys_exist
        if time.monotonic() - asked_at > _FRESH_S:
            return None
        if any_key:
            secret = _secret(headers)
            kept = None if secret is None else self._accounts.get(_name_of(secret))
            return kept[1] if kept is not None and time.monotonic() - kept[0] <= _FRESH_S else None
        if not self._is_loopback or headers.get("origin") is not None or not _is_local(headers.get("host", "")):
            return None
        local = self._local
        return local[1] if local is not None and time.monotonic() - local[0] <= _FRESH_S else None

    def _any_key(self) -> bool:
        asked_at, found = self._keys_exist
        if time.monotonic() - asked_at > _FRESH_S:
            found = self._records.keys.any_active()
            self._keys_exist = (time.monotonic(), found)
        return found

    def _local_account(self) -> Caller:
        """Whoever reaches a machine without keys. Managing keys is left to its command line."""
        local = self._local
        if local is None or time.monotonic() - local[0] > _FRESH_S:
            if self._owner is None:
                self._owner = self._records.accounts.ensure(LOCAL)
            owner = self._owner
            quotas = self._records.quotas.of(owner.id)
            self._local = local = time.monotonic(), Caller(owner.id, owner.name, Role.TRAIN, None, quotas)
        return local[1]

    def _account(self, secret: str) -> Caller | None:
        name = _name_of(secret)
        with self._lock:
            kept = self._accounts.get(name)
        if kept is not None and time.monotonic() - kept[0] <= _FRESH_S:
            return kept[1]
        account = self._records.keys.account_of(secret)
        with self._lock:
            if len(self._accounts) >= _KEPT:
                self._accounts.clear()
            self._accounts[name] = (time.monotonic(), account)
        return account

    @staticmethod
    def _check_host(headers: Headers) -> None:
        # A web page whose name is made to lead to this machine is of the same origin for its reader's browser.
        given = headers.get("host", "localhost")
        if not _is_local(given):
            raise ForeignOrigin(
                "this server has no keys and answers to localhost only, not to "
                f"{str(_hostname(f'http://{given}'))[:200]!r}; create a key with `modelyard keys create`"
            )

    @staticmethod
    def _check_origin(headers: Headers) -> None:
        # Without a key, any web page could otherwise have its reader's browser train and delete here.
        origin = headers.get("origin")
        if origin is None:
            return
        if not _ORIGIN.fullmatch(origin) or not is_loopback(_hostname(origin) or ""):
            raise ForeignOrigin(
                f"requests from pages of {origin[:200]!r} need a key; create one with `modelyard keys create`"
            )


@lru_cache(maxsize=64)
def _is_local(host: str) -> bool:
    """Whether the header Host names this machine."""
    return is_loopback(_hostname(f"http://{host}") or "")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _name_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _secret(headers: Headers) -> str | None:
    secret = headers.get("x-api-key")
    if secret:
        return _clean(secret.strip())
    scheme, _, given = headers.get("authorization", "").partition(" ")
    given = given.strip()
    if scheme.lower() == "bearer":
        return _clean(given)
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:  # no base64, no ASCII, or no UTF-8 behind it
            return None
        # Clients that can carry a single word in their address send it as the user.
        return _clean(password or user)
    return None


def _clean(secret: str) -> str | None:
    # Our keys are plain ASCII: anything else is none of them, and need not reach the records.
    return secret if secret and secret.isascii() and len(secret) <= 512 else None
