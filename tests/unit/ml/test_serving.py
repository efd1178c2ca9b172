"""Predictions in the shapes of the DeepDetect API."""

import json

import numpy as np
import pytest

from ml import serving
from ml.backends import xgboost as backend
from ml.connectors.source import FileSource, LinesSource
from ml.errors import BadInput, ModelUnusable
from ml.options import load_prediction, load_service
from ml.options.output import OutputOptions
from ml.tables import DenseTable
from ml.training.session import Specification, run

IRIS = (
    ["length,width,kind"]
    + [f"{1 + i % 3 * 0.1},{i % 5 * 0.1},small" for i in range(20)]
    + [f"{5 + i % 3 * 0.1},{i % 5 * 0.1},large flower" for i in range(20)]
)
LINE = ["x,y0,y1"] + [f"{i},{i},{100 - i}" for i in range(50)]


@pytest.fixture(autouse=True)
def _look_at_files_here(monkeypatch):
    """Model files are read in this process; the other process has tests of its own."""
    monkeypatch.setattr(backend, "inspect", lambda name, path: backend.facts(path))


def train(folder, lines, input_options, mllib, output=None):
    events = []
    given = {
        "task": "t",
        "backend": "xgboost",
        "connector": "csv",
        "parameters": {"input": input_options, "mllib": {"iterations": 10, **mllib}, "output": output or {}},
        "data": [{"lines": lines}],
        "scratch": str(folder),
        "resume": None,
        "threads": 1,
        "device": "cpu",
        "checkpoint_s": 1e9,
    }
    run(Specification.from_json(given), events.append)
    return folder / "model", events[-1]["description"]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return train(tmp_path_factory.mktemp("flowers"), IRIS, {"label": "kind"}, {"nclasses": 2})


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    mllib = {"ntargets": 2, "regression": True, "iterations": 60}
    return train(tmp_path_factory.mktemp("line"), LINE, {"label": ["y0", "y1"]}, mllib)


def predict(trained, lines, **parameters):
    model = serving.load(*trained)
    return model.predict([LinesSource(tuple(lines))], load_prediction("xgboost", "csv", parameters).value)


def test_one_class_is_answered_by_default(flowers):
    made = predict(flowers, ["1.1,0.2", "5.1,0.2"]).predictions
    assert [each["uri"] for each in made] == ["1", "2"]
    assert [each["classes"][0]["cat"] for each in made] == ["small", "large flower"]
    for each in made:
        assert len(each["classes"]) == 1
        assert each["classes"][0]["last"] is True
        assert 0.5 < each["classes"][0]["prob"] <= 1
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize(("best", "count"), [(-1, 2), (0, 0), (1, 1), (2, 2), (9, 2)])
def test_best_says_how_many_classes_are_kept(flowers, best, count):
    (made,) = predict(flowers, ["1.1,0.2"], output={"best": best}).predictions
    assert len(made["classes"]) == count
    probabilities = [each["prob"] for each in made["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert [each.get("last") for each in made["classes"]] == [None] * (count - 1) + [True] * (count > 0)


def test_the_threshold_keeps_a_probability_that_equals_it():
    made = serving.classes(np.array([[0.5, 0.25, 0.25]]), ["1"], None, best=-1, threshold=0.25)
    assert [each["cat"] for each in made[0]["classes"]] == ["0", "1", "2"]
    made = serving.classes(np.array([[0.5, 0.25, 0.25]]), ["1"], ["a", "b", "c"], best=-1, threshold=0.3)
    assert made == [{"uri": "1", "classes": [{"prob": 0.5, "cat": "a", "last": True}]}]
    made = serving.classes(np.array([[0.5, 0.5]]), ["1"], None, best=-1, threshold=0.9)
    assert made == [{"uri": "1", "classes": []}]


def test_equal_probabilities_keep_the_order_of_classes():
    for best in (1, 2):
        made = serving.classes(np.array([[0.2, 0.4, 0.4]]), ["1"], None, best=best, threshold=0)
        assert made[0]["classes"][0]["cat"] == "1"


def test_regression_answers_every_target_sorted_by_value(line):
    (made,) = predict(line, ["10"], output={"best": 1, "regression": True}).predictions
    assert [each["cat"] for each in made["vector"]] == ["1", "0"]
    values = {each["cat"]: each["val"] for each in made["vector"]}
    assert values["0"] == pytest.approx(10, abs=2)
    assert values["1"] == pytest.approx(90, abs=2)
    assert [each.get("last") for each in made["vector"]] == [None, True]


def test_measures_at_prediction_are_the_answer(flowers):
    made = predict(flowers, ["length,width,kind", "1,0,small", "5,0,small"], output={"measure": ["acc", "f1", "zzz"]})
    assert made.predictions == []
    assert made.measure["acc"] == 0.5
    assert "iteration" not in made.measure
    assert ["zzz" in warning.message for warning in made.warnings] == [True]


def test_rows_are_named_by_the_id_column(flowers):
    made = predict(flowers, ["length,k,width", "1,row one,0"], input={"id": "k"})
    assert made.predictions[0]["uri"] == "row one"


def test_a_file_is_predicted_with_its_header(flowers, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("width,length,kind\n0,5,?\n")
    options = load_prediction("xgboost", "csv", {}).value
    made = serving.load(*flowers).predict([FileSource(path, "new.csv")], options)
    assert made.predictions[0]["classes"][0]["cat"] == "large flower"


def test_no_data_is_missing_data(flowers):
    with pytest.raises(BadInput, match="missing data"):
        predict(flowers, [])


def test_what_was_given_at_training_is_remembered(tmp_path):
    lines = ["k;a;y", "r1;0;p", "r2;10;q", "r3;1;p", "r4;9;q"]
    options = {"label": "y", "id": "k", "separator": ";", "scale": True}
    trained = train(tmp_path, lines, options, {"nclasses": 2, "booster_params": {"min_child_weight": 0}})
    made = predict(trained, ["k;a", "new;10"])
    assert made.predictions[0]["uri"] == "new"
    assert made.predictions[0]["classes"][0]["cat"] == "q"


def test_a_model_tells_its_size(flowers):
    assert serving.load(*flowers).bytes > (flowers[0] / "0010.model").stat().st_size


def service(mllib=None, **input_options):
    parameters = {"input": {"connector": "csv", **input_options}, "mllib": mllib or {"nclasses": 2}}
    return load_service({"mllib": "xgboost", "model": {"repository": "r"}, "parameters": parameters}).value


def test_the_repository_holds_the_files_of_the_reference(flowers):
    folder, _ = flowers
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0010.model", "corresp.txt", "model.fmap", "modelyard.json", "training.json"]
    assert (folder / "corresp.txt").read_text() == "0 small\n1 large flower\n"
    assert (folder / "model.fmap").read_text() == "0 length q\n1 width q\n"


def test_a_copied_repository_still_knows_everything(flowers):
    folder, description = flowers
    found = serving.describe_folder(folder, service())
    assert found["fitted"] == description["fitted"]
    assert predict((folder, found), ["5,0"]).predictions == predict(flowers, ["5,0"]).predictions


@pytest.fixture
def bare(flowers, tmp_path):
    """A folder with nothing but the model file."""
    (tmp_path / "0010.model").write_bytes((flowers[0] / "0010.model").read_bytes())
    return tmp_path


def test_a_bare_model_takes_its_class_names_from_corresp(flowers, bare):
    found = serving.describe_folder(bare, service())
    assert predict((bare, found), ["5,0"]).predictions[0]["classes"][0]["cat"] == "1"
    (bare / "corresp.txt").write_text("0 small\n1 large flower\n")
    found = serving.describe_folder(bare, service())
    expected = predict(flowers, ["5,0"]).predictions
    assert predict((bare, found), ["5,0"]).predictions == expected


def test_a_description_of_another_model_is_not_believed(flowers, bare):
    text = json.loads((flowers[0] / "modelyard.json").read_text())
    for changes in (
        {"digest": "0"},
        {"backend": "torch"},
        {"fitted": 3},
        {"labels": [1, 2]},
        {"fitted": {**text["fitted"], "id": 3}},
        {"parameters": None},
        {"parameters": [1]},
        {"parameters": {"mllib": "x"}},
    ):
        (bare / "modelyard.json").write_text(json.dumps({**text, **changes}))
        assert serving.describe_folder(bare, service())["fitted"]["features"] == ["f0", "f1"]
    (bare / "modelyard.json").write_text(json.dumps({**text, "file": "../../else"}))
    assert serving.describe_folder(bare, service())["file"] == "0010.model"


def test_a_description_nested_without_end_is_not_believed(bare):
    (bare / "modelyard.json").write_text("[" * 100_000)
    assert serving.describe_folder(bare, service())["file"] == "0010.model"


def test_a_class_name_keeps_every_character_that_ends_no_line(bare):
    (bare / "corresp.txt").write_text("0 form\x0cfeed\n1 line\u2028mark\r\n", encoding="utf-8", newline="")
    assert serving.read_labels(bare, 2) == ["form\x0cfeed", "line\u2028mark"]


@pytest.mark.parametrize("content", ["x small\n", "7 small\n", "² small\n", "9" * 5000 + " small\n", b"\xff\xfe\x00"])
def test_a_broken_corresp_file_is_refused(bare, content):
    (bare / "corresp.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelUnusable, match=r"corresp\.txt"):
        serving.describe_folder(bare, service())


@pytest.mark.parametrize(
    ("wanted", "first", "second"),
    [
        ({}, [0.5, -1.0, 0.0], [2.0, 0.0, -3.0]),
        ({"binarized": True}, [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ({"bool_binarized": True}, [True, False, False], [True, False, False]),
        ({"string_binarized": True}, "100", "100"),
    ],
)
def test_values_are_numbers_or_say_what_is_above_zero_and_the_last_row_is_marked(wanted, first, second):
    outputs = np.array([[[0.5], [-1.0], [0.0]], [[2.0], [0.0], [-3.0]]], np.float32)
    made = serving.features(outputs, ["a", "b"], OutputOptions(**wanted))
    assert made == [{"uri": "a", "vals": first}, {"uri": "b", "vals": second, "last": True}]


def test_the_loss_of_an_autoencoder_is_the_mean_squared_difference_of_a_row():
    table = DenseTable(np.array([[1.0, 2.0], [0.0, 0.0]], np.float32), None, ["a", "b"], "rows")
    outputs = np.array([[1.0, 4.0], [0.0, 0.0]], np.float32)
    assert serving.losses(outputs, table) == [
        {"uri": "a", "losses": [{"loss": 2.0, "last": True}]},
        {"uri": "b", "losses": [{"loss": 0.0, "last": True}]},
    ]
