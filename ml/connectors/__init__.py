"""Input connectors: each turns what clients send into arrays, and nothing more."""
