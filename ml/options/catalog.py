"""Which libraries exist, and what each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml.options import csv, svm, torch, xgboost
from ml.options.loading import Warning
from ml.options.target import Target


@dataclass(frozen=True)
class ConnectorOptions:
    """An input connector: its options class, its checks, and the known names without effect."""

    name: str
    options: type[Any]
    check: Callable[[Any], list[Warning]]
    check_target: Callable[[Any, Target], None]
    elsewhere: Mapping[str, str]


@dataclass(frozen=True)
class LibraryOptions:
    """A library as requests name it in `mllib`.

    connectors : names of the input connectors it takes.
    types : service types it offers.
    devices : kinds of device it runs on, "cpu" or "cuda".
    extra : the installation extra that brings it.
    files : endings of its model files, by which a folder is known to hold a model.
    engine : what computes: libraries of one engine share the processes that predict, and a module to import.
    check_input : refuses options of a training that do not go together there, or with those of its input.
    """

    name: str
    connectors: tuple[str, ...]
    types: tuple[str, ...]
    devices: tuple[str, ...]
    extra: str
    files: tuple[str, ...]
    options: type[Any]
    check: Callable[[Any], list[Warning]]
    elsewhere: Mapping[str, str]
    engine: str
    check_input: Callable[[Any, Any], None] = lambda options, input: None


_CONNECTORS = {
    "csv": ConnectorOptions("csv", csv.CsvOptions, csv.check, csv.check_target, csv.ELSEWHERE),
    "svm": ConnectorOptions("svm", svm.SvmOptions, svm.check, svm.check_target, svm.ELSEWHERE),
}

_LIBRARIES = {
    "xgboost": LibraryOptions(
        name="xgboost",
        connectors=("csv", "svm"),
        types=("supervised",),
        devices=("cpu", "cuda"),
        extra="xgboost",
        files=(".model",),
        options=xgboost.XGBoostOptions,
        check=xgboost.check,
        elsewhere=xgboost.ELSEWHERE,
        engine="xgboost",
        check_input=xgboost.check_input,
    ),
    "torch": LibraryOptions(
        name="torch",
        connectors=("csv", "svm"),
        types=("supervised", "unsupervised"),
        devices=("cpu", "cuda"),
        extra="torch",
        files=(".npt", ".pt"),
        options=torch.TorchOptions,
        check=torch.check,
        elsewhere=torch.ELSEWHERE,
        engine="torch",
        check_input=torch.check_training,
    ),
    "caffe": LibraryOptions(
        name="caffe",
        connectors=("csv", "svm"),
        types=("supervised", "unsupervised"),
        devices=("cpu", "cuda"),
        extra="torch",
        files=(".caffemodel",),
        options=torch.CaffeOptions,
        check=torch.check,
        elsewhere=torch.ELSEWHERE,
        engine="torch",
        check_input=torch.check_training,
    ),
}


def libraries() -> dict[str, LibraryOptions]:
    """Every library by name."""
    return dict(_LIBRARIES)


def engines() -> tuple[str, ...]:
    """Every engine once; each is also the name of the module that it needs."""
    return tuple(dict.fromkeys(library.engine for library in _LIBRARIES.values()))


def connectors() -> dict[str, ConnectorOptions]:
    """Every input connector by name."""
    return dict(_CONNECTORS)
