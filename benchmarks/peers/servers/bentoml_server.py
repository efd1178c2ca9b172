"""BentoML: a service with adaptive batching, one worker."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import xgboost


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Trees:
    """The model behind one batched method."""

    def __init__(self) -> None:
        self.model = xgboost.Booster({"nthread": 1}, model_file=os.environ["MODEL"])

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1000)
    def predict(self, data: np.ndarray) -> np.ndarray:
        """One probability per row."""
        return self.model.inplace_predict(data.astype(np.float32))
