"""Who may reach the API from outside: nobody, until a key exists."""

from __future__ import annotations

from settings import Settings
from storage.records import Records

CREATE_KEY = "modelyard keys create --account NAME"


class OpenDoor(Exception):
    """The API would answer everybody on the network, and no key says who is who."""


def check_bind(settings: Settings, records: Records) -> None:
    """Raises OpenDoor when the API would listen beyond this machine although no key is in force.

    Raises RecordsUnavailable when the records cannot be read.
    """
    if not settings.is_loopback and not records.keys.any_active():
        raise OpenDoor(
            f"MODELYARD_HOST={settings.host} can be reached by others, and without a key everybody would be "
            f"let in. Create one with `{CREATE_KEY}`, or set MODELYARD_HOST=127.0.0.1"
        )
