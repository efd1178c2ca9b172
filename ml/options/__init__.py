"""The typed options of every connector, backend and output, and the functions that read them from requests.

Nothing here imports a machine-learning library, so that the API can refuse a bad parameter and the worker can load
the very same object.
"""

from ml.options.loading import Loaded, Warning
from ml.options.requests import (
    PredictionOptions,
    ServiceOptions,
    ServiceRequest,
    TrainingOptions,
    load_prediction,
    load_service,
    load_training,
    merge,
    read_service,
    wants_previous,
)

__all__ = [
    "Loaded",
    "PredictionOptions",
    "ServiceOptions",
    "ServiceRequest",
    "TrainingOptions",
    "Warning",
    "load_prediction",
    "load_service",
    "load_training",
    "merge",
    "read_service",
    "wants_previous",
]
