"""Smaller answers for clients that unpack them, as DeepDetect gives."""

from __future__ import annotations

import gzip
from functools import lru_cache

from flask import Request, Response
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

WORTH_BYTES = 4096
LEVEL = 1  # histories shrink tenfold already; higher levels cost more than they save on a local network


def compress(request: Request, response: Response) -> None:
    """Pack the answer with gzip when that is worth it and the client takes it."""
    if response.is_streamed or response.content_length is None or response.content_length < WORTH_BYTES:
        return
    response.headers["Vary"] = "Accept-Encoding"
    if not takes_gzip(request.headers.get("Accept-Encoding", "")):
        return
    response.set_data(gzip.compress(response.get_data(), LEVEL))
    response.headers["Content-Encoding"] = "gzip"


@lru_cache(maxsize=64)
def takes_gzip(accepted: str) -> bool:
    """Whether a client unpacks gzip, by its header Accept-Encoding."""
    return bool(parse_accept_header(accepted, Accept)["gzip"])
