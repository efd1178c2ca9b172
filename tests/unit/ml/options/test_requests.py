"""Requests as a whole: services, trainings, predictions."""

import json
import subprocess
import sys

import pytest

from ml.errors import BadParameter, MlError, UnknownConnector, UnknownLibrary, UnknownType
from ml.options import load_prediction, load_service, load_training, merge


def body(**changes):
    made = {
        "mllib": "xgboost",
        "description": "iris",
        "type": "supervised",
        "model": {"repository": "/srv/models/iris", "create_repository": True},
        "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {}},
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def training(mllib=None, **sections):
    wanted = {"nclasses": 3, "iterations": 10} if mllib is None else mllib
    return load_training("xgboost", "csv", {"input": {"label": "y"}, "mllib": wanted, **sections})


def test_a_service_is_read_as_posted():
    loaded = load_service(body())
    assert loaded.warnings == []
    value = loaded.value
    assert (value.library, value.connector, value.type, value.mltype) == (
        "xgboost",
        "csv",
        "supervised",
        "classification",
    )
    assert value.model.repository == "/srv/models/iris"
    assert value.model.create_repository
    assert value.parameters == body()["parameters"]
    assert value.mllib.nclasses == 3


@pytest.mark.parametrize(
    ("changes", "error", "section"),
    [
        ({"mllib": None}, BadParameter, "service"),
        ({"mllib": 3}, BadParameter, "service"),
        ({"mllib": ""}, UnknownLibrary, None),
        ({"mllib": "xgbost"}, UnknownLibrary, None),
        ({"type": "strange"}, UnknownType, None),
        ({"parameters": None}, BadParameter, "service"),
        ({"parameters": []}, BadParameter, "service"),
        ({"parameters": {"input": {}}}, BadParameter, "service"),
        ({"parameters": {"input": {"connector": 4}}}, BadParameter, "service"),
        ({"parameters": {"input": {"connector": "image"}, "mllib": {"nclasses": 3}}}, UnknownConnector, None),
        ({"parameters": {"input": {"connector": "csv"}}}, BadParameter, "mllib"),
        ({"parameters": {"input": {"connector": "csv", "scale": 3}, "mllib": {"nclasses": 3}}}, BadParameter, "input"),
        ({"parameters": {"input": {"connector": "csv"}, "mllib": 7}}, BadParameter, "mllib"),
        ({"model": None}, BadParameter, "model"),
        ({"model": "x"}, BadParameter, "model"),
        ({"model": {"repository": 3}}, BadParameter, "model"),
    ],
)
def test_a_service_that_cannot_be_is_refused(changes, error, section):
    with pytest.raises(error) as caught:
        load_service(body(**changes))
    assert caught.value.section == section
    assert isinstance(caught.value, MlError)


def test_an_unknown_library_names_the_nearest_one():
    with pytest.raises(UnknownLibrary, match="did you mean 'xgboost'"):
        load_service(body(mllib="xgbost"))


def test_unknown_members_of_a_service_are_warnings():
    loaded = load_service(body(descripton="x", model={"repository": "r", "templates": "t"}))
    assert {w.parameter for w in loaded.warnings} == {"descripton", "model.templates"}


@pytest.mark.parametrize(
    ("mllib", "text"),
    [
        ({"iterations": 3}, "number of classes is unknown (nclasses == 0)"),
        ({"iterations": 3, "regression": True}, "number of regression targets is unknown (ntargets == 0)"),
        ({"iterations": 3, "objective": "reg:linear"}, "number of regression targets is unknown (ntargets == 0)"),
        (
            {"iterations": 3, "nclasses": 3, "objective": "multi:softmax"},
            "use multi:softprob objective instead of multi:softmax",
        ),
        ({"iterations": 3, "nclasses": 3, "objective": "binary:logistic"}, "binary:logistic needs 2"),
        ({"nclasses": 3}, "parameters.mllib.iterations is missing"),
        ({"nclasses": 3, "iterations": 0}, "at least 1"),
        ({"nclasses": 1, "iterations": 3}, "at least 2"),
        ({"nclasses": 3, "iterations": 3, "booster_params": {"subsample": 0}}, "above 0"),
        ({"ntargets": 1, "regression": True, "objective": "multi:softprob", "iterations": 3}, "no regression"),
    ],
)
def test_a_training_that_cannot_be_is_refused_with_what_to_do(mllib, text):
    with pytest.raises(BadParameter) as caught:
        training(mllib)
    assert text in str(caught.value)
    assert caught.value.section == "mllib"


def test_a_training_needs_a_label():
    with pytest.raises(BadParameter, match="missing label column parameter") as caught:
        load_training("xgboost", "csv", {"mllib": {"nclasses": 3, "iterations": 3}})
    assert caught.value.section == "input"


def test_labels_and_targets_must_be_equally_many():
    with pytest.raises(BadParameter, match=r"names 2 columns, but parameters\.mllib\.ntargets is 3"):
        load_training("xgboost", "csv", {"input": {"label": ["a", "b"]}, "mllib": {"ntargets": 3, "iterations": 1}})
    with pytest.raises(BadParameter, match="a classification has one label column"):
        load_training("xgboost", "csv", {"input": {"label": ["a", "b"]}, "mllib": {"nclasses": 3, "iterations": 1}})


@pytest.mark.parametrize(
    ("mllib", "objective", "regression"),
    [
        ({"nclasses": 3}, "multi:softprob", False),
        ({"nclasses": 2, "objective": "binary:logistic"}, "binary:logistic", False),
        ({"ntargets": 1, "regression": True}, "reg:squarederror", True),
        ({"ntargets": 1}, "reg:squarederror", True),
        ({"ntargets": 1, "objective": "reg:linear"}, "reg:squarederror", True),
        ({"ntargets": 1, "regression": True, "objective": "reg:logistic"}, "reg:logistic", True),
    ],
)
def test_the_objective_follows_from_what_is_predicted(mllib, objective, regression):
    options = training({**mllib, "iterations": 1}).value.mllib
    assert options.effective_objective == objective
    assert options.is_regression is regression


def test_options_of_another_booster_are_warnings():
    loaded = training(
        {"nclasses": 3, "iterations": 1, "booster": "gblinear", "booster_params": {"max_depth": 3, "lambda": 2}}
    )
    assert [w.parameter for w in loaded.warnings] == ["parameters.mllib.booster_params.max_depth"]
    assert "gblinear does not know it" in loaded.warnings[0].message
    loaded = training({"nclasses": 3, "iterations": 1, "booster_params": {"rate_drop": 0.5}})
    assert [w.parameter for w in loaded.warnings] == ["parameters.mllib.booster_params.rate_drop"]


def test_options_of_neural_networks_are_warnings():
    loaded = training({"nclasses": 3, "iterations": 1, "template": "mlp", "solver": {}, "db": False})
    assert {w.parameter for w in loaded.warnings} == {"parameters.mllib.template", "parameters.mllib.solver"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"separator": ""}, "separator is empty"),
        ({"separator": "é"}, "one ASCII character"),
        ({"quote": ","}, "must differ"),
        ({"test_split": 1}, "below 1"),
        ({"test_split": -0.1}, "at least 0"),
        ({"label": ["y", "y"]}, "twice"),
        ({"ignore": ["y"]}, "both parameters.input.ignore"),
        ({"id": "y"}, "both parameters.input.id"),
        ({"label_offset": [1, 2]}, "label_offset has 2 values"),
        ({"min_vals": [1.0]}, "equally many"),
        ({"categoricals_mapping": {"a": ["x"]}}, "object"),
        ({"seed": -2}, "at least -1"),
    ],
)
def test_input_options_that_cannot_work_are_refused(given, text):
    with pytest.raises(BadParameter) as caught:
        load_training("xgboost", "csv", {"input": {"label": "y", **given}, "mllib": {"nclasses": 3, "iterations": 1}})
    assert text in str(caught.value)
    assert caught.value.section == "input"


def test_a_long_separator_is_cut_with_a_warning():
    loaded = load_prediction("xgboost", "csv", {"input": {"separator": "; "}, "mllib": {}})
    assert [w.parameter for w in loaded.warnings] == ["parameters.input.separator"]


def test_a_prediction_remembers_which_input_options_were_given():
    value = load_prediction("xgboost", "csv", {"input": {"id": "k", "scale": None}, "output": {"best": -1}}).value
    assert value.given_input == {"id"}
    assert value.output.best == -1


def test_unknown_sections_are_warnings():
    loaded = load_prediction("xgboost", "csv", {"imput": {"id": "x"}})
    assert [w.parameter for w in loaded.warnings] == ["parameters.imput"]


def test_parameters_of_a_call_go_over_those_of_the_service():
    service = {"input": {"label": "a", "separator": ";"}, "mllib": {"booster_params": {"eta": 0.1, "gamma": 1}}}
    call = {
        "input": {"label": "b", "separator": None},
        "mllib": {"booster_params": {"eta": 0.2}},
        "output": {"best": 2},
    }
    assert merge(service, call) == {
        "input": {"label": "b", "separator": ";"},
        "mllib": {"booster_params": {"eta": 0.2, "gamma": 1}},
        "output": {"best": 2},
    }
    assert service["input"] == {"label": "a", "separator": ";"}
    assert merge(None, None) == {}


def test_options_and_errors_import_nothing_heavy():
    script = (
        "import sys, json, ml.options, ml.errors, ml.options.catalog; "
        "print(json.dumps([m for m in ('numpy', 'pyarrow', 'polars', 'xgboost', 'pandas', 'scipy', 'sklearn') "
        "if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("weights", ["solver-60.pt", "/data/models/solver-60.pt"])
def test_the_state_of_a_solver_is_no_weights_to_start_from(weights):
    with pytest.raises(BadParameter, match="the state of a solver") as caught:
        load_service(
            {
                "mllib": "torch",
                "model": {"repository": "r", "weights": weights},
                "parameters": {
                    "input": {"connector": "csv", "label": "y"},
                    "mllib": {"nclasses": 2, "template": "mlp"},
                },
            }
        )
    assert (caught.value.name, caught.value.section) == ("model.weights", "model")
