"""Fixtures for every test; the servers start when a test asks for them."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from storage.landing import is_partial_name

pytest_plugins = ["tests.services", "tests.sealing", "tests.threads"]

# How long an example takes says more about what else the machine does than about the code.
# The same inputs each time: a test that fails by chance tells the wrong people. New ones are for `make fuzz`.
settings.register_profile("modelyard", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "modelyard"))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are opened on /dev/full: the kernel itself then says that no space is left."""
    real = os.open

    def open_full(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT and is_partial_name(Path(path).name):
            return real("/dev/full", os.O_RDWR)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", open_full)
