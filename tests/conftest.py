"""Fixtures for every test; the servers start when a test asks for them."""

pytest_plugins = ["tests.services"]
