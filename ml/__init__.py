"""The machine-learning library: options, connectors, backends, training, measures. It knows no server."""
