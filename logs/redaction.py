"""The one place that takes credentials out of text, before it is logged, kept with a task, or told.

Two ways, since neither is enough alone: values that this process knows to be secret are removed wherever they stand,
and all that looks like a credential is removed whoever it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

GONE = "***"
"""What stands in the place of a secret."""

# A shorter one is also a word, or part of many.
_SHORTEST = 6
_DEEPEST = 8

_known: set[str] = set()

# Names of variables whose values are secret, and of those with addresses that may hold a password.
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|_LOGIN$|_AUTH$|_HEADERS$|(?:^|_)(?:API_)?KEY$")
_ADDRESS_NAME = re.compile(r"(?:_|^)(?:URL|URI|ENDPOINT|DSN)$|_PROXY$", re.IGNORECASE)

# Clients choose much of what is looked through: no quantifier may run over all of a long text from each of its places.
_NAMES = (
    r"[\w-]{0,60}(?:password|passwd|secret|signature|credential|security-token|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"[\w-]{0,60}|pwd|sig|token|(?:access|auth|id|refresh|session)_?token|modelyard_(?:key|flower_login)|flower_basic_auth"
)
_SECRET_MEMBER = re.compile(rf"{_NAMES}|(?:proxy-)?authorization|x-api-key|(?:set-)?cookie", re.IGNORECASE)
_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), by)
    for pattern, by in (
        # User and password of an address; a password may hold an @ that somebody forgot to escape.
        (r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,30}://)[^\s/?#'\"<>]*@", rf"\1{GONE}@"),
        # Headers, as themselves and in what Python or JSON prints of them.
        (
            r"\b((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)(['\"]?\s*[:=,]\s*(?:b?['\"])?)"
            r"(?:(?:basic|bearer|digest|token|aws4-hmac-sha256)\s+)?[^\s'\",]+",
            rf"\1\2{GONE}",
        ),
        # A scheme with what follows it, where the name of the header is missing; a word of prose has no digit.
        (r"\b(basic|bearer)\s+(?=\S*[0-9=+/])[\w+/=.~-]{8,}", rf"\1 {GONE}"),
        # name=value, in a query, a form or a connection string.
        (rf"(?<![\w-])({_NAMES})(\s*=\s*)(['\"]?)[^\s'\"&;,<>]+", rf"\1\2\3{GONE}"),
        (r"(?<=[?&])(key)=[^\s'\"&;,<>]+", rf"\1={GONE}"),
        # "name": "value", in JSON and in what Python prints.
        (rf"(['\"])({_NAMES})\1(\s*:\s*)(['\"])(?:(?!\4).)+\4", rf"\1\2\1\3\4{GONE}\4"),
        # Secrets of webhooks.
        (r"\bwhsec_[\w+/=-]+", f"whsec_{GONE}"),
    )
]


_WORD = re.compile(r"[^\s'\"<>]+")
_LEFT_OUT = "…"  # as messages of ours tell an address
_QUERIED = ("http", "https", "s3")


def learn(secrets: Iterable[str]) -> None:
    """Remove these values from now on, as they are and as an address spells them. Short ones are left to patterns."""
    for secret in secrets:
        for form in (secret, quote(secret, safe=""), unquote(secret)):
            if len(form) >= _SHORTEST:
                _known.add(form)
    _pattern_of_known.cache_clear()


def learn_environment(environment: Mapping[str, str]) -> None:
    """Learn the secrets among the variables of this process: ours, those of S3, of proxies and of OpenTelemetry."""
    found = []
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            # `user:password`, and `header=value,header=value`.
            found += [value, *value.partition(":")[2:], *(part.partition("=")[2] for part in value.split(","))]
        if _ADDRESS_NAME.search(name):
            found += _password_in(value)
    learn(found)


def _password_in(address: str) -> list[str]:
    try:
        password = urlsplit(address).password
    except ValueError:
        return []
    return [password] if password else []


@lru_cache(maxsize=1)
def _pattern_of_known() -> re.Pattern[str] | None:
    # The longest first: one may begin with another.
    words = sorted(_known, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words))) if words else None


def redacted(text: str) -> str:
    """A text without credentials; all else stays as it is."""
    known = _pattern_of_known()
    if known is not None:
        text = known.sub(GONE, text)
    if "://" in text and "?" in text:
        text = _WORD.sub(_without_query, text)
    for pattern, by in _PATTERNS:
        text = pattern.sub(by, text)
    return text


def _without_query(found: re.Match[str]) -> str:
    """A word, but for the query of the address that it is: what signs an address, or opens it, has any name."""
    word = found[0]
    scheme, _, rest = word.partition("://")
    address, _, query = rest.partition("?")
    if query in ("", _LEFT_OUT) or not scheme.lower().endswith(_QUERIED):
        return word
    return f"{scheme}://{address}?{GONE}"


def redacted_value(value: Any, depth: int = 0) -> Any:
    """A value with every text in it redacted, as JSON can hold it; what lies deeper than any of ours is replaced."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth > _DEEPEST:
        return GONE
    if isinstance(value, Mapping):
        return {
            str(name): GONE if _SECRET_MEMBER.fullmatch(str(name)) else redacted_value(each, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_value(each, depth + 1) for each in value]
    return redacted(value if isinstance(value, str) else repr(value))
