"""`resume: true`: xgboost goes on with the model that the repository holds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xgboost

from ml.backends import xgboost as backend
from ml.backends.base import Previous
from ml.connectors.svm import Fitted as SvmFitted
from ml.errors import BadParameter
from ml.options.target import Target
from ml.training.session import Specification
from ml.training.session import run as run_session
from tests.unit.ml.backends.boosting import begin, bytes_of, data_of, options, run, started, state_of, tables


@pytest.fixture(autouse=True)
def _look_at_files_here(monkeypatch):
    """Model files are read in this process; the other process has tests of its own."""
    monkeypatch.setattr(backend, "inspect", lambda name, path: backend.facts(path))


def kept(trainer, folder, rounds, data=None, **description):
    """What a repository tells of a model that was trained in it."""
    folder.mkdir(parents=True)
    file = trainer.save_model(folder, rounds)
    if data is not None:
        description |= {"connector": "csv", "fitted": data.fitted.as_json()}
    return Previous((file,), folder, {"file": file, **description})


def first_part(wanted, data, folder, rounds=12):
    trainer = begin(wanted, data)
    run(trainer, rounds)
    return kept(trainer, folder, rounds, data)


@pytest.mark.parametrize("name", ["iris", "breast cancer", "diabetes"])
@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_without_draws_two_trainings_equal_one(tmp_path, name, booster):
    data, mllib = data_of(name)
    whole = begin(options(mllib, booster=booster), data)
    outputs = run(whole)
    previous = first_part(options(mllib, booster=booster), data, tmp_path / "previous")
    second, warnings = started(options(mllib, booster=booster, resume=True), data, previous=previous)
    assert warnings == []
    assert second.done == 12
    assert all(np.array_equal(one, other) for one, other in zip(outputs[12:], run(second), strict=True))
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


def test_it_is_what_xgboost_itself_goes_on_with(tmp_path):
    data, mllib = data_of("wine")
    previous = first_part(options(mllib, booster_params={"eta": 0.5}), data, tmp_path / "previous")
    second = begin(options(mllib, resume=True, booster_params={"eta": 0.1}), data, previous=previous)
    last = run(second)[-1]
    train = xgboost.DMatrix(data.train.features, label=data.train.labels)
    plain = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    model = xgboost.train({**plain, "eta": 0.5}, train, 12)
    model = xgboost.train({**plain, "eta": 0.1}, train, 8, xgb_model=model)
    assert np.array_equal(last, model.predict(xgboost.DMatrix(data.tests[0].features)))


@pytest.mark.parametrize("method", ["hist", "approx", "exact"])
@pytest.mark.parametrize("rounds", [12, 16])
def test_with_draws_it_goes_on_with_new_ones_and_recovers_exactly(tmp_path, method, rounds):
    data, mllib = data_of("iris")
    parameters = {"subsample": 0.6, "colsample": 0.5, "tree_method": method}
    wanted = options(mllib, iterations=32, booster_params=parameters, seed=4)
    previous = first_part(wanted, data, tmp_path / "previous", rounds)
    on = replace(wanted, mllib=replace(wanted.mllib, resume=True))
    whole, first = (begin(on, data, previous=previous) for _ in range(2))
    outputs = run(whole, 32)
    run(first, 24)
    assert first.can_save
    second = begin(on, data, resume=state_of(first, tmp_path / "state"))  # the repository is not looked at again
    assert all(np.array_equal(one, other) for one, other in zip(outputs[24 - rounds :], run(second, 32), strict=True))
    assert bytes_of(second, tmp_path / "second", 32) == bytes_of(whole, tmp_path / "whole", 32)
    trees = json.loads(
        bytes(xgboost.Booster(model_file=bytearray(bytes_of(whole, tmp_path / "x", 32))).save_raw("json"))
    )
    models = [json.dumps(tree["split_indices"]) for tree in trees["learner"]["gradient_booster"]["model"]["trees"]]
    assert models[: 3 * 8] != models[3 * rounds : 3 * (rounds + 8)]  # the first rounds' draws do not come again


def test_a_model_that_has_all_rounds_is_tested_only(tmp_path):
    data, mllib = data_of("iris")
    previous = first_part(options(mllib), data, tmp_path / "previous", 20)
    trainer = begin(options(mllib, iterations=15, resume=True), data, previous=previous)
    assert trainer.done == 20
    outputs, _ = trainer.test(0)
    assert outputs.shape == (30, 3)
    assert trainer.save_model(tmp_path, 15) == "0020.model"
    assert (tmp_path / "0020.model").read_bytes() == (tmp_path / "previous" / "0020.model").read_bytes()


def test_a_cancelled_training_goes_on_from_where_it_was(tmp_path):
    data, mllib = data_of("iris")
    trainer = begin(options(mllib), data)
    run(trainer, 7)
    previous = kept(trainer, tmp_path / "previous", 20, data)
    assert previous.files == ("0020.model",)
    assert begin(options(mllib, resume=True), data, previous=previous).done == 7


def test_without_resume_a_training_starts_anew(tmp_path):
    data, mllib = data_of("iris")
    previous = first_part(options(mllib), data, tmp_path / "previous")
    assert begin(options(mllib), data, previous=previous).done == 0
    assert not options(mllib).mllib.wants_previous
    assert options(mllib, resume=True).mllib.wants_previous


def test_models_that_were_kept_on_the_way_stay(tmp_path):
    data, mllib = data_of("iris")
    whole = begin(options(mllib, save_period=4), data, scratch=tmp_path / "a")
    first = begin(options(mllib, save_period=4, iterations=12), data, scratch=tmp_path / "b")
    run(whole)
    run(first, 12)
    previous = kept(first, tmp_path / "previous", 12, data)
    (tmp_path / "previous" / "0099.model").write_bytes(b"of another training")
    second = begin(options(mllib, save_period=4, resume=True), data, previous=previous, scratch=tmp_path / "c")
    run(second)
    for name, trainer in (("whole", whole), ("second", second)):
        bytes_of(trainer, tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert sorted(files) == ["0004.model", "0008.model", "0012.model", "0016.model", "0020.model"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}


def test_the_described_model_is_taken_not_the_newest_file(tmp_path):
    data, mllib = data_of("iris")
    trainer = begin(options(mllib), data)
    run(trainer, 5)
    previous = kept(trainer, tmp_path / "previous", 5, data)
    trainer.step()
    trainer.save_model(tmp_path / "previous", 6)
    assert begin(options(mllib, resume=True), data, previous=previous).done == 5
    of_nobody = replace(previous, description={})
    assert begin(options(mllib, resume=True), data, previous=of_nobody).done == 6


def test_the_first_prediction_stays_that_of_the_model(tmp_path):
    data, mllib = data_of("iris")
    previous = first_part(options(mllib, base_score=0.3), data, tmp_path / "previous")
    second, warnings = started(options(mllib, resume=True, base_score=0.9), data, previous=previous)
    assert [name for name, _ in warnings] == ["parameters.mllib.base_score"]
    run(second)
    whole = begin(options(mllib, base_score=0.3), data)
    run(whole)
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


def test_no_model_is_a_clear_refusal():
    data, mllib = data_of("iris")
    with pytest.raises(
        BadParameter, match=r"resume is true, but the repository holds no model; train without"
    ) as caught:
        begin(options(mllib, resume=True), data)
    assert caught.value.section == "mllib"


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_file_that_is_no_model_is_a_clear_refusal(tmp_path, content):
    data, mllib = data_of("iris")
    (tmp_path / "0012.model").write_bytes(content)
    with pytest.raises(BadParameter, match=r"resume is true, but model file 0012\.model"):
        begin(options(mllib, resume=True), data, previous=Previous(("0012.model",), tmp_path, {}))
    (tmp_path / "0012.model").unlink()
    with pytest.raises(BadParameter, match=r"resume is true, but no xgboost model"):
        begin(options(mllib, resume=True), data, previous=Previous((), tmp_path, {}))


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({"booster": "dart"}, {}, r"0003\.model in the repository has the booster dart, and this training gbtree"),
        ({"objective": "binary:logistic"}, {}, "the objective binary:logistic, and this training multi:softprob"),
        ({"booster_params": {"num_parallel_tree": 2}}, {}, "the num_parallel_tree 2, and this training 1"),
        ({}, {"booster_params": {"multi_strategy": "multi_output_tree"}}, "one_output_per_tree, and this training mul"),
    ],
)
def test_a_model_that_was_made_otherwise_is_a_clear_refusal(tmp_path, before, now, text):
    data, _ = data_of("breast cancer")
    previous = first_part(options({"nclasses": 2, **before}), data, tmp_path / "previous", 3)
    with pytest.raises(BadParameter, match=text):
        begin(options({"nclasses": 2, "resume": True, **now}), data, previous=previous)


def test_other_classes_and_targets_are_a_clear_refusal(tmp_path):
    iris, mllib = data_of("iris")
    previous = first_part(options(mllib), iris, tmp_path / "iris", 3)
    with pytest.raises(BadParameter, match="has the number of classes 3, and this training 4"):
        begin(options({"nclasses": 4, "resume": True}), iris, previous=previous)
    random = np.random.default_rng(0)
    two = tables(random.normal(size=(50, 3)), random.normal(size=(50, 2)), Target("regression", targets=2))
    previous = first_part(options({"ntargets": 2}), two, tmp_path / "two", 3)
    one = tables(random.normal(size=(50, 3)), random.normal(size=(50, 1)), Target("regression", targets=1))
    with pytest.raises(BadParameter, match="has the number of targets 2, and this training 1"):
        begin(options({"ntargets": 1, "resume": True}), one, previous=previous)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"features": ["f0", "x", "f2", "f3"], "columns": ["f0", "x", "f2", "f3", "y0"]},
            "feature 2 was 'x' and is 'f1'",
        ),
        ({"words": ["setosa", "virginica", "versicolor"]}, "they were setosa, virginica, versicolor and are numbers"),
        ({"scale_type": "minmax", "low": [0.0] * 5, "high": [1.0] * 5}, "the features are scaled otherwise"),
        ({"features": ["f0"]}, "has 1 features, the data has 4"),
    ],
)
def test_data_that_means_something_else_is_a_clear_refusal(tmp_path, change, text):
    data, mllib = data_of("iris")
    previous = first_part(options(mllib), data, tmp_path / "previous", 3)
    description = {**previous.description, "fitted": {**data.fitted.as_json(), **change}}
    with pytest.raises(BadParameter, match=text):
        begin(options(mllib, resume=True), data, previous=replace(previous, description=description))


def test_another_connector_is_a_clear_refusal(tmp_path):
    data, mllib = data_of("iris")
    previous = first_part(options(mllib), data, tmp_path / "previous", 3)
    description = {**previous.description, "connector": "svm", "fitted": SvmFitted(np.arange(4)).as_json()}
    with pytest.raises(BadParameter, match="was trained with the input connector svm"):
        begin(options(mllib, resume=True), data, previous=replace(previous, description=description))


def test_other_numbers_of_features_are_a_clear_refusal_even_when_nothing_is_known_of_them(tmp_path):
    data, mllib = data_of("iris")
    previous = first_part(options(mllib), data, tmp_path / "previous", 3)
    wine, mllib = data_of("wine")
    with pytest.raises(BadParameter, match="has the number of features 4, and this training 13"):
        begin(options(mllib, resume=True), wine, previous=replace(previous, description=None))


def test_a_session_goes_on_with_its_history(tmp_path):
    rows = ["a,b,y"] + [f"{row % 7},{row % 3},{row % 2}" for row in range(60)]

    def session(folder, iterations, previous=None):
        events = []
        given = {
            "task": "train-1-a1",
            "backend": "xgboost",
            "connector": "csv",
            "parameters": {
                "input": {"label": "y", "test_split": 0.25, "seed": 1, "shuffle": True},
                "mllib": {"nclasses": 2, "iterations": iterations, "test_interval": 2, "resume": previous is not None},
                "output": {"measure": ["acc", "mcll"]},
            },
            "data": [{"lines": rows}],
            "scratch": str(tmp_path / folder),
            "resume": None,
            "threads": 1,
            "device": "cpu",
            "checkpoint_s": 1e9,
        }
        if previous is not None:
            given["previous"] = {
                "files": ["0008.model"],
                "folder": previous["model_folder"],
                "description": previous["description"],
            }
        run_session(Specification.from_json(json.loads(json.dumps(given))), events.append)
        return events[-1]

    first = session("first", 8)
    whole, second = session("whole", 20), session("second", 20, first)
    kept_points = [7, *range(8, 20, 2), 19]
    hist = second["report"]["measure_hist"]
    assert hist["iteration_hist"][-len(kept_points) :] == kept_points
    assert hist["acc_hist"][:3] == whole["report"]["measure_hist"]["acc_hist"][:3]
    assert second["report"]["measure"] == whole["report"]["measure"]
    assert second["description"]["rounds"] == 20


def test_draws_begin_anew_where_the_model_ended(tmp_path, monkeypatch):
    data, mllib = data_of("iris")
    wanted = options(mllib, iterations=32, booster_params={"subsample": 0.6}, resume=True)
    previous = first_part(replace(wanted, mllib=replace(wanted.mllib, resume=False)), data, tmp_path / "previous", 12)
    seeded = []
    real = backend.XGBoostTrainer._draw_anew
    monkeypatch.setattr(
        backend.XGBoostTrainer,
        "_draw_anew",
        lambda self, booster, iteration: (seeded.append(iteration), real(self, booster, iteration)),
    )
    run(begin(wanted, data, previous=previous), 32)
    assert seeded == [12, 16, 24]
