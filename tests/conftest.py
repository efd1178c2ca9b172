"""Fixtures for every test; the servers start when a test asks for them."""

from hypothesis import settings

pytest_plugins = ["tests.services"]

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("modelyard", deadline=None)
settings.load_profile("modelyard")
