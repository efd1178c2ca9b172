"""Which libraries exist, and what each of them takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml.options import csv, xgboost
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


_CONNECTORS = {"csv": ConnectorOptions("csv", csv.CsvOptions, csv.check, csv.check_target, csv.ELSEWHERE)}

_LIBRARIES = {
    "xgboost": LibraryOptions(
        name="xgboost",
        connectors=("csv",),
        types=("supervised",),
        devices=("cpu", "cuda"),
        extra="xgboost",
        files=(".model",),
        options=xgboost.XGBoostOptions,
        check=xgboost.check,
        elsewhere=xgboost.ELSEWHERE,
        engine="xgboost",
    )
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
