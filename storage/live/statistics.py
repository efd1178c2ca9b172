"""Counts of predictions by service: `service_stats` of the DeepDetect API. They may be lost with Redis."""

from __future__ import annotations

from typing import cast

from storage.live.server import LiveServer

_LIFETIME_S = 30 * 86400


class Statistics:
    """Counters by service."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def count(
        self,
        service_id: int,
        *,
        succeeded: bool,
        inferences: int = 0,
        predict_ms: float = 0.0,
        transform_ms: float = 0.0,
    ) -> None:
        """Note one predict call."""
        key = f"statistics:{service_id}"
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=False)
            pipe.hincrby(key, "predict_count", 1)
            pipe.hincrby(key, "predict_success" if succeeded else "predict_failure", 1)
            if succeeded:
                pipe.hincrby(key, "inference_count", inferences)
                pipe.hincrbyfloat(key, "total_predict_duration_ms", predict_ms)
                pipe.hincrbyfloat(key, "total_transform_duration_ms", transform_ms)
            pipe.expire(key, _LIFETIME_S)
            pipe.execute()

    def of(self, service_id: int) -> dict[str, float]:
        """Counts of inferences and of predict calls by how they ended, and two totals in milliseconds."""
        with self._server.errors():
            held = cast("dict[str, str]", self._server.redis.hgetall(f"statistics:{service_id}"))
        counts = ("inference_count", "predict_count", "predict_success", "predict_failure")
        totals = ("total_predict_duration_ms", "total_transform_duration_ms")
        return {
            **{name: int(held.get(name, 0)) for name in counts},
            **{name: float(held.get(name, 0)) for name in totals},
        }
