"""The commands that speak HTTP with a server, here or elsewhere."""
