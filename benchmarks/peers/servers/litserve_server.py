"""LitServe: one worker, which takes what waits as one batch."""

from __future__ import annotations

import os

import litserve
import numpy as np
import xgboost


class Trees(litserve.LitAPI):
    """Decoding and encoding per request in the web process, prediction per batch in the worker."""

    def setup(self, device):
        """Load the model."""
        self.model = xgboost.Booster({"nthread": 1}, model_file=os.environ["MODEL"])

    def decode_request(self, request):
        """The row of a request."""
        return np.array(request["data"], dtype=np.float32)

    def predict(self, x):
        """One probability per row."""
        return self.model.inplace_predict(x)

    def encode_response(self, output):
        """The answer to a request."""
        return {"predictions": [float(output)]}


if __name__ == "__main__":
    # `batch_timeout` 0 takes what waits at once: a lone request then waits for nobody.
    api = Trees(max_batch_size=64, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host=os.environ["HOST"], port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
