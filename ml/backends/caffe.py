"""Networks under the name `caffe`: kept as Caffe keeps them, `<prefix>_iter_<N>.caffemodel` and .prototxt files."""

from __future__ import annotations

from ml.backends.base import BackendInfo
from ml.backends.networks import NetworkBackend

INFO = BackendInfo(
    name="caffe",
    files=(".caffemodel",),
    trains=True,
    devices=("cpu", "cuda"),
    extra="torch",
    cleared=(".solverstate", ".caffemodel", "config.json", "model.json", "metrics.json"),
    cleared_without_db=(".dat",),
    test_sets_max=None,
    best=1,
    first_iteration=0,
    keeps_best=True,
)

_BACKEND = NetworkBackend(INFO, "CaffeFiles")
warm, start, facts = _BACKEND.warm, _BACKEND.start, _BACKEND.facts
describe, load = _BACKEND.describe, _BACKEND.load
