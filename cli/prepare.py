"""What must be right before the services start: folders, records, artifacts, Redis, and who may come in.

A process of its own, so that the supervisor holds no driver in memory.
"""

from __future__ import annotations

import os
import sys

from api.access import OpenDoor, check_bind
from settings import BadSetting, Settings
from storage.errors import StorageError
from storage.live import Live
from storage.objects import connect
from storage.records import Records


class NotPrepared(Exception):
    """Something that the operator must see to; the text says what."""


def prepare(settings: Settings) -> None:
    """Make the folders, bring the records to their newest form, and try every store once.

    Raises NotPrepared, OpenDoor or a StorageError, whose text tells the operator what to do.
    """
    default_root = settings.home / "data"
    for root in settings.data_roots:
        if root == default_root:
            root.mkdir(exist_ok=True)
        if not root.is_dir():
            raise NotPrepared(f"MODELYARD_DATA_ROOTS names {root}, which is no folder; create it, or name another one")
    live = Live(settings.live_url)
    live.check()
    live.close()
    connect(settings.objects_url, endpoint_url=settings.s3_endpoint_url).check()
    records = Records.connect(settings.database_url)
    try:
        records.upgrade()
        check_bind(settings, records)
    finally:
        records.close()


def main() -> int:
    """Entry of the program: 0, or 2 with the reason on standard error."""
    try:
        prepare(Settings.from_env(os.environ))
    except (BadSetting, NotPrepared, OpenDoor, StorageError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
