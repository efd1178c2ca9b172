"""Long runs of the properties that hold for any input: `python -m tests.fuzz`."""
