"""The answer to a prediction as another host gets it: `output.network`."""

from __future__ import annotations

import logging

from flask import Response

from api.answers import written
from api.refusals import PushFailed, PushTargetMissing
from ml.errors import BadParameter
from ml.options.output import NetworkOptions
from settings import Settings
from storage import fetch
from storage.errors import FetchFailed, FetchForbidden

ANSWER_LIMIT_BYTES = 64 * 2**20

_NAME = "parameters.output.network.url"
_log = logging.getLogger(__name__)


def check(network: NetworkOptions) -> None:
    """Refuse, before anything is computed, what cannot be sent to. Raises PushTargetMissing, BadParameter."""
    if not network.url:
        raise PushTargetMissing(f"{_NAME} is missing; give the address that the answer is sent to")
    try:
        fetch.check_url(network.url)
    except FetchForbidden as error:
        raise BadParameter(name=_NAME, section="output", message=f"{_NAME}: {error}") from None


def push(network: NetworkOptions, content: bytes, settings: Settings) -> Response:
    """Send an answer; what the other host says to it, body and status, is the answer to the client.

    No header of the other host is handed on: it could set cookies, redirect, or have a browser run what it sent.
    Raises PushFailed.
    """
    try:
        answer = fetch.send(
            network.url,
            network.http_method,
            content,
            network.headers,
            allow=settings.fetch_allow,
            limit_bytes=ANSWER_LIMIT_BYTES,
            timeout_s=settings.push_timeout_s,
        )
    except FetchFailed as error:
        _log.info("an answer could not be sent: %s", error)
        raise PushFailed(f"the answer could not be sent: {error}") from None
    return written(answer.body, answer.status)
