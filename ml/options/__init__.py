"""The typed options of every connector, backend and output, and the functions that read them from requests.

Nothing here imports a machine-learning library, so that the API can refuse a bad parameter and the worker can load
the very same object.
"""

from ml.options.loading import Loaded, Warning
from ml.options.requests import (
    PredictionOptions,
    ServiceOptions,
    TrainingOptions,
    load_prediction,
    load_service,
    load_training,
    merge,
    wants_previous,
)

__all__ = [
    "Loaded",
    "PredictionOptions",
    "ServiceOptions",
    "TrainingOptions",
    "Warning",
    "load_prediction",
    "load_service",
    "load_training",
    "merge",
    "wants_previous",
]
