"""Counts of predictions by service: `service_stats` of the DeepDetect API. They may be lost with Redis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import cast

from storage.live.server import LiveServer

_LIFETIME_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class Counts:
    """Predict calls by how they ended, the rows they were about, and milliseconds of the model and of all around it."""

    predict_count: int = 0
    predict_success: int = 0
    predict_failure: int = 0
    inference_count: int = 0
    total_predict_duration_ms: float = 0.0
    total_transform_duration_ms: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.predict_count + other.predict_count,
            self.predict_success + other.predict_success,
            self.predict_failure + other.predict_failure,
            self.inference_count + other.inference_count,
            self.total_predict_duration_ms + other.total_predict_duration_ms,
            self.total_transform_duration_ms + other.total_transform_duration_ms,
        )


class Statistics:
    """Counters by service."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def add(self, service_id: int, counts: Counts) -> None:
        """Add to the counts of a service."""
        key = f"statistics:{service_id}"
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=False)
            for name, value in asdict(counts).items():
                if value:
                    pipe.hincrbyfloat(key, name, value) if name.endswith("_ms") else pipe.hincrby(key, name, value)
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
