"""Networks under the name `torch`: kept as `checkpoint-<N>.npt`, with `solver-<N>.pt` to go on from."""

from __future__ import annotations

from ml.backends.base import BackendInfo
from ml.backends.networks import NetworkBackend

INFO = BackendInfo(
    name="torch",
    files=(".npt", ".pt"),
    trains=True,
    devices=("cpu", "cuda"),
    extra="torch",
    cleared=(".pt", ".npt", ".ptw", "config.json", "model.json", "metrics.json"),
    test_sets_max=None,
    best=-1,
    first_iteration=1,
    keeps_best=True,
)

_BACKEND = NetworkBackend(INFO, "TorchFiles")
warm, start, facts = _BACKEND.warm, _BACKEND.start, _BACKEND.facts
describe, load = _BACKEND.describe, _BACKEND.load
