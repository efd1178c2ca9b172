"""Which queue a piece of work goes to: GPU queues only while a worker serves them."""

from __future__ import annotations

from typing import Any

from api.parts import Parts
from ml.options import Warning
from ml.options.catalog import libraries
from storage.errors import LiveUnavailable
from workers.queue import predict_queue, train_queue


def choose_training(parts: Parts, mllib: Any) -> tuple[str, str, list[Warning]]:
    """Device and queue of a training with the options `mllib`, and the warning that there is no GPU."""
    return _choose(parts, mllib, train_queue("cpu"), train_queue("gpu"))


def choose_prediction(parts: Parts, library: str, mllib: Any) -> tuple[str, str, list[Warning]]:
    """Device and queue of a prediction, and the warning that there is no GPU."""
    engine = libraries()[library].engine
    return _choose(parts, mllib, predict_queue(engine, "cpu"), predict_queue(engine, "gpu"))


def _choose(parts: Parts, mllib: Any, on_cpu: str, on_gpu: str) -> tuple[str, str, list[Warning]]:
    if not getattr(mllib, "gpu", False):
        return "cpu", on_cpu, []
    try:
        served = on_gpu in parts.live.heartbeats.queues()
    except LiveUnavailable:
        served = False
    if served:
        return "cuda", on_gpu, []
    text = "parameters.mllib.gpu was ignored: no worker with a GPU is alive, so the CPU is used"
    return "cpu", on_cpu, [Warning("parameters.mllib.gpu", text)]
