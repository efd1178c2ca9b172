"""Adapters to machine-learning libraries, one file each."""
