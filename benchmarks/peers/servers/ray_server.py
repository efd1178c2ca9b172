"""Ray Serve: one replica with dynamic batching, on a Ray of its own."""

from __future__ import annotations

import os
import signal

import numpy as np
import ray
import xgboost
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=256, logging_config={"enable_access_log": False})
class Trees:
    """The model behind one batched method."""

    def __init__(self, path: str) -> None:
        self.model = xgboost.Booster({"nthread": 1}, model_file=path)

    # Without a wait it takes what is there: a lone request then waits for nobody.
    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def predict(self, rows: list[list[float]]) -> list[float]:
        """One probability per row."""
        return self.model.inplace_predict(np.array(rows, dtype=np.float32)).tolist()

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """The answer to a request."""
        return {"predictions": [await self.predict((await request.json())["data"])]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=os.environ["SCRATCH"])
    serve.start(http_options={"host": os.environ["HOST"], "port": int(os.environ["PORT"])})
    serve.run(Trees.bind(os.environ["MODEL"]), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
