"""Copies of everything that counts: made while all runs, restored into an empty home, held against each other."""
