"""What looks into files from elsewhere leaves the network, or does not look where that is required."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xgboost

from ml import isolation
from ml.backends import inspection
from ml.errors import NotIsolated
from settings import Settings
from workers import app, archives, describing
from workers.child import Child


@pytest.fixture
def required() -> Iterator[None]:
    isolation.require(True)
    yield
    isolation.require(False)


def looks(folder: Path) -> list[Callable[[], Any]]:
    """Every look into a file from elsewhere, at one that is in order."""
    model = folder / "0001.model"
    options = {"objective": "reg:squarederror", "base_score": 0.0}
    xgboost.train(options, xgboost.DMatrix([[0.0], [1.0]], [0, 1]), 1).save_model(f"{model}.ubj")
    Path(f"{model}.ubj").rename(model)
    archive, unpacked = folder / "packed.zip", folder / "unpacked"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("name", "content")
    unpacked.mkdir()
    table = folder / "table.csv"
    table.write_text("a,b\n1,2\n")
    return [
        lambda: inspection.inspect("xgboost", model),
        lambda: archives.unpacked(archive, unpacked, 1000),
        lambda: describing._facts(table, "csv"),
    ]


def test_files_from_elsewhere_are_refused_where_isolation_is_required_and_cannot_be_had(
    required: None, sealed: None, tmp_path: Path
):
    assert not isolation.is_possible()
    for look in looks(tmp_path):
        with pytest.raises(NotIsolated, match=r"cannot leave the network .* MODELYARD_ISOLATION .* user namespaces"):
            look()
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_files_from_elsewhere_are_looked_into_without_isolation_where_it_is_not_required(sealed: None, tmp_path: Path):
    model, unpacked, facts = [look() for look in looks(tmp_path)]
    assert model["objective"] == "reg:squarederror"
    assert unpacked["files"] == ["name"]
    assert facts["rows"] == 1


def test_kernel_that_lets_processes_go_satisfies_the_requirement(required: None, tmp_path: Path):
    for look in looks(tmp_path):
        if isolation.is_possible():
            look()
        else:
            with pytest.raises(NotIsolated):
                look()


def test_file_that_is_away_is_told_so_by_a_process_that_left_the_network(tmp_path: Path):
    with pytest.raises(Exception, match=r"0009\.model"):
        inspection.inspect("xgboost", tmp_path / "0009.model")


def test_training_process_is_told_what_is_required(required: None, tmp_path: Path):
    for is_required in (True, False):
        isolation.require(is_required)
        child = Child(tmp_path / "log", 1, program=("-c", "import json, sys; print(json.dumps({'words': sys.argv}))"))
        try:
            told: list[dict[str, Any]] = []
            while not told and not child.is_silent:
                told = child.events(30)
        finally:
            child.end()
        assert ("--isolated" in told[0]["words"]) == is_required


def test_worker_tells_a_kernel_that_keeps_processes_in_the_network(
    sealed: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    for setting, told in (("where_possible", "with the network within reach"), ("required", "are refused")):
        monkeypatch.setattr(app, "settings", Settings(isolation=setting))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            app._tell_isolation()
        [line] = caplog.messages
        assert f"MODELYARD_ISOLATION={setting}" in line
        assert told in line
