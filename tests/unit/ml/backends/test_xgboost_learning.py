"""What xgboost can be told to learn, and how: each against xgboost called directly with what that means."""

import json

import numpy as np
import pytest
import xgboost
from sklearn import metrics

from ml.backends import xgboost as backend
from ml.errors import BadParameter, ModelUnusable
from ml.options import load_service
from tests.unit.ml.backends.boosting import begin, bytes_of, data_of, options, run, state_of, tables

ROUNDS = 8


@pytest.fixture(autouse=True)
def _look_at_files_here(monkeypatch):
    """Model files are read in this process; the other process has tests of its own."""
    monkeypatch.setattr(backend, "inspect", lambda name, path: backend.facts(path))


def trained(mllib, data, **more):
    trainer = begin(options({"iterations": ROUNDS, **mllib}, **more), data)
    return trainer, run(trainer, ROUNDS)[-1]


def direct(data, parameters, label=None, features=None, **more):
    """Predictions of xgboost itself on the test set, and the bytes of its model."""
    features = data.train.features if features is None else features
    label = data.train.labels if label is None else label
    model = xgboost.train(
        {"nthread": 1, "disable_default_eval_metric": True, **parameters},
        xgboost.DMatrix(features, label=label, **more),
        ROUNDS,
    )
    return model.predict(xgboost.DMatrix(data.tests[0].features)), bytes(model.save_raw("ubj"))


def positive(columns=1, seed=0):
    """A table whose labels lie between 0 and 1."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(200, 4))
    labels = 1 / (1 + np.exp(-features[:, :columns] - 0.3 * random.normal(size=(200, columns))))
    return tables(features, labels, options({"ntargets": columns}).mllib.target)


@pytest.mark.parametrize(
    ("objective", "booster_params"),
    [
        ("reg:linear", {}),
        ("reg:squarederror", {}),
        ("reg:logistic", {"scale_pos_weight": 2.0}),
        ("reg:squaredlogerror", {}),
        ("reg:pseudohubererror", {"huber_slope": 0.3}),
        ("reg:absoluteerror", {}),
        ("reg:quantileerror", {"quantile_alpha": 0.8}),
        ("reg:gamma", {}),
        ("reg:tweedie", {"tweedie_variance_power": 1.2}),
        ("count:poisson", {"max_delta_step": 0.7}),
    ],
)
def test_every_objective_of_a_regression_is_that_of_xgboost(tmp_path, objective, booster_params):
    data = positive()
    mllib = {"ntargets": 1, "objective": objective, "booster_params": booster_params}
    trainer, outputs = trained(mllib, data)
    name = "reg:squarederror" if objective == "reg:linear" else objective
    expected, raw = direct(data, {"objective": name, **booster_params})
    assert np.array_equal(outputs[:, 0], expected)
    assert bytes_of(trainer, tmp_path, ROUNDS) == raw
    assert backend.facts(tmp_path / "0008.model")["target"]["targets"] == 1
    first = begin(options({**mllib, "iterations": ROUNDS}), data)
    run(first, 3)
    second = begin(options({**mllib, "iterations": ROUNDS}), data, resume=state_of(first, tmp_path / "state"))
    assert np.array_equal(run(second, ROUNDS)[-1], outputs)


@pytest.mark.parametrize("objective", ["multi:softprob", "binary:logistic", "binary:hinge"])
def test_every_objective_of_a_classification_is_that_of_xgboost(objective):
    data, _ = data_of("breast cancer")
    _, outputs = trained({"nclasses": 2, "objective": objective}, data)
    more = {"num_class": 2} if objective.startswith("multi") else {}
    expected, _ = direct(data, {"objective": objective, **more})
    assert np.array_equal(outputs[:, 1], expected if expected.ndim == 1 else expected[:, 1])
    assert outputs.sum(axis=1) == pytest.approx(1)


def test_the_quantile_that_nobody_named_is_the_median():
    data = positive()
    _, outputs = trained({"ntargets": 1, "objective": "reg:quantileerror"}, data)
    expected, _ = direct(data, {"objective": "reg:quantileerror", "quantile_alpha": 0.5})
    assert np.array_equal(outputs[:, 0], expected)


def test_a_quantile_is_above_as_many_labels_as_it_says():
    data = positive()
    mllib = {"ntargets": 1, "objective": "reg:quantileerror", "booster_params": {"quantile_alpha": 0.9, "max_depth": 2}}
    trainer = begin(options(mllib), data)
    model = run(trainer)[-1]
    assert 0.75 < np.mean(data.tests[0].labels < model) < 1


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
@pytest.mark.parametrize("soft", [False, True])
def test_several_labels_per_row_are_learned_each_for_itself(tmp_path, booster, soft):
    shares = positive(3)
    mllib = {"nclasses": 3, "multi_label": True, "booster": booster, **({"regression": True} if soft else {})}
    wanted = options({"iterations": ROUNDS, **mllib}, label=["y0", "y1", "y2"])
    data = tables(
        np.concatenate([shares.train.features, shares.tests[0].features]),
        np.concatenate([shares.train.labels, shares.tests[0].labels]) > (-1 if soft else 0.5),
        wanted.mllib.target,
    )
    if soft:
        data.train.labels = shares.train.labels.astype(np.float32)
        data.train.features = shares.train.features
    trainer = begin(wanted, data)
    outputs = run(trainer, ROUNDS)[-1]
    more = {"booster": booster, **({"updater": "coord_descent"} if booster == "gblinear" else {})}
    expected, raw = direct(data, {"objective": "reg:logistic" if soft else "binary:logistic", **more})
    assert outputs.shape == (40, 3)
    assert np.array_equal(outputs, expected)
    assert bytes_of(trainer, tmp_path, ROUNDS) == raw
    if not soft:
        truth = data.tests[0].labels
        assert all(metrics.roc_auc_score(truth[:, each], outputs[:, each]) > 0.8 for each in range(3))
    service = {"nclasses": 3, "multi_label": True, **({"regression": True} if soft else {})}
    found = backend.describe(tmp_path, of_service(service))
    assert found["target"] == wanted.mllib.target.as_json()
    engine = backend.load(tmp_path, found, device="cpu", threads=1)
    assert np.array_equal(engine.predict(data.tests[0].features), outputs)


def of_service(mllib):
    parameters = {"input": {"connector": "csv"}, "mllib": mllib}
    return load_service({"mllib": "xgboost", "model": {"repository": "r"}, "parameters": parameters}).value


def test_a_model_of_several_labels_is_no_model_of_classes(tmp_path):
    wanted = options({"iterations": 1, "nclasses": 2, "multi_label": True}, label=["y0", "y1"])
    random = np.random.default_rng(0)
    trainer = begin(wanted, tables(random.normal(size=(40, 3)), random.integers(0, 2, (40, 2)), wanted.mllib.target))
    run(trainer, 1)
    trainer.save_model(tmp_path, 1)
    with pytest.raises(ModelUnusable, match="was trained for multi_label"):
        backend.describe(tmp_path, of_service({"nclasses": 2}))
    with pytest.raises(ModelUnusable, match="knows 2 classes"):
        backend.describe(tmp_path, of_service({"nclasses": 3, "multi_label": True}))


def test_a_hand_made_model_says_the_label_that_does_not_count(tmp_path):
    data, mllib = data_of("iris")
    trainer, _ = trained(mllib, data)
    trainer.save_model(tmp_path, ROUNDS)
    found = backend.describe(tmp_path, of_service({"nclasses": 3, "ignore_label": 9}))
    assert found["target"]["ignored"] == 9


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_trees_of_one_output_or_of_all_are_those_of_xgboost(tmp_path, strategy):
    data = positive(3)
    wanted = options({"ntargets": 3, "iterations": ROUNDS}, booster_params={"multi_strategy": strategy})
    trainer = begin(wanted, data)
    outputs = run(trainer, ROUNDS)[-1]
    parameters = {"objective": "reg:squarederror"}
    if strategy == "multi_output_tree":
        parameters["multi_strategy"] = strategy
    expected, raw = direct(data, parameters)
    assert np.array_equal(outputs, expected)
    assert bytes_of(trainer, tmp_path, ROUNDS) == raw
    assert backend.facts(tmp_path / "0008.model")["is_vector"] == (strategy == "multi_output_tree")
    first = begin(wanted, data)
    run(first, 3)
    second = begin(wanted, data, resume=state_of(first, tmp_path / "state"))
    run(second, ROUNDS)
    assert bytes_of(second, tmp_path / "second", ROUNDS) == raw


def test_weights_of_classes_are_weights_of_their_rows(tmp_path):
    data, mllib = data_of("wine")
    weights = [0.5, 3, 1]
    trainer, outputs = trained({**mllib, "class_weights": weights}, data)
    parameters = {"objective": "multi:softprob", "num_class": 3}
    expected, raw = direct(data, parameters, weight=np.array(weights)[data.train.labels])
    assert np.array_equal(outputs, expected)
    assert bytes_of(trainer, tmp_path, ROUNDS) == raw
    assert not np.array_equal(outputs, trained(mllib, data)[1])


@pytest.mark.parametrize("ignored", [-1, 7, 2])
def test_rows_that_do_not_count_are_not_trained_on(ignored):
    data, _ = data_of("iris")
    data.train.labels[::5] = ignored
    data.tests[0].labels[:3] = ignored
    mllib = {"nclasses": 3, "ignore_label": ignored, "eval_metric": ["mlogloss"]}
    trainer, outputs = trained(mllib, data)
    counts = data.train.labels != ignored
    expected, _ = direct(
        data,
        {"objective": "multi:softprob", "num_class": 3},
        features=data.train.features[counts],
        label=data.train.labels[counts],
    )
    assert np.array_equal(outputs, expected)
    _, own = trainer.test(0)
    tested = data.tests[0].labels != ignored
    truth = data.tests[0].labels[tested]
    assert own["mlogloss"] == pytest.approx(-np.log(outputs[tested][np.arange(len(truth)), truth]).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("mllib", "columns", "score"),
    [
        ({"ntargets": 1}, 1, 0.25),
        ({"ntargets": 3}, 3, 0.25),
        ({"ntargets": 3}, 3, [0.1, 0.2, 0.3]),
        ({"nclasses": 3, "multi_label": True}, 3, 0.25),
    ],
)
def test_the_prediction_before_the_first_round_is_the_one_that_was_given(tmp_path, mllib, columns, score):
    wanted = options({"iterations": 1, "base_score": score, **mllib}, label=[f"y{each}" for each in range(columns)])
    shares = positive(columns)
    labels = shares.train.labels if "ntargets" in mllib else shares.train.labels > 0.5
    data = tables(shares.train.features, labels, wanted.mllib.target)
    trainer = begin(wanted, data)
    trainer.step()
    model = xgboost.Booster(model_file=bytearray(bytes_of(trainer, tmp_path, 1)))
    start = np.array(score if isinstance(score, list) else [score] * columns)
    assert json.loads(json.loads(model.save_config())["learner"]["learner_model_param"]["base_score"]) == pytest.approx(
        start
    )
    # The same comes out when the first prediction is given from outside, in the unit of the sum over the trees.
    margin = np.log(start / (1 - start)) if "nclasses" in mllib else start
    rows = np.full((1, 4), np.nan, np.float32)
    before = xgboost.DMatrix(rows, base_margin=margin.reshape(1, -1))
    expected = model.predict(before, output_margin=True)
    assert model.predict(xgboost.DMatrix(rows), output_margin=True) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_a_given_first_prediction_is_the_same_after_a_resume(tmp_path, name):
    data, mllib = data_of(name)
    wanted = options({**mllib, "base_score": 0.3, "iterations": ROUNDS})
    whole, first = begin(wanted, data), begin(wanted, data)
    run(whole, ROUNDS)
    run(first, 3)
    second = begin(wanted, data, resume=state_of(first, tmp_path / "state"))
    run(second, ROUNDS)
    assert bytes_of(second, tmp_path / "second", ROUNDS) == bytes_of(whole, tmp_path / "whole", ROUNDS)


@pytest.mark.parametrize("way", ["depthwise", "exact"])
def test_features_that_may_only_raise_or_lower_the_output_do(way):
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 3))
    labels = features[:, :1] ** 2 + features[:, 1:2] + 0.1 * random.normal(size=(300, 1))
    data = tables(features, labels, options({"ntargets": 1}).mllib.target)
    signs = {"f2": 1, "f0": -1}
    parameters = {"monotone_constraints": signs, **({"tree_method": "exact"} if way == "exact" else {})}
    _, outputs = trained({"ntargets": 1, "booster_params": parameters}, data)
    expected, _ = direct(data, {"objective": "reg:squarederror", **parameters, "monotone_constraints": "(-1,0,1)"})
    assert np.array_equal(outputs[:, 0], expected)


def test_features_interact_only_within_their_lists():
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 4))
    labels = features[:, :1] * features[:, 1:2] + features[:, 2:3] * features[:, 3:]
    data = tables(features, labels, options({"ntargets": 1}).mllib.target)
    parameters = {"interaction_constraints": [["f1", "f0"], ["f2", "f3"]]}
    _, outputs = trained({"ntargets": 1, "booster_params": parameters}, data)
    expected, _ = direct(data, {"objective": "reg:squarederror", "interaction_constraints": "[[1, 0], [2, 3]]"})
    assert np.array_equal(outputs[:, 0], expected)
    assert not np.array_equal(outputs, trained({"ntargets": 1}, data)[1])


@pytest.mark.parametrize(
    "parameters", [{"monotone_constraints": {"age": 1}}, {"interaction_constraints": [["f0", "age"]]}]
)
def test_constraints_on_features_that_are_not_there_are_refused(parameters):
    data, mllib = data_of("diabetes")
    with pytest.raises(BadParameter, match="names 'age'; the features of the data are f0, f1, f2") as caught:
        trained({**mllib, "booster_params": parameters}, data)
    assert caught.value.section == "mllib"


def test_labels_of_test_sets_are_checked_too():
    data = positive()
    data.tests[0].labels = data.tests[0].labels + 5
    with pytest.raises(Exception, match="objective reg:logistic needs labels between 0 and 1; split has 5"):
        trained({"ntargets": 1, "objective": "reg:logistic"}, data)
