"""What trainings and predictions share that are done in a process of their own: a folder, data, and a watch over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from storage.records import Attempt
from workers.child import Child
from workers.data import entries, sources
from workers.datasets import fetched
from workers.fetching import fetching
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts
from workers.patience import patiently
from workers.scratch import Scratch
from workers.supervisor import Checkpoints, Outcome, Telling, supervise

Json = dict[str, Any]
_Found = TypeVar("_Found")


class ChildWork:
    """Base of the work of one worker process. is_stopping : whether that shuts down."""

    def __init__(self, parts: Parts, scratch: Scratch, is_stopping: Callable[[], bool]) -> None:
        self._parts = parts
        self._scratch = scratch
        self._is_stopping = is_stopping

    def _in_folder(
        self,
        attempt: Attempt,
        lease: LeaseKeeper,
        work: Callable[[Attempt, LeaseKeeper, Path, ExitStack], Work],
    ) -> Work:
        """Work with a scratch folder, and with what is held meanwhile; both are gone afterwards."""
        folder = self._scratch.attempt(attempt.name)
        try:
            with ExitStack() as held:
                return work(attempt, lease, folder, held)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _data(self, attempt: Attempt, lease: LeaseKeeper, held: ExitStack, *, for_training: bool) -> list[Json]:
        """Where the data of the task lies on this machine; what is not here can be fetched until `held` ends."""
        parts, spec = self._parts, attempt.spec
        given = self._patiently(lambda: entries(spec, parts.objects), lease)
        fetch = held.enter_context(
            fetching(parts.settings, parts.cache, is_wanted=lambda: not self._is_pointless(lease))
        )
        pins = spec.get("datasets", {})
        files = self._patiently(lambda: held.enter_context(fetched(parts, pins, given)), lease)
        return sources(
            given,
            parts.data_roots,
            fetch=fetch,
            fetched=files,
            with_folders=not for_training,
            for_training=for_training,
        )

    def _watched(
        self, child: Child, specification: Json, attempt: Attempt, lease: LeaseKeeper, telling: Telling
    ) -> Outcome:
        """How a process ended that was given a specification; it is gone then."""
        settings = self._parts.settings
        checkpoints = Checkpoints(attempt, self._parts.objects, self._parts.records)
        try:
            return supervise(
                child,
                specification,
                attempt,
                lease,
                checkpoints,
                telling,
                is_stopping=self._is_stopping,
                cancel_grace_s=settings.cancel_grace_s,
                kill_grace_s=settings.kill_grace_s,
                shutdown_s=settings.shutdown_s,
            )
        finally:
            child.end()
            checkpoints.close()

    def _patiently(self, do: Callable[[], _Found], lease: LeaseKeeper) -> _Found:
        """What `do` returns, once the object store answers. Raises StoreUnavailable."""
        return patiently(do, lambda: self._is_pointless(lease))

    def _is_pointless(self, lease: LeaseKeeper) -> bool:
        """Whether nobody wants what comes of the attempt."""
        return lease.is_lost or lease.is_cancel_requested or self._is_stopping()
