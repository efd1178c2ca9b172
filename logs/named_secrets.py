"""Finds what stands behind the name of a secret in a text: `password=…`, `"api_key": "…"`, `token: …`.

Whoever prints a secret prints it as YAML, as Python or as JSON, which may hold JSON in turn, so that each quote has
backslashes before it. How sure a name is decides how much is taken for its value: `token: 3 of 5` is no secret.

Clients choose much of what is looked through: no quantifier runs over all of a long text from each of its places.
"""

from __future__ import annotations

import re

_SURE = (
    r"[\w-]{0,60}(?:password|passwd|passphrase|secret|security-token|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"[\w-]{0,60}|pwd|(?:[\w-]{0,60}[_-])?(?:access|auth|id|refresh|session)[_-]?token"
    r"|modelyard_(?:key|flower_login)|flower_basic_auth"
)
_UNSURE = r"[\w-]{0,60}(?:signature|credential)[\w-]{0,60}|sig|token"
NAMES = f"{_SURE}|{_UNSURE}"
"""Names of secrets, as a pattern."""

_SURE_NAME = re.compile(_SURE, re.IGNORECASE)
# NoSecretError and the like are no names of values.
_SURE_END = re.compile(r"(?:password|passwd|passphrase|secret|key|token|pwd|login|auth)$", re.IGNORECASE)
_NAMED = re.compile(rf"(?<![\w-])({NAMES})(\\{{0,15}}['\"]\]?)?([ \t]{{0,9}}[:=][ \t]{{0,9}})", re.IGNORECASE)
_OPENING = re.compile(r"[bru]{0,2}(\\{0,15})(['\"])", re.IGNORECASE)
_CLOSING = {quote: re.compile(rf"(?<!\\)(\\*+){quote}|\n") for quote in "'\""}
_LIST = re.compile(r"\[[^\]\n]*+")
# A quote within goes on with it, unless only brackets follow: then it closes what stands around.
_WORD = re.compile(r"[^\s'\"&;,<>]++(?:['\"]++[)\]}]*+[^\s'\"&;,<>)\]}][^\s'\"&;,<>]*+)*+")
_NUMBER = re.compile(r"[+-]?\d[\d.e+-]{0,300}+(?=[\s,)\]}]|$)", re.IGNORECASE)
_SMALL = re.compile(r"[+-]?\d{0,5}(?:\.\d{0,300})?(?:e[+-]?\d{1,3})?%?", re.IGNORECASE)
_ODD_WORD = re.compile(r"[\w+/=.~-]{6,4000}+")
_NOTHING = frozenset({"none", "null", "true", "false"})


def without_named_secrets(text: str, gone: str) -> str:
    """The text with `gone` in the place of each value that a name says to be secret."""
    parts, done, place = [], 0, 0
    while found := _NAMED.search(text, place):
        place = found.end()
        span = _secret(found)
        if span is not None:
            parts += [text[done : span[0]], gone]
            done = place = span[1]
    return "".join([*parts, text[done:]]) if parts else text


def _secret(found: re.Match[str]) -> tuple[int, int] | None:
    """Where the value begins and ends that a name announces; None when it is no secret."""
    name, quote, by = found.groups()
    is_sure = _SURE_NAME.fullmatch(name) is not None
    is_prose = quote is None and "=" not in by
    if is_prose and is_sure and _SURE_END.search(name) is None:
        return None
    span = quoted_at(found.string, found.end()) or (_list_at(found.string, found.end()) if is_sure else None)
    if span is not None:
        told = found.string[slice(*span)]
        is_secret = not is_prose or is_sure or _is_odd(told)
    elif is_prose and not is_sure:
        span, told = _taken(_ODD_WORD, found)
        is_secret = _is_odd(told)
    else:
        # Words without quotes follow a name in quotes in prose only.
        span, told = _taken(_WORD if quote is None or "=" in by else _NUMBER, found)
        is_secret = is_sure or _SMALL.fullmatch(told) is None
    return span if is_secret and told and told.lower() not in _NOTHING else None


def _taken(pattern: re.Pattern[str], found: re.Match[str]) -> tuple[tuple[int, int], str]:
    """Where a value without quotes lies, and the value, which may be empty."""
    value = pattern.match(found.string, found.end())
    told = value[0].rstrip(")]}") if value else ""
    return (found.end(), found.end() + len(told)), told


def _is_odd(told: str) -> bool:
    """Whether it looks as if a machine had made it: no word, and no number."""
    return len(told) >= 6 and any(map(str.isdigit, told)) and any(map(str.isalpha, told)) and not _SMALL.fullmatch(told)


def _list_at(text: str, place: int) -> tuple[int, int] | None:
    value = _LIST.match(text, place)
    return None if value is None else (place + 1, value.end())


def quoted_at(text: str, place: int) -> tuple[int, int] | None:
    """Where the content of the text in quotes that begins at `place` begins and ends; None when none begins there.

    One that is not closed was cut, and ends with its line.
    """
    opening = _OPENING.match(text, place)
    if opening is None:
        return None
    slashes, begin = len(opening[1]), opening.end()
    place = begin
    while found := _CLOSING[opening[2]].search(text, place):
        # Each time that JSON is put into JSON, backslashes double and each quote gets one more.
        if found[1] is None or len(found[1]) < slashes:
            return begin, found.start()
        if len(found[1]) % (2 * (slashes + 1)) == slashes:
            return begin, found.end() - slashes - 1
        place = found.end()
    return begin, len(text)
