"""The XGBoost backend: the numbers of xgboost itself, and exact resume."""

import json

import numpy as np
import pytest
import xgboost

from ml.backends import inspection
from ml.backends import xgboost as backend
from ml.errors import BadInput, BadParameter, MissingExtra, ModelUnusable
from ml.options import load_service
from ml.options.target import Target
from tests.unit.ml.backends.boosting import DATA, ROUNDS, begin, bytes_of, data_of, options, run, started, tables


@pytest.fixture(autouse=True)
def _look_at_files_here(monkeypatch):
    """Model files are read in this process; the other process has tests of its own."""
    monkeypatch.setattr(backend, "inspect", lambda name, path: backend.facts(path))


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_a_training_without_draws_gives_the_bytes_of_xgboost_itself(tmp_path, name, booster):
    data, mllib = data_of(name)
    trees = {"max_depth": 4, "eta": 0.2, "lambda": 2, "gamma": 0.1}
    linear = {"eta": 0.2, "lambda": 0.5, "alpha": 0.1}
    booster_params = linear if booster == "gblinear" else trees
    trainer = begin(options(mllib, booster=booster, booster_params=booster_params), data)
    outputs = run(trainer)

    plain = {
        "objective": mllib.get("objective", "reg:squarederror"),
        "booster": booster,
        "nthread": 1,
        **booster_params,
    }
    if mllib.get("nclasses", 0) > 2:
        plain |= {"objective": "multi:softprob", "num_class": mllib["nclasses"]}
    if booster == "gblinear":
        plain["updater"] = "coord_descent"
    plain["disable_default_eval_metric"] = True
    train = xgboost.DMatrix(data.train.features, label=data.train.labels)
    expected = xgboost.train(plain, train, ROUNDS)
    assert bytes_of(trainer, tmp_path) == bytes(expected.save_raw("ubj"))
    direct = expected.predict(xgboost.DMatrix(data.tests[0].features))
    last = outputs[-1][:, 1] if mllib.get("nclasses") == 2 else outputs[-1].reshape(direct.shape)
    assert np.array_equal(last, direct)


SETTINGS = {
    "hist": {},
    "exact": {"tree_method": "exact"},
    "approx": {"tree_method": "approx"},
    "rows": {"subsample": 0.6},
    "columns": {"colsample": 0.5},
    "both": {"subsample": 0.7, "colsample_bytree": 0.8, "colsample_bylevel": 0.7, "colsample_bynode": 0.9},
    "exact with draws": {"tree_method": "exact", "subsample": 0.6, "colsample": 0.5},
    "approx with draws": {"tree_method": "approx", "subsample": 0.6, "colsample": 0.5},
    "forest": {"num_parallel_tree": 3, "subsample": 0.5},
}


@pytest.mark.parametrize("booster_params", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("booster", ["gbtree", "dart"])
@pytest.mark.parametrize(("name", "threads"), [("iris", 1), ("diabetes", 1)])
def test_a_resumed_training_ends_with_the_same_bytes(tmp_path, name, threads, booster, booster_params):
    data, mllib = data_of(name)
    if booster == "dart":
        booster_params = {**booster_params, "rate_drop": 0.3, "skip_drop": 0.2}
    wanted = options(mllib, booster=booster, booster_params=booster_params, seed=5)
    whole = begin(wanted, data, threads)
    outputs = run(whole)
    for stop in (8, 16) if backend.block_size(wanted.mllib, data) > 1 else (1, 8, 19):
        first = begin(wanted, data, threads)
        run(first, stop)
        folder = tmp_path / f"state{stop}"
        folder.mkdir()
        first.save_state(folder)
        again, _ = data_of(name)  # arrays of its own, as in another process
        second = begin(wanted, again, threads, resume=folder)
        assert second.done == stop
        rest = run(second)
        assert all(np.array_equal(one, other) for one, other in zip(outputs[stop:], rest, strict=True))
        assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


@pytest.mark.parametrize("name", ["hist", "both", "approx with draws"])
def test_a_training_with_two_threads_resumes_as_exactly(tmp_path, name):
    data, mllib = data_of("wine")
    wanted = options(mllib, booster_params=SETTINGS[name])
    whole, first = begin(wanted, data, 2), begin(wanted, data, 2)
    run(whole)
    run(first, 8)
    first.save_state(tmp_path)
    second = begin(wanted, data, 2, resume=tmp_path)
    run(second)
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


@pytest.mark.parametrize("selector", ["cyclic", "greedy", "thrifty"])
def test_a_resumed_linear_training_ends_with_the_same_bytes(tmp_path, selector):
    data, mllib = data_of("wine")
    wanted = options(mllib, booster="gblinear", booster_params={"feature_selector": selector, "top_k": 3})
    whole, first = begin(wanted, data, 2), begin(wanted, data, 2)
    run(whole)
    run(first, 3)
    first.save_state(tmp_path)
    second = begin(wanted, data, 2, resume=tmp_path)
    run(second)
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


def test_another_seed_gives_another_model_only_when_something_is_drawn(tmp_path):
    data, mllib = data_of("iris")

    def trained(seed, **booster_params):
        trainer = begin(options(mllib, seed=seed, booster_params=booster_params), data)
        return run(trainer)[-1]

    assert np.array_equal(trained(1), trained(2))
    assert not np.array_equal(trained(1, subsample=0.5), trained(2, subsample=0.5))


def test_large_data_can_be_saved_after_every_iteration_and_small_data_after_a_block(monkeypatch):
    data, mllib = data_of("wine")
    drawing = options(mllib, booster_params={"subsample": 0.5}).mllib
    assert backend.block_size(options(mllib).mllib, data) == 1
    assert backend.block_size(drawing, data) == backend.SMALL_BLOCK
    monkeypatch.setattr(backend, "SMALL_WORK", data.train.features.size * 3)
    assert backend.block_size(drawing, data) == 1


def test_a_training_that_is_saved_after_every_iteration_resumes_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "SMALL_WORK", 0)
    data, mllib = data_of("iris")
    wanted = options(mllib, booster_params=SETTINGS["both"])
    whole, first = begin(wanted, data), begin(wanted, data)
    run(whole)
    run(first, 13)
    first.save_state(tmp_path)
    second = begin(wanted, data, resume=tmp_path)
    run(second)
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


def test_taking_a_checkpoint_changes_nothing(tmp_path):
    data, mllib = data_of("wine")
    wanted = options(mllib, booster_params={"subsample": 0.7, "colsample": 0.6})
    quiet, saving = begin(wanted, data), begin(wanted, data)
    run(quiet)
    while saving.done < ROUNDS:
        saving.step()
        if not saving.can_save:
            continue
        folder = tmp_path / str(saving.done)
        folder.mkdir()
        saving.save_state(folder)
    assert bytes_of(quiet, tmp_path / "quiet") == bytes_of(saving, tmp_path / "saving")


def test_models_kept_by_save_period_survive_a_resume(tmp_path):
    data, mllib = data_of("iris")
    wanted = options(mllib, save_period=7)
    whole, first = (begin(wanted, data, scratch=tmp_path / f"scratch {name}") for name in ("whole", "first"))
    run(whole)
    run(first, 9)
    (tmp_path / "state").mkdir()
    first.save_state(tmp_path / "state")
    second = begin(wanted, data, resume=tmp_path / "state", scratch=tmp_path / "scratch second")
    run(second)
    for name, trainer in (("whole", whole), ("second", second)):
        bytes_of(trainer, tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert sorted(files) == ["0007.model", "0014.model", "0020.model"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}


def test_eval_metric_adds_the_metrics_of_xgboost():
    data, mllib = data_of("iris")
    trainer = begin(options(mllib, eval_metric=["merror", "mlogloss"]), data)
    run(trainer)
    outputs, own = trainer.test(0)
    truth = data.tests[0].labels
    assert own["merror"] == pytest.approx(np.mean(outputs.argmax(axis=1) != truth), abs=1e-5)
    assert own["mlogloss"] == pytest.approx(-np.log(outputs[np.arange(len(truth)), truth]).mean(), abs=1e-4)


def test_binary_logistic_answers_two_probabilities():
    data, mllib = data_of("breast cancer")
    outputs = run(begin(options(mllib), data))[-1]
    assert outputs.shape == (len(data.tests[0]), 2)
    assert outputs.sum(axis=1) == pytest.approx(1)


def test_several_targets_are_learned_at_once(tmp_path):
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 3))
    labels = np.stack([features[:, 0], -features[:, 1]], axis=1)
    mllib = {"ntargets": 2, "regression": True}
    data = tables(features, labels, Target("regression", targets=2))
    trainer = begin(options(mllib, iterations=20), data)
    outputs = run(trainer, 20)[-1]
    assert outputs.shape == (40, 2)
    assert np.abs(outputs - data.tests[0].labels).mean() < 0.3
    bytes_of(trainer, tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "error", "text"),
    [
        ("iris", {"eval_metric": "nonsense"}, BadParameter, "nonsense"),
        ("iris", {"eval_metric": "error"}, BadParameter, "parameters.mllib.eval_metric: "),
        ("iris", {"num_feature": 7}, BadParameter, "but the data has 4 features"),
        ("breast cancer", {"base_score": 7}, BadParameter, "base_score"),
        ("diabetes", {"objective": "reg:logistic"}, BadInput, "reg:logistic needs labels between 0 and 1"),
    ],
)
def test_what_only_xgboost_finds_wrong_is_told_without_its_addresses(name, changes, error, text):
    data, mllib = data_of(name)
    with pytest.raises(error) as caught:
        run(begin(options({**mllib, **changes}), data))
    assert text in str(caught.value)
    assert "Stack trace" not in str(caught.value)
    assert "/src/" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_this_build_cannot_use_is_a_warning():
    data, mllib = data_of("iris")
    if xgboost.build_info()["USE_CUDA"]:
        pytest.skip("this build has GPU support")
    trainer, warnings = started(options(mllib), data, device="cuda")
    assert [parameter for parameter, _ in warnings] == ["parameters.mllib.gpu"]
    trainer.step()


def test_a_missing_library_names_the_extra(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "xgboost":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.delitem(backend.sys.modules, "xgboost")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"modelyard\[xgboost\]"):
        backend.warm()


def service(**mllib):
    parameters = {"input": {"connector": "csv"}, "mllib": mllib}
    return load_service({"mllib": "xgboost", "model": {"repository": "r"}, "parameters": parameters}).value


@pytest.mark.parametrize("name", DATA)
def test_a_model_file_put_there_by_hand_is_described_by_itself(tmp_path, name):
    data, mllib = data_of(name)
    trainer = begin(options(mllib), data)
    expected = run(trainer)[-1]
    trainer.save_model(tmp_path, 112)
    facts = backend.describe(tmp_path, service(**mllib))
    assert facts["file"] == "0112.model"
    assert facts["target"]["classes"] == mllib.get("nclasses", 0)
    assert facts["target"]["targets"] == mllib.get("ntargets", 0)
    assert len(facts["inputs"]) == data.train.features.shape[1]
    engine = backend.load(tmp_path, facts, device="cpu", threads=1)
    assert np.array_equal(engine.predict(data.tests[0].features), expected)
    assert engine.bytes > 0


def test_the_newest_model_file_is_taken(tmp_path):
    import os

    data, mllib = data_of("iris")
    trainer = begin(options(mllib), data)
    run(trainer, 5)
    for rounds, age in ((100, 3), (7, 1), (50, 2)):
        trainer.save_model(tmp_path, rounds)
        os.utime(tmp_path / f"{rounds:04d}.model", (1e9 - age, 1e9 - age))
    assert backend.newest(tmp_path).name == "0007.model"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelUnusable, match="no xgboost model"):
        backend.describe(tmp_path, service(nclasses=3))
    with pytest.raises(ModelUnusable, match="no xgboost model"):
        backend.describe(tmp_path / "absent", service(nclasses=3))


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"learner": {}}', b"binf" + bytes(200), b"{L" + bytes(20)])
def test_a_file_that_is_no_model_is_refused_with_its_name(tmp_path, content):
    (tmp_path / "0001.model").write_bytes(content)
    with pytest.raises(ModelUnusable, match=r"0001\.model is (no model that xgboost|empty)"):
        backend.facts(tmp_path / "0001.model")


@pytest.mark.parametrize(("key", "value"), [("left_children", 9999), ("right_children", 0), ("split_indices", 77)])
def test_a_tree_that_points_outside_of_itself_is_refused(tmp_path, key, value):
    data, mllib = data_of("iris")
    trainer = begin(options(mllib), data)
    run(trainer, 1)
    path = tmp_path / trainer.save_model(tmp_path, 1)
    booster = xgboost.Booster()
    booster.load_model(bytearray(path.read_bytes()))
    model = json.loads(bytes(booster.save_raw("json")))
    model["learner"]["gradient_booster"]["model"]["trees"][0][key][0] = value
    path.write_text(json.dumps(model))
    with pytest.raises(ModelUnusable, match=r"broken|no model"):
        backend.facts(path)


@pytest.mark.parametrize(("key", "value"), [("left_children", 9999), ("right_children", 777), ("leaf_weights", None)])
def test_a_tree_of_several_outputs_that_points_outside_of_itself_is_refused(tmp_path, key, value):
    random = np.random.default_rng(0)
    data = tables(random.normal(size=(60, 3)), random.normal(size=(60, 2)), Target("regression", targets=2))
    trainer = begin(options({"ntargets": 2}, booster_params={"multi_strategy": "multi_output_tree"}), data)
    run(trainer, 1)
    path = tmp_path / trainer.save_model(tmp_path, 1)
    assert backend.facts(path)["is_vector"]
    model = json.loads(bytes(xgboost.Booster(model_file=bytearray(path.read_bytes())).save_raw("json")))
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree[key] = tree[key][:-2] if value is None else [*tree[key][:-1], value]
    path.write_text(json.dumps(model))
    with pytest.raises(ModelUnusable, match=r"broken|no model"):
        inspection.inspect("xgboost", path)  # some of these end the process that reads them


def test_a_model_of_another_kind_than_the_service_is_refused(tmp_path):
    data, mllib = data_of("iris")
    trainer = begin(options(mllib), data)
    run(trainer, 1)
    trainer.save_model(tmp_path, 1)
    with pytest.raises(ModelUnusable, match="knows 3 classes"):
        backend.describe(tmp_path, service(nclasses=5))
    with pytest.raises(ModelUnusable, match="was trained for classification"):
        backend.describe(tmp_path, service(ntargets=1, regression=True))


def test_the_state_says_what_made_it(tmp_path):
    data, mllib = data_of("iris")
    trainer = begin(options(mllib), data)
    trainer.step()
    trainer.save_state(tmp_path)
    facts = json.loads((tmp_path / "booster.json").read_text())
    assert facts["done"] == 1
    assert facts["version"] == xgboost.__version__
