"""Fixtures for every test; the servers start when a test asks for them."""

import os

from hypothesis import settings

pytest_plugins = ["tests.services"]

# How long an example takes says more about what else the machine does than about the code.
# The same inputs each time: a test that fails by chance tells the wrong people. New ones are for `make fuzz`.
settings.register_profile("modelyard", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "modelyard"))
