"""Options of xgboost: every row of the reference, what goes together, and what is said of what does not."""

import pytest

from ml.errors import BadParameter
from ml.options import load_service, load_training
from ml.options.target import Target
from ml.options.xgboost import BoosterOptions, XGBoostOptions, used


def training(mllib, **sections):
    given = {"input": {"label": "y"}, "mllib": {"iterations": 1, **mllib}, **sections}
    return load_training("xgboost", "csv", given)


def several(mllib, count=3, **input):
    return training(mllib, input={"label": [f"y{each}" for each in range(count)], **input})


def test_defaults_are_those_of_the_reference():
    wanted = training({"nclasses": 3}).value.mllib
    assert wanted == XGBoostOptions(nclasses=3, iterations=1)
    assert (wanted.effective_objective, wanted.booster, wanted.seed) == ("multi:softprob", "gbtree", 0)
    assert (wanted.test_interval, wanted.save_period) == (1, 0)
    trees = wanted.booster_params
    assert (trees.eta, trees.gamma, trees.max_depth, trees.min_child_weight, trees.max_delta_step) == (0.3, 0, 6, 1, 0)
    assert (trees.subsample, trees.colsample_bytree, trees.alpha, trees.lambda_bias) == (1, 1, 0, 0)
    assert (trees.tree_method, trees.scale_pos_weight) == ("auto", 1)
    assert used(wanted) == []


@pytest.mark.parametrize(
    ("mllib", "target", "objective"),
    [
        ({"nclasses": 2}, Target("classification", classes=2), "multi:softprob"),
        ({"nclasses": 2, "objective": "binary:hinge"}, Target("classification", classes=2), "binary:hinge"),
        ({"nclasses": 2, "ignore_label": 5}, Target("classification", classes=2, ignored=5), "multi:softprob"),
        ({"ntargets": 3}, Target("regression", targets=3), "reg:squarederror"),
        ({"ntargets": 3, "objective": "reg:linear"}, Target("regression", targets=3), "reg:squarederror"),
        ({"nclasses": 3, "multi_label": True}, Target("multi_label", classes=3), "binary:logistic"),
        ({"ntargets": 3, "multi_label": True}, Target("multi_label", classes=3), "binary:logistic"),
        ({"nclasses": 3, "multi_label": True, "regression": True}, Target("soft_labels", classes=3), "reg:logistic"),
        (
            {"nclasses": 3, "multi_label": True, "objective": "reg:logistic"},
            Target("soft_labels", classes=3),
            "reg:logistic",
        ),
    ],
)
def test_what_is_learned_follows_from_the_options(mllib, target, objective):
    count = target.labels
    wanted = several(mllib, count).value.mllib
    assert wanted.target == target
    assert wanted.effective_objective == objective


@pytest.mark.parametrize(
    ("mllib", "name", "text"),
    [
        ({"nclasses": 1, "multi_label": True}, "nclasses", "must be at least 2"),
        ({"multi_label": True}, "nclasses", r"number of classes is unknown \(nclasses == 0\)"),
        ({"autoencoder": True}, "nclasses", r"number of classes is unknown \(nclasses == 0\)"),
        ({"nclasses": 3, "objective": "binary:hinge"}, "nclasses", "binary:hinge needs 2"),
        (
            {"nclasses": 3, "multi_label": True, "objective": "multi:softprob"},
            "objective",
            "'multi:softprob'; multi_label needs 'binary:logistic'",
        ),
        (
            {"nclasses": 3, "multi_label": True, "regression": True, "objective": "reg:gamma"},
            "objective",
            "multi_label with regression needs 'reg:logistic'",
        ),
        ({"ntargets": 2, "objective": "reg:quantileerror"}, "objective", "predicts one target"),
        ({"ntargets": 1, "objective": "binary:hinge"}, "objective", "is 'binary:hinge', which is no regression"),
        ({"nclasses": 3, "class_weights": [1, 2]}, "class_weights", "has 2 numbers; parameters.mllib.nclasses is 3"),
        ({"nclasses": 3, "class_weights": [0, 0, 0]}, "class_weights", "is 0 for every class"),
        (
            {"nclasses": 3, "class_weights": [1, -2, 1]},
            "class_weights",
            "at least 0",
        ),
        ({"nclasses": 3, "base_score": [0.1, 0.2]}, "base_score", "has 2 numbers; give one, or one for each of the 3"),
        ({"nclasses": 2, "objective": "binary:logistic", "base_score": [0.1, 0.2]}, "base_score", "has 2 numbers"),
        ({"ntargets": 2, "base_score": [0.1, 0.2, 0.3]}, "base_score", "one for each of the 2 targets"),
        (
            {"nclasses": 3, "booster_params": {"sampling_method": "gradient_based", "tree_method": "approx"}},
            "booster_params.sampling_method",
            "'gradient_based' needs the tree_method hist, not approx",
        ),
        (
            {"nclasses": 3, "booster": "dart", "booster_params": {"multi_strategy": "multi_output_tree"}},
            "booster_params.multi_strategy",
            "'multi_output_tree' needs the booster gbtree, not dart",
        ),
        ({"nclasses": 3, "booster_params": {"lambda_bias": 1}}, "booster_params.lambda_bias", "at most 0"),
        (
            {"nclasses": 3, "booster_params": {"monotone_constraints": {"a": 2}}},
            "booster_params.monotone_constraints",
            "a whole number, at least -1 and at most 1",
        ),
        (
            {"nclasses": 3, "booster_params": {"tweedie_variance_power": 2}},
            "booster_params.tweedie_variance_power",
            "at most",
        ),
        ({"nclasses": 3, "booster_params": {"huber_slope": 0}}, "booster_params.huber_slope", "above 0"),
        ({"nclasses": 3, "iterations": 0}, "iterations", "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(mllib, name, text):
    count = mllib.get("ntargets", mllib.get("nclasses", 1) if mllib.get("multi_label") else 1)
    with pytest.raises(BadParameter, match=text) as caught:
        several(mllib, count)
    assert caught.value.name == f"parameters.mllib.{name}"
    assert caught.value.section == "mllib"


@pytest.mark.parametrize(
    ("mllib", "name", "text"),
    [
        ({"nclasses": 3, "eta": 0.1}, "eta", "it belongs into parameters.mllib.booster_params"),
        ({"nclasses": 3, "learning_rate": 0.1}, "learning_rate", "it belongs into parameters.mllib.booster_params"),
        ({"nclasses": 3, "template": "mlp"}, "template", "it is an option of neural networks"),
        ({"nclasses": 3, "solver": {"iterations": 3}}, "solver", "it is an option of neural networks"),
        ({"nclasses": 3, "autoencoder": True}, "autoencoder", "xgboost trains no autoencoders"),
        ({"ntargets": 1, "class_weights": [1]}, "class_weights", "it needs rows of one class each"),
        ({"ntargets": 1, "ignore_label": 1}, "ignore_label", "it needs rows of one class each"),
        (
            {"nclasses": 3, "booster_params": {"scale_pos_weight": 2}},
            "booster_params.scale_pos_weight",
            "the objective multi:softprob does not know it",
        ),
        (
            {"ntargets": 1, "booster_params": {"quantile_alpha": 0.2}},
            "booster_params.quantile_alpha",
            "the objective reg:squarederror does not know it",
        ),
        (
            {"nclasses": 3, "booster": "gblinear", "booster_params": {"max_depth": 2}},
            "booster_params.max_depth",
            "the booster gblinear does not know it",
        ),
        (
            {"nclasses": 3, "booster_params": {"rate_drop": 0.2}},
            "booster_params.rate_drop",
            "the booster gbtree does not know it",
        ),
    ],
)
def test_what_has_no_effect_is_a_warning(mllib, name, text):
    (warning,) = training(mllib).warnings
    assert warning.parameter == f"parameters.mllib.{name}"
    assert text in warning.message


@pytest.mark.parametrize(
    ("objective", "name", "value"),
    [
        ("reg:tweedie", "tweedie_variance_power", 1.2),
        ("reg:pseudohubererror", "huber_slope", 2),
        ("reg:quantileerror", "quantile_alpha", 0.2),
        ("reg:logistic", "scale_pos_weight", 2),
    ],
)
def test_an_objective_takes_what_it_knows(objective, name, value):
    loaded = training({"ntargets": 1, "objective": objective, "booster_params": {name: value}})
    assert loaded.warnings == []
    assert used(loaded.value.mllib) == [name]


def test_classes_and_targets_of_several_labels_say_the_same():
    (warning,) = several({"nclasses": 3, "ntargets": 2, "multi_label": True}).warnings
    assert warning.parameter == "parameters.mllib.ntargets"


@pytest.mark.parametrize("connector", ["csv", "svm"])
def test_db_is_taken_in_both_places_and_what_the_input_says_counts(connector):
    label = {"label": "y"} if connector == "csv" else {}

    def db(mllib, input):
        sections = {"input": {**label, **input}, "mllib": {"nclasses": 2, "iterations": 1, **mllib}}
        loaded = load_training("xgboost", connector, sections)
        assert loaded.warnings == []
        return loaded.value.input.db

    assert db({}, {}) is False
    assert db({"db": True}, {}) is True
    assert db({}, {"db": True}) is True
    assert db({"db": False}, {"db": True}) is True
    assert db({"db": True}, {"db": False}) is False


def test_a_service_may_ask_for_what_only_a_training_can_refuse():
    body = {
        "mllib": "xgboost",
        "model": {"repository": "r"},
        "parameters": {"input": {"connector": "csv", "db": True}, "mllib": {"nclasses": 2, "booster": "gblinear"}},
    }
    assert load_service(body).value.input.db


def test_the_names_of_the_reference_and_of_xgboost_mean_the_same():
    one = training({"nclasses": 2, "booster_params": {"colsample": 0.5, "eta": 0.1, "lambda": 2, "alpha": 1}})
    other = {"colsample_bytree": 0.5, "learning_rate": 0.1, "reg_lambda": 2, "reg_alpha": 1}
    assert one.value == training({"nclasses": 2, "booster_params": other}).value
    assert one.value.mllib.booster_params == BoosterOptions(eta=0.1, colsample_bytree=0.5, lambda_=2, alpha=1)


@pytest.mark.parametrize(
    ("mllib", "name"),
    [
        ({"booster_params": {"tree_method": "exact", "max_bin": 4}}, "max_bin"),
        ({"booster_params": {"tree_method": "exact", "max_leaves": 3}}, "max_leaves"),
        ({"booster_params": {"tree_method": "exact", "grow_policy": "lossguide"}}, "grow_policy"),
        ({"booster_params": {"sampling_method": "gradient_based"}}, "sampling_method"),
        ({"booster": "dart", "booster_params": {"sample_type": "weighted"}}, "sample_type"),
        ({"booster": "dart", "booster_params": {"normalize_type": "forest"}}, "normalize_type"),
        ({"booster": "dart", "booster_params": {"skip_drop": 0.5}}, "skip_drop"),
        ({"booster": "gblinear", "booster_params": {"top_k": 2}}, "top_k"),
    ],
)
def test_an_option_that_others_leave_without_effect_is_told_and_not_handed_on(mllib, name):
    loaded = training({"nclasses": 3, **mllib})
    (warning,) = loaded.warnings
    assert warning.parameter == f"parameters.mllib.booster_params.{name}"
    assert "was ignored" in warning.message
    assert name not in used(loaded.value.mllib)


@pytest.mark.parametrize(
    "mllib",
    [
        {"booster_params": {"max_bin": 4, "max_leaves": 3, "grow_policy": "lossguide"}},
        {"booster_params": {"sampling_method": "gradient_based", "subsample": 0.5}},
        {"booster": "dart", "booster_params": {"sample_type": "weighted", "rate_drop": 0.1}},
        {"booster": "dart", "booster_params": {"skip_drop": 0.5, "one_drop": True}},
        {"booster": "gblinear", "booster_params": {"top_k": 2, "feature_selector": "greedy"}},
    ],
)
def test_an_option_that_has_effect_is_handed_on_without_a_word(mllib):
    loaded = training({"nclasses": 3, **mllib})
    assert loaded.warnings == []
    assert set(used(loaded.value.mllib)) == set(mllib["booster_params"])


def test_columns_of_a_node_are_not_drawn_by_exact():
    with pytest.raises(BadParameter, match=r"booster_params.colsample_bynode needs the tree_method hist or approx"):
        training({"nclasses": 3, "booster_params": {"tree_method": "exact", "colsample_bynode": 0.5}})


def test_trees_without_a_limit_are_not_grown_by_exact():
    with pytest.raises(BadParameter, match=r"booster_params.max_depth 0, no limit, needs the tree_method hist"):
        training({"nclasses": 3, "booster_params": {"tree_method": "exact", "max_depth": 0}})
