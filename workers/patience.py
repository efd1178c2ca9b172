"""Waiting for an object store that is away for a while, without outliving the reason to wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from storage.errors import StoreUnavailable

PATIENCE_S = 120.0
"""How long an attempt waits before it hands its task back."""

_Found = TypeVar("_Found")


def patiently(do: Callable[[], _Found], is_pointless: Callable[[], bool]) -> _Found:
    """What `do` returns, tried again and again while the store does not answer.

    is_pointless : whether to give up early: the task was cancelled or taken over, or the worker shuts down.
    Raises StoreUnavailable.
    """

    def stop(state: RetryCallState) -> bool:
        return is_pointless() or stop_after_delay(PATIENCE_S)(state)

    return Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop,
        wait=wait_exponential(multiplier=0.2, max=2),
        reraise=True,
    )(do)
