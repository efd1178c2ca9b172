"""Sending bytes to an address, as a client of an S3 store does that was given a link."""

from __future__ import annotations

import urllib.error
import urllib.request


def put(link: str, content: bytes) -> int:
    """The status of the answer."""
    # Without a type it would be called a form, and servers read forms on their own.
    asked = urllib.request.Request(link, content, {"Content-Type": "application/octet-stream"}, method="PUT")
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
