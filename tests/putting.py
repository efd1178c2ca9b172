"""Sending bytes to an address, as a client of an S3 store does that was given a link."""

from __future__ import annotations

import urllib.error
import urllib.request


def put(link: str, content: bytes) -> int:
    """The status of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(link, content, method="PUT"), timeout=20) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
