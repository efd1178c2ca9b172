"""Predictions of many rows: computed in pieces, written to a file as they come."""
