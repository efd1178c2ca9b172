"""Live state and records of a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from settings import Settings
from storage.live import Live
from storage.records import Records


@pytest.fixture
def live(redis_url: str) -> Iterator[Live]:
    made = Live(redis_url)
    yield made
    made.close()


@pytest.fixture
def records(settings: Settings) -> Iterator[Records]:
    made = Records.connect(settings.database_url)
    made.upgrade()
    yield made
    made.close()
