"""Trainings of networks against plain PyTorch, and against themselves after an interruption."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ml.errors import BadInput, BadParameter, ModelUnusable  # noqa: E402
from ml.options.solver import POLICIES, SOLVERS  # noqa: E402
from ml.options.target import Target  # noqa: E402
from ml.tables import DenseTable, SparseTable, TrainingData  # noqa: E402
from tests.unit.ml.neural import tiny  # noqa: E402

SCHEDULES = {
    "fixed": {},
    "step": {"stepsize": 3, "gamma": 0.5},
    "multistep": {"stepvalue": [2, 5], "gamma": 0.5},
    "exp": {"gamma": 0.9},
    "inv": {"gamma": 0.1, "power": 0.75},
    "poly": {"power": 2.0},
    "sigmoid": {"gamma": -0.5, "stepsize": 4},
    "sgdr": {"ncycles": 2, "min_lr": 1e-4},
}
CPU = torch.device("cpu")


def plain(trainer):
    """A network of plain PyTorch with the weights that a trainer begins with."""
    found = trainer._network.state_dict()
    layers = []
    for place in range(3):
        with torch.random.fork_rng():
            layer = nn.Linear(*found[f"ip{place}.weight"].shape[::-1])
        layer.load_state_dict({name: found[f"ip{place}.{name}"].clone() for name in ("weight", "bias")})
        layers += [layer, nn.ReLU()] if place < 2 else [layer]
    return nn.Sequential(*layers)


def orders(seed, shuffle, passes):
    """Row numbers, pass after pass, as the trainer takes them."""
    for number in range(passes):
        rows = np.arange(tiny.ROWS)
        yield np.random.default_rng((seed, number)).permutation(tiny.ROWS) if shuffle else rows


LOSSES = {
    "classification": ({}, functional.cross_entropy),
    "multi_label": ({"nclasses": 3, "multi_label": True}, functional.binary_cross_entropy_with_logits),
    "soft_labels": (
        {"nclasses": 3, "multi_label": True, "regression": True},
        functional.binary_cross_entropy_with_logits,
    ),
    "regression": ({"ntargets": 2}, functional.l1_loss),
    "squares": ({"ntargets": 2, "loss": "L2"}, functional.mse_loss),
    "autoencoder": ({"autoencoder": True}, functional.mse_loss),
}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("task", list(LOSSES))
def test_a_training_does_what_a_plain_loop_does(tmp_path, task, shuffle):
    mllib, loss_of = LOSSES[task]
    trainer, remarks = tiny.begin(tmp_path, shuffle=shuffle, seed=7, **mllib)
    assert remarks == []
    network = plain(trainer)
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    data = tiny.tables(trainer._design.target)
    features = torch.from_numpy(data.train.features)
    truth = features if data.train.labels is None else torch.from_numpy(data.train.labels)
    truth = truth.long() if task == "classification" else truth.float()
    rows = np.concatenate(list(orders(7, shuffle, 4)))
    losses = []
    for batch in rows[: 15 * 8].reshape(15, 8):
        optimizer.zero_grad()
        loss = loss_of(network(features[batch]), truth[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert tiny.steps(trainer, 15) == pytest.approx(losses, rel=1e-5)
    found, wanted = trainer._network.state_dict(), network.state_dict()
    for mine, theirs in zip(found.values(), wanted.values(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_gathered_gradients_are_those_of_one_large_batch(tmp_path):
    small, _ = tiny.begin(tmp_path / "a", net={"batch_size": 4}, solver={"iter_size": 5})
    large, _ = tiny.begin(tmp_path / "b", net={"batch_size": 20})
    assert tiny.steps(small, 10) == pytest.approx(tiny.steps(large, 10), rel=1e-5)


def test_a_batch_larger_than_the_data_goes_on_at_its_beginning(tmp_path):
    trainer, _ = tiny.begin(tmp_path, shuffle=False, net={"batch_size": 100})
    network = plain(trainer)
    data = tiny.tables(Target("classification", classes=3)).train
    rows = np.concatenate([np.arange(40), np.arange(40), np.arange(20)])
    loss = functional.cross_entropy(
        network(torch.from_numpy(data.features[rows])), torch.from_numpy(data.labels[rows]).long()
    )
    assert tiny.steps(trainer, 1) == pytest.approx([loss.item()], rel=1e-5)


def test_rows_of_the_ignored_label_and_class_weights_count_as_in_plain_torch(tmp_path):
    weights = [0.5, 2.0, 1.0]
    trainer, _ = tiny.begin(tmp_path, shuffle=False, class_weights=weights, ignore_label=1)
    data = tiny.tables(Target("classification", classes=3)).train
    raw = plain(trainer)(torch.from_numpy(data.features[:8]))
    truth = torch.from_numpy(data.labels[:8]).long()
    wanted = functional.cross_entropy(raw, truth, weight=torch.tensor(weights), ignore_index=1)
    assert tiny.steps(trainer, 1) == pytest.approx([wanted.item()], rel=1e-5)


def test_a_regression_begins_with_the_mean_of_its_targets(tmp_path):
    trainer, _ = tiny.begin(tmp_path, ntargets=2)
    outputs, _ = trainer.test(0)
    means = tiny.tables(Target("regression", targets=2)).train.labels.mean(axis=0)
    assert outputs == pytest.approx(np.tile(means, (tiny.TESTED, 1)), rel=1e-6)


def test_outputs_of_a_test_are_those_of_the_network_whatever_the_batches(tmp_path):
    data = tiny.tables(Target("classification", classes=3)).tests[0]
    losses = []
    for size in (None, 5):
        trainer, _ = tiny.begin(tmp_path / str(size), dropout=0.5, net={"batch_size": 8, "test_batch_size": size})
        tiny.steps(trainer, 3)
        outputs, own = trainer.test(0)
        raw = plain(trainer)(torch.from_numpy(data.features))
        assert own == {}
        assert outputs == pytest.approx(torch.softmax(raw, dim=1).detach().numpy(), abs=1e-6)
        losses.append(tiny.steps(trainer, 3))
    untested, _ = tiny.begin(tmp_path / "untested", dropout=0.5)
    # A test leaves nothing behind: neither the mode of the network nor a random draw.
    assert losses == [tiny.steps(untested, 6)[3:]] * 2


def test_the_loss_falls_and_is_told_with_the_learning_rate(tmp_path):
    trainer, _ = tiny.begin(tmp_path, solver={"solver_type": "ADAM", "lr_policy": "exp", "gamma": 0.99})
    assert trainer.running() == {}
    losses = tiny.steps(trainer, 60)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert trainer.running() == {"train_loss": losses[-1], "learning_rate": pytest.approx(0.05 * 0.99**59)}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_as_well_and_keeps_single_weights(tmp_path, precision):
    single, _ = tiny.begin(tmp_path / "a")
    mixed, remarks = tiny.begin(tmp_path / "b", mixed_precision=precision)
    assert [name for name, _ in remarks] == (["parameters.mllib.mixed_precision"] if precision == "fp16" else [])
    found, wanted = tiny.steps(mixed, 20), tiny.steps(single, 20)
    assert found == pytest.approx(wanted, abs=0.03)
    assert found != wanted
    assert all(each.dtype == torch.float32 for each in mixed._network.parameters())


# ---- interrupted and gone on with


def ends(folder, mllib, interrupted_at=None, library="torch"):
    """Losses, outputs and all tensors at the end of a training of 8 iterations."""
    trainer, _ = tiny.begin(folder / "first", library, **mllib)
    if interrupted_at is not None:
        tiny.steps(trainer, interrupted_at)
        trainer.keep([interrupted_at])
        state = folder / "state"
        state.mkdir()
        trainer.save_state(state)
        # What the process did in between must not matter.
        tiny.steps(trainer, 1)
        torch.rand(5)
        trainer, _ = tiny.begin(folder / "second", library, resume=state, **mllib)
        assert trainer.done == interrupted_at
    losses = tiny.steps(trainer, 8 - trainer.done)
    state = trainer._state()
    return losses[-4:], trainer.test(0)[0], flat({"network": trainer._network.state_dict(), "state": state})


def flat(value, name=""):
    """The leaves of nested containers by their path, tensors as bytes."""
    if isinstance(value, dict):
        return {path: leaf for key in value for path, leaf in flat(value[key], f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {path: leaf for at, each in enumerate(value) for path, leaf in flat(each, f"{name}/{at}").items()}
    return {name: value.numpy().tobytes() if isinstance(value, torch.Tensor) else value}


def assert_same(folder, mllib, library="torch"):
    losses, outputs, leaves = ends(folder / "whole", mllib, library=library)
    found_losses, found_outputs, found = ends(folder / "interrupted", mllib, 4, library)
    assert found_losses == losses
    assert np.array_equal(found_outputs, outputs)
    assert found == leaves


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_and_schedule_goes_on_bit_for_bit(tmp_path, solver):
    for policy in POLICIES:
        folder = tmp_path / policy
        wanted = {"iterations": 8, "solver_type": solver, "lr_policy": policy, "iter_size": 2, **SCHEDULES[policy]}
        assert_same(folder, {"dropout": 0.3, "solver": wanted})


@pytest.mark.parametrize(("library", "mllib"), [
    ("torch", {"mixed_precision": "bf16", "dropout": [0.2, 0.4]}),
    ("torch", {"bn": True, "activation": "prelu", "solver": {"solver_type": "ADAM"}}),
    ("torch", {"net": {"batch_size": 64}, "solver": {"solver_type": "SGD", "momentum": 0.9}}),
    ("torch", {"ntargets": 2, "loss": "L2", "solver": {"clip": True, "gradient_centralization": True}}),
    ("torch", {"autoencoder": True, "activation": "tanh", "solver": {"lr_dropout": 0.5, "lookahead": True}}),
    ("torch", {"template": "lregression", "solver": {"warmup_iter": 6, "warmup_lr": 1e-3}}),
    ("caffe", {"solver": {"snapshot": 3, "solver_type": "ADAMW", "weight_decay": 0.1}}),
])  # fmt: skip
def test_everything_else_goes_on_bit_for_bit_as_well(tmp_path, library, mllib):
    mllib = {**mllib, "solver": {"iterations": 8, **mllib.get("solver", {})}}
    if mllib.get("template") == "lregression":
        mllib["layers"] = []
    assert_same(tmp_path, mllib, library)


def test_models_kept_come_through_an_interruption(tmp_path):
    mllib = {"solver": {"iterations": 20, "snapshot": 4}}
    trainer, _ = tiny.begin(tmp_path / "first", **mllib)
    tiny.steps(trainer, 7)
    trainer.keep([7])
    kept = {name: tensor.clone() for name, tensor in trainer._network.state_dict().items()}
    tiny.steps(trainer, 2)
    state = tmp_path / "state"
    state.mkdir()
    trainer.save_state(state)
    other, _ = tiny.begin(tmp_path / "second", resume=state, **mllib)
    tiny.steps(other, 11)
    model = tiny.saved_model(other, tmp_path / "model")
    names = {path.name for path in model.parent.iterdir()}
    assert names == {
        *(f"checkpoint-{done}.npt" for done in (4, 7, 8, 12, 16, 20)),
        *(f"solver-{done}.pt" for done in (4, 8, 12, 16, 20)),
    }
    found = tiny.weights(model.parent / "checkpoint-7.npt")
    assert all(torch.equal(tensor, found[name]) for name, tensor in kept.items())


def test_a_state_without_kept_models_comes_through_a_store_that_keeps_files_only(tmp_path):
    trainer, _ = tiny.begin(tmp_path / "first")
    tiny.steps(trainer, 3)
    state, stored = tmp_path / "state", tmp_path / "stored"
    for each in (state, stored):
        each.mkdir()
    trainer.save_state(state)
    for path in filter(Path.is_file, state.rglob("*")):
        shutil.copy(path, stored / path.relative_to(state))
    other, _ = tiny.begin(tmp_path / "second", resume=stored)
    assert tiny.steps(other, 2) == tiny.steps(trainer, 2)


# ---- what is kept and written


def test_the_best_models_are_kept_and_superseded_ones_dropped(tmp_path):
    trainer, _ = tiny.begin(tmp_path)
    for done, best in ((3, [3]), (5, [3]), (6, [6]), (9, [6, 9]), (11, [6, 9])):
        tiny.steps(trainer, done - trainer.done)
        trainer.keep(best)
    model = tiny.saved_model(trainer, tmp_path / "model")
    assert model.name == "checkpoint-11.npt"
    names = sorted(path.name for path in model.parent.iterdir())
    assert names == ["checkpoint-11.npt", "checkpoint-6.npt", "checkpoint-9.npt", "solver-11.pt"]
    newest = max(model.parent.glob("*.npt"), key=lambda path: path.stat().st_mtime_ns)
    assert newest == model


def test_a_kept_model_has_the_weights_of_its_iteration(tmp_path):
    one, _ = tiny.begin(tmp_path / "one")
    tiny.steps(one, 6)
    one.keep([6])
    tiny.steps(one, 6)
    folder = tiny.saved_model(one, tmp_path / "a").parent
    two, _ = tiny.begin(tmp_path / "two")
    tiny.steps(two, 6)
    wanted = tiny.weights(tiny.saved_model(two, tmp_path / "b"))
    found = tiny.weights(folder / "checkpoint-6.npt")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


def test_the_same_training_writes_the_same_bytes(tmp_path):
    files = []
    for name in ("a", "b"):
        trainer, _ = tiny.begin(tmp_path / name, dropout=0.5)
        tiny.steps(trainer, 5)
        files.append(tiny.saved_model(trainer, tmp_path / name / "model").read_bytes())
    assert files[0] == files[1]


def test_caffe_has_files_of_its_own(tmp_path):
    trainer, _ = tiny.begin(tmp_path, "caffe", solver={"snapshot_prefix": "mine", "snapshot": 2})
    tiny.steps(trainer, 3)
    model = tiny.saved_model(trainer, tmp_path / "model")
    assert model.name == "mine_iter_3.caffemodel"
    assert {path.name for path in model.parent.iterdir()} == {
        "mine_iter_2.caffemodel",
        "mine_iter_2.solverstate",
        "mine_iter_3.caffemodel",
        "mine_iter_3.solverstate",
        "mlp.prototxt",
        "deploy.prototxt",
        "mlp_solver.prototxt",
    }


def test_facts_count_the_weights(tmp_path):
    trainer, _ = tiny.begin(tmp_path, bn=True)
    facts = trainer.facts()
    assert facts["params"] == (5 * 4 + 4) + 2 * 4 + (4 * 3 + 3) + 2 * 3 + (3 * 3 + 3)
    assert facts["frozen_params"] == 0
    json.dumps(facts)


# ---- what cannot be


def test_a_training_that_diverges_ends_with_its_iteration_and_what_to_do(tmp_path):
    trainer, _ = tiny.begin(tmp_path, ntargets=1, loss="L2", solver={"base_lr": 1e6})
    with pytest.raises(BadParameter) as caught:
        tiny.steps(trainer, 20)
    assert caught.value.name == "parameters.mllib.solver.base_lr"
    text = str(caught.value)
    assert "the training diverged: the loss of iteration" in text
    assert "smaller" in text
    assert "parameters.input.scale" in text


def test_weights_that_diverged_in_the_last_step_are_never_saved(tmp_path):
    trainer, _ = tiny.begin(tmp_path)
    tiny.steps(trainer, 1)
    with torch.no_grad():
        next(trainer._network.parameters())[0, 0] = np.nan
    with pytest.raises(BadParameter, match="weights after iteration 1 are not all finite"):
        tiny.saved_model(trainer, tmp_path / "model")


@pytest.mark.parametrize(("value", "text"), [(np.nan, "has no value"), (np.inf, "has the value inf")])
@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_a_missing_or_infinite_feature_is_refused_with_its_place(tmp_path, value, text, form):
    data = tiny.tables(Target("classification", classes=3))
    data.train.features[[2, 7], 3] = value
    data.train.features[30, 1] = value
    kind = DenseTable if form is np.asarray else SparseTable
    train = kind(form(data.train.features), data.train.labels, None, "train.csv")
    data = TrainingData(train, data.tests, data.fitted, {}, [])
    with pytest.raises(BadInput) as caught:
        tiny.begin(tmp_path, data=data, shuffle=False)
    assert f"column x3 of train.csv {text} in 2 of 40 rows, first in row 3, which" in str(caught.value)
    assert "ignore the column" in str(caught.value)
    with pytest.raises(BadInput, match=r"in 2 of 40 rows, which networks cannot take"):
        tiny.begin(tmp_path, data=data)


def test_test_sets_are_looked_at_too_and_rows_split_off_follow_the_others(tmp_path):
    data = tiny.tables(Target("classification", classes=3))
    data.tests[0].features[1, 0] = np.nan
    with pytest.raises(BadInput, match=r"column x0 of test\.csv has no value in 1 of 12 rows, first in row 2,"):
        tiny.begin(tmp_path, data=data, shuffle=False)
    data.tests[0].name = "split"
    with pytest.raises(BadInput, match="column x0 of split has no value in 1 of 12 rows, first in row 42,"):
        tiny.begin(tmp_path, data=data, shuffle=False)


def test_sums_that_overflow_are_no_missing_values(tmp_path):
    data = tiny.tables(Target("classification", classes=3))
    data.train.features[:] = 3e38
    tiny.begin(tmp_path, data=data)


def test_a_network_that_no_machine_holds_is_refused(tmp_path):
    from ml.errors import OutOfMemory

    with pytest.raises(OutOfMemory, match="ask for fewer or smaller layers"):
        tiny.begin(tmp_path, layers=[1_000_000, 1_000_000])


def test_more_features_than_a_network_takes_are_refused(tmp_path):
    sparse = csr_matrix((np.ones(2, np.float32), [0, 2**24], [0, 1, 2]))
    data = TrainingData(SparseTable(sparse, np.array([0, 1], np.int32), None, "a.svm"), [], tiny.Fitted(), {}, [])
    with pytest.raises(BadInput, match=r"a\.svm has 16777217 features, and networks take at most 16777216"):
        tiny.begin(tmp_path, data=data, template="lregression")


def test_a_test_for_which_memory_is_short_says_what_to_do(tmp_path, monkeypatch):
    from ml.errors import OutOfMemory

    trainer, _ = tiny.begin(tmp_path)

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer._network, "forward", full)
    with pytest.raises(OutOfMemory, match=r"net\.test_batch_size smaller"):
        trainer.test(0)


def test_a_broken_state_cannot_be_gone_on_with(tmp_path):
    trainer, _ = tiny.begin(tmp_path)
    tiny.steps(trainer, 2)
    saved, state = trainer._saved(), trainer._state()
    row = {"batches": {"pass": 0, "row": -5}}
    listed = {"solver": {**state["solver"], "optimizer": [1, 2]}}
    for change in (row, listed, {"random": {"cpu": [1]}}, {"done": 2.0}, {"done": None}):
        with pytest.raises(ModelUnusable, match="start anew without resume"):
            trainer.go_on(saved, {**state, **change})
    for part, name in itertools.product([None, {}, 3], ["solver", "random", "batches"]):
        with pytest.raises(ModelUnusable, match="start anew without resume"):
            trainer.go_on(saved, {**state, name: part})


def test_a_table_without_tests_trains_all_the_same(tmp_path):
    data = tiny.tables(Target("classification", classes=3))
    alone = TrainingData(DenseTable(data.train.features, data.train.labels, None, "t"), [], tiny.Fitted(), {}, [])
    trainer, _ = tiny.begin(tmp_path, data=alone)
    assert len(tiny.steps(trainer, 3)) == 3
