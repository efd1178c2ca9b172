"""What granian loads: the application of this process, made from the environment."""

from __future__ import annotations

import logging
import os

from api.access import OpenDoor, check_bind
from api.app import create_app
from api.front import Front
from logs.setting_up import set_up
from settings import BadSetting, Settings
from storage.errors import StorageError
from storage.records import Records

_log = logging.getLogger(__name__)


def make() -> Front:
    """The app for the settings of the environment.

    Raises BadSetting, OpenDoor when everybody could come in, StorageError when the records cannot be read.
    """
    settings = Settings.from_env(os.environ)
    records = Records.connect(settings.database_url, settings.quotas)
    check_bind(settings, records)
    return Front(create_app(settings, records=records))


set_up()
try:
    app = make()
except (BadSetting, OpenDoor, StorageError) as error:
    _log.critical("the API does not start: %s", error)
    raise SystemExit(1) from None
