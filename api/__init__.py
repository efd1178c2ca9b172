"""The HTTP API: routes, schemas and the error table. It computes nothing and imports no machine-learning library."""
