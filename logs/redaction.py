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

from logs.named_secrets import NAMES, quoted_at, without_named_secrets

GONE = "***"
"""What stands in the place of a secret."""

# A shorter one is also a word, or part of many.
_SHORTEST = 6
_DEEPEST = 8

_known: set[str] = set()

# Names of variables whose values are secret, and of those with addresses that may hold a password.
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|_LOGIN$|_AUTH$|_HEADERS$|(?:^|_)(?:API_)?KEY$")
_ADDRESS_NAME = re.compile(r"(?:_|^)(?:URL|URI|ENDPOINT|DSN)$|_PROXY$", re.IGNORECASE)

_SECRET_MEMBER = re.compile(rf"{NAMES}|(?:proxy-)?authorization|x-api-key|(?:set-)?cookie", re.IGNORECASE)
# Clients choose much of what is looked through: no quantifier may run over all of a long text from each of its places.
_HEADER = re.compile(
    r"\b(?:(?:proxy-)?authorization|x-api-key|(?:set-)?(cookie))"
    r"(?:\\{0,15}['\"][ \t]{0,9}[:=,]|[ \t]{0,9}[:=])[ \t]{0,9}"
    r"(?!(?:basic|bearer)[,.;])",  # prose
    re.IGNORECASE,
)
_HEADER_VALUE = re.compile(r"(?:(?:basic|bearer|digest|token|aws4-hmac-sha256)[ \t]{1,9})?[^\s'\",]++", re.IGNORECASE)
_COOKIES = re.compile(r"[^\s'\",]++(?:[ \t]++[^\s'\",;=]++=[^\s'\",]++)*+")
_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), by)
    for pattern, by in (
        # User and password of an address; a password may hold an @ that somebody forgot to escape.
        (r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,30}://)[^\s/?#'\"<>]*@", rf"\1{GONE}@"),
        # A scheme with what follows it, where the name of the header is missing; a word of prose has no digit.
        (r"\b(basic|bearer)\s+(?=[\w+/=.~-]*[0-9=+/])[\w+/=.~-]{8,}", rf"\1 {GONE}"),
        (r"(?<=[?&])(key)=[^\s'\"&;,<>]+", rf"\1={GONE}"),
        # Secrets of webhooks.
        (r"\bwhsec_[\w+/=-]+", f"whsec_{GONE}"),
    )
]


_WORD = re.compile(r"[^\s'\"<>]+")
# What a user comes before: of a host comes a port instead.
_LOGIN = re.compile(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://(?=:|[^/?#@:\[]+:(?!\d{1,5}(?:[/?#,]|$)))", re.IGNORECASE
)
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
    if "://" in text:
        text = _WORD.sub(_plain_address, text)
    text = _without_headers(text)
    for pattern, by in _PATTERNS:
        text = pattern.sub(by, text)
    return without_named_secrets(text, GONE)


def _plain_address(found: re.Match[str]) -> str:
    """A word, but for the credentials of the addresses in it."""
    word = found[0]
    return _without_query(_without_logins(word)) if "://" in word else word


def _without_logins(word: str) -> str:
    """A word without users and passwords that begin addresses in it; what should be escaped in them may not be."""
    parts, done = [], 0
    while found := _LOGIN.search(word, done):
        next_one = word.find("://", found.end())
        at = word.rfind("@", found.end(), next_one if next_one >= 0 else len(word))
        if at < 0:
            at = word.rfind("@", found.end())
        if at < 0:
            break
        parts += [word[done : found.end()], GONE]
        done = at
    return "".join([*parts, word[done:]])


def _without_headers(text: str) -> str:
    """Without the values of headers, as themselves and in what Python or JSON prints of them."""
    parts, done, place = [], 0, 0
    while found := _HEADER.search(text, place):
        place = found.end()
        span = quoted_at(text, place)
        if span is None and (value := (_COOKIES if found[1] else _HEADER_VALUE).match(text, place)):
            span = value.span()
        if span is not None and span[0] < span[1]:
            parts += [text[done : span[0]], GONE]
            done = place = span[1]
    return "".join([*parts, text[done:]])


def _without_query(word: str) -> str:
    """A word, but for the query of the address that it is: what signs an address, or opens it, has any name."""
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
