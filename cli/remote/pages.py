"""Lists that come page by page: one page as it was asked for, or all that there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from cli.remote.tables import clean
from cli.remote.target import Target

Json = dict[str, Any]

_PAGE = 1000

limit_option = click.option("--limit", type=click.IntRange(1, _PAGE), help="How many at most.  [default: 20]")
cursor_option = click.option("--cursor", help="Where to go on, as an earlier list told.")
all_option = click.option("--all", "wants_all", is_flag=True, help="List all that there are, page after page.")
since_option = click.option("--since", metavar="TIME", help="Only those created at this time, in ISO 8601, or later.")
until_option = click.option("--until", metavar="TIME", help="Only those created before this time.")


def plain(answer: Json) -> Json:
    """The page in an answer of our own routes."""
    return answer


def enveloped(answer: Json) -> Json:
    """The page in an answer of DeepDetect's routes."""
    body = answer.get("body")
    return body if isinstance(body, dict) else {}


def tell_more(page: Json, other: str = "") -> None:
    """Say how to go on where a page is not the last; `other` : a way besides."""
    if page.get("next_cursor"):
        click.echo(f"there are more: {other}--cursor {clean(page['next_cursor'])}", err=True)


def listed(
    target: Target,
    path: str,
    member: str,
    query: Json,
    *,
    limit: int | None,
    cursor: str | None,
    wants_all: bool,
    page_of: Callable[[Json], Json] = plain,
) -> list[Json] | None:
    """What a list holds, of one page or of all; None when it was printed as JSON.

    member : what the list is called in a page. page_of : the page in an answer.
    """
    if not wants_all:
        answer = target.client.call("GET", path, query={**query, "limit": limit or 20, "cursor": cursor})
        if target.as_json:
            target.print_json(answer)
            return None
        page = page_of(answer.json)
        tell_more(page, "--all, or ")
        return page.get(member) or []
    if limit is not None:
        raise click.UsageError("--all and --limit exclude each other")
    found: list[Json] = []
    while True:
        page = page_of(target.client.call("GET", path, query={**query, "limit": _PAGE, "cursor": cursor}).json)
        found += page.get(member) or []
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    if target.as_json:
        click.echo(json.dumps({member: found, "next_cursor": None}, ensure_ascii=False))
        return None
    return found
