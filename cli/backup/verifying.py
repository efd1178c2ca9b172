"""Whether everything that the records name lies in the object store, and whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from storage.errors import ArtifactNotFound, ChecksumMismatch
from storage.objects import Objects
from storage.records import Named, Records


@dataclass
class Verified:
    """What was found.

    named : artifacts that the records name. wrong : those of them that are missing or not whole, and how.
    others, others_bytes : what lies there besides: checkpoints, logs, inputs, and what awaits cleaning.
    """

    named: int = 0
    named_bytes: int = 0
    wrong: list[tuple[Named, str]] = field(default_factory=list)
    others: int = 0
    others_bytes: int = 0


def verify(records: Records, objects: Objects, *, contents: bool) -> Verified:
    """Hold the records against the object store. contents : whether every artifact is read, for its SHA-256.

    Memory grows with the number of artifacts that the records name, about 500 bytes each.
    Raises RecordsUnavailable, StoreUnavailable.
    """
    found = Verified()
    # Names first: what is stored later than the list of names is nobody's loss.
    waiting = {each.key: each for each in records.inventory.named()}
    found.named = len(waiting)
    for listed in objects.list():
        named = waiting.pop(listed.key, None)
        if named is None:
            found.others += 1
            found.others_bytes += listed.size
            continue
        found.named_bytes += listed.size
        if named.size is not None and named.size != listed.size:
            found.wrong.append((named, f"has {listed.size} bytes, not the {named.size} of its record"))
        elif contents and (fault := _fault(objects, named)) is not None:
            found.wrong.append((named, fault))
    found.wrong += [(named, "is missing") for named in _still_named(records, waiting)]
    return found


def _still_named(records: Records, missing: dict[str, Named]) -> Iterator[Named]:
    """Those that are no longer wanted were deleted meanwhile, as they should be."""
    if missing:
        now = {each.key for each in records.inventory.named()}
        yield from (named for key, named in missing.items() if key in now)


def _fault(objects: Objects, named: Named) -> str | None:
    try:
        objects.read_through(named.key, named.sha256)
    except (ArtifactNotFound, ChecksumMismatch) as error:
        return str(error)
    return None
