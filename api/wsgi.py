"""What the WSGI server loads: the app of this process, made from the environment."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

from api.access import OpenDoor, check_bind
from api.app import create_app
from settings import BadSetting, Settings
from storage.errors import StorageError
from storage.records import Records


class Terminated:
    """Tells Flask that the server ends the body itself, so that bodies sent in chunks are read as well."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True
        found: Iterable[bytes] = self._app(environ, start_response)
        return found


def make() -> Terminated:
    """The app for the settings of the environment.

    Raises BadSetting, OpenDoor when everybody could come in, StorageError when the records cannot be read.
    """
    settings = Settings.from_env(os.environ)
    records = Records.connect(settings.database_url)
    check_bind(settings, records)
    return Terminated(create_app(settings, records=records))


logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
try:
    app = make()
except (BadSetting, OpenDoor, StorageError) as error:
    raise SystemExit(str(error)) from None
