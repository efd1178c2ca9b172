"""What granian loads: the application of this process, made from the environment."""

from __future__ import annotations

import logging
import os
import sys

from api.access import OpenDoor, check_bind
from api.app import create_app
from api.front import Front
from settings import BadSetting, Settings
from storage.errors import StorageError
from storage.records import Records


def make() -> Front:
    """The app for the settings of the environment.

    Raises BadSetting, OpenDoor when everybody could come in, StorageError when the records cannot be read.
    """
    settings = Settings.from_env(os.environ)
    records = Records.connect(settings.database_url, settings.quotas)
    check_bind(settings, records)
    return Front(create_app(settings, records=records))


logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
try:
    app = make()
except (BadSetting, OpenDoor, StorageError) as error:
    raise SystemExit(str(error)) from None
