"""Every parameter of DeepDetect's reference is an option, is named as one without effect, or comes later."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from ml.options import csv as csv_options
from ml.options import net, output, service, solver, torch, xgboost
from ml.options.catalog import connectors, libraries
from ml.options.loading import keys_of

ROOT = Path(__file__).resolve().parents[4]
TABLE = ROOT / "tests" / "data" / "deepdetect_parameters.csv"

#: Words that begin the groups of connectors and libraries that come later, and the name none of them may have yet.
LATER = {
    "Image (`image`)": "image",
    "Input Object / Image": "image",
    "Text (`txt`)": "txt",
    "Input Object / Text": "txt",
    "CSV Time-series": "csvts",
    "Input Object / CSV Time-series": "csvts",
    "Caffe2": "caffe2",
    "TensorRT": "tensorrt",
    "Tensorflow": "tensorflow",
    "NCNN": "ncnn",
    "TSNE": "tsne",
}
#: Parameters of requests themselves, which the routes read, by group.
ROUTES = ("General", "Input Object", "Input Connectors")
#: Objects of `mllib` whose members come later with the object.
OBJECTS = {"Noise": "noise", "Distort": "distort", "Geometry": "geometry"}


def known(options: type, elsewhere: Mapping[str, str]) -> dict[str, str]:
    """Names of options, each with the reason when it has no effect."""
    return {**dict.fromkeys(keys_of(options), ""), **elsewhere}


def names_of(group: str) -> dict[str, str]:
    """The names that a group of the reference may use."""
    if "Solver" in group:
        return known(solver.SolverOptions, solver.ELSEWHERE)
    if group.endswith("/ Net"):
        return known(net.NetOptions, net.ELSEWHERE)
    if group == "XGBoost / Booster_params":
        return known(xgboost.BoosterOptions, {})
    if group.startswith("XGBoost"):
        return known(xgboost.XGBoostOptions, xgboost.ELSEWHERE)
    if group.startswith(("Caffe", "Torch")):
        return known(torch.CaffeOptions, torch.ELSEWHERE)
    if "`csv`" in group:
        return known(csv_options.CsvOptions, csv_options.ELSEWHERE)
    if group == "Network object":
        return known(output.NetworkOptions, {})
    if group == "Model Object":
        return known(service.ModelOptions, service.MODEL_ELSEWHERE)
    assert group in ("Output", "Output Object", "Output connector"), group
    return known(output.OutputOptions, output.ELSEWHERE)


def rows() -> list[tuple[str, str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [
            (row["resource"], row["group"], name)
            for row in csv.DictReader(file)
            for name in row["parameter"].split(",")
        ]


@pytest.mark.parametrize(("resource", "group", "name"), rows())
def test_a_parameter_of_the_reference_is_known(resource: str, group: str, name: str):
    later = next((name for words, name in LATER.items() if group.startswith(words)), None)
    if later is not None:
        assert later not in connectors()
        assert later not in libraries()
        return
    if group in ROUTES:
        return
    part = next((each for word, each in OBJECTS.items() if f"/ {word} " in group), None)
    names = names_of(group)
    found = part or name.partition(".")[0]
    assert found in names
    if part is not None:
        assert "later" in names[found]


def test_the_table_is_the_one_of_the_reference():
    reference = ROOT.parent / "shared" / "reference" / "parameters.csv"
    if not reference.exists():
        pytest.skip("the reference is not beside the project")
    assert TABLE.read_bytes() == reference.read_bytes()
