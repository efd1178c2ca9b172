"""Files of predictions: what is written piece by piece is read back by others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from ml.bulk.files import writer
from ml.errors import MissingExtra

Json = dict[str, Any]

CLASSES = [
    {"uri": "1", "classes": [{"prob": 0.75, "cat": "a\u2028b"}, {"prob": 0.25, "cat": "é", "last": True}]},
    {"uri": "2", "classes": []},
]
NUMBERS = [{"uri": "1", "vector": [{"cat": "1", "val": 3.5}, {"cat": "0", "val": -1.0, "last": True}]}]
LOSSES = [{"uri": "x", "losses": [{"loss": 0.125, "last": True}]}]


def written(path: Path, form: str, *pieces: list[Json]) -> Path:
    file = writer(path, form)
    for piece in pieces:
        file.write(piece)
    file.close()
    return path


def table(path: Path, *pieces: list[Json]) -> list[Json]:
    found: list[Json] = pyarrow.parquet.read_table(written(path, "parquet", *pieces)).to_pylist()
    return found


@pytest.mark.parametrize("predictions", [CLASSES, NUMBERS, LOSSES])
def test_json_and_lines_hold_predictions_as_they_are(tmp_path: Path, predictions: list[Json]):
    assert json.loads(written(tmp_path / "a", "json", predictions, predictions).read_text()) == predictions * 2
    lines = written(tmp_path / "b", "jsonl", predictions, predictions).read_text().rstrip("\n").split("\n")
    assert [json.loads(line) for line in lines] == predictions * 2


def test_no_predictions_make_an_empty_array_no_lines_and_an_empty_table(tmp_path: Path):
    assert written(tmp_path / "a", "json", []).read_bytes() == b"[]"
    assert written(tmp_path / "b", "jsonl", []).read_bytes() == b""
    assert table(tmp_path / "c", []) == []


def test_what_json_lacks_is_left_out_of_lines(tmp_path: Path):
    vals = [{"uri": "1", "vals": [1.0, float("nan")]}]
    assert json.loads(written(tmp_path / "a", "jsonl", vals).read_text()) == {"uri": "1", "vals": [1.0, None]}


def test_table_of_classes_has_the_best_and_all(tmp_path: Path):
    first = [{"cat": "a\u2028b", "prob": 0.75}, {"cat": "é", "prob": 0.25}]
    assert table(tmp_path / "a", CLASSES[:1], CLASSES[1:]) == [
        {"uri": "1", "cat": "a\u2028b", "prob": 0.75, "classes": first},
        {"uri": "2", "cat": None, "prob": None, "classes": []},
    ]


def test_table_of_numbers_is_in_the_order_of_the_targets(tmp_path: Path):
    assert table(tmp_path / "a", NUMBERS) == [{"uri": "1", "vector": [-1.0, 3.5]}]


def test_table_of_an_autoencoder_has_the_loss(tmp_path: Path):
    assert table(tmp_path / "a", LOSSES) == [{"uri": "x", "loss": 0.125}]


@pytest.mark.parametrize("vals", [[0.5, -2.0], [True, False], "10"])
def test_table_of_values_keeps_their_form(tmp_path: Path, vals: Any):
    assert table(tmp_path / "a", [{"uri": "1", "vals": vals, "last": True}]) == [{"uri": "1", "vals": vals}]


def test_missing_library_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pyarrow is not installed here; install it with: pip install 'modelyard\["):
        writer(tmp_path / "a", "parquet")
