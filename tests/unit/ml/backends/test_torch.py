"""The backends torch and caffe: trainings as jobs run them, what they start from, and models put there by hand."""

import json
import os

import numpy as np
import pytest
from sklearn import datasets, linear_model, metrics
from sklearn.model_selection import train_test_split

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from ml import serving  # noqa: E402
from ml.backends import networks  # noqa: E402
from ml.connectors.source import LinesSource  # noqa: E402
from ml.errors import BadParameter, MissingExtra, ModelUnusable  # noqa: E402
from ml.options import load_prediction, load_service  # noqa: E402
from ml.registry import find  # noqa: E402
from ml.training.session import Specification, run  # noqa: E402

MODEL = {"torch": "checkpoint-{}.npt", "caffe": "model_iter_{}.caffemodel"}
STATE = {"torch": "solver-{}.pt", "caffe": "model_iter_{}.solverstate"}
LIBRARIES = ["torch", "caffe"]
#: What clients of DeepDetect look for.
RESUME_NEEDED = (
    r"requires a resume argument for training, otherwise delete existing training state files \(with clear=lib\)"
)


@pytest.fixture(autouse=True)
def _look_at_files_here(monkeypatch):
    """Model files are read in this process; the other process has tests of its own."""
    monkeypatch.setattr(networks, "inspect", lambda name, path: find(name).facts(path))


def lines(inputs, labels=None):
    columns = [f"x{each}" for each in range(inputs.shape[1])]
    if labels is None:
        return [",".join(map(repr, map(float, row))) for row in inputs]
    rows = (",".join(map(repr, [*map(float, row), float(label)])) for row, label in zip(inputs, labels, strict=True))
    return [",".join([*columns, "y"]), *rows]


def split(load, **how):
    found = load()
    return train_test_split(found.data, found.target, test_size=0.25, random_state=0, **how)


IRIS = split(datasets.load_iris)


def train(folder, library="torch", *, parts=IRIS, stop=lambda: None, previous=None, resume=None, measure=(), **mllib):
    """Train in `folder`; returns the last event and what was warned about."""
    given = {"template": "mlp", "layers": [8], "net": {"batch_size": 16}, **mllib}
    given["solver"] = {"iterations": 20, "test_interval": 5, "base_lr": 0.1, **mllib.get("solver", {})}
    if not {"ntargets", "nclasses", "autoencoder"} & mllib.keys():
        given["nclasses"] = 3
    scaled = {"scale": True, "scale_type": given.pop("scale_type", "minmax")}
    specification = {
        "task": "train-1-a1",
        "backend": library,
        "connector": "csv",
        "parameters": {
            "input": {"label": "y", "shuffle": True, "seed": 1, **scaled},
            "mllib": given,
            "output": {"measure": list(measure) or ["acc", "f1"]},
        },
        "data": [{"lines": lines(parts[0], parts[2])}, {"lines": lines(parts[1], parts[3])}],
        "scratch": str(folder),
        "resume": resume,
        "threads": 1,
        "device": "cpu",
        "checkpoint_s": 1e9,
        "previous": previous,
    }
    events = []
    run(Specification.from_json(json.loads(json.dumps(specification))), events.append, stop)
    end = events[-1]
    return end, [event["message"] for event in events if event["event"] == "warning"]


def left_by(end):
    """What the next training finds in the repository."""
    folder = end["model_folder"]
    return {"files": sorted(os.listdir(folder)), "folder": folder, "description": end["description"]}


def placed(folder, *, description=None):
    return {"files": sorted(path.name for path in folder.iterdir()), "folder": str(folder), "description": description}


def names(end):
    return {name for name in os.listdir(end["model_folder"]) if name.startswith(("checkpoint", "solver", "model_iter"))}


def series(end):
    hist = end["report"]["measure_hist"]
    return {name: values for name, values in hist.items() if name != "elapsed_time_ms_hist"}


# ---- how well it learns


@pytest.mark.parametrize("library", LIBRARIES)
def test_digits_are_told_apart(tmp_path, library):
    parts = split(datasets.load_digits)
    solver = {"iterations": 400, "test_interval": 400, "solver_type": "ADAM", "base_lr": 0.003}
    end, _ = train(tmp_path, library, parts=parts, nclasses=10, layers=[100], net={"batch_size": 64}, solver=solver)
    assert end["report"]["measure"]["acc"] >= 0.95


@pytest.mark.parametrize("template", ["mlp", "lregression"])
def test_breast_cancer_is_found(tmp_path, template):
    parts = split(datasets.load_breast_cancer, stratify=datasets.load_breast_cancer().target)
    solver = {"iterations": 300, "test_interval": 300, "solver_type": "ADAM", "base_lr": 0.01}
    layers = [50] if template == "mlp" else []
    wanted = {"nclasses": 2, "template": template, "layers": layers, "net": {"batch_size": 64}, "solver": solver}
    end, _ = train(tmp_path, parts=parts, scale_type="znorm", measure=["auc"], **wanted)
    assert end["report"]["measure"]["auc"] >= 0.98


@pytest.mark.parametrize("library", LIBRARIES)
def test_wines_are_told_apart(tmp_path, library):
    parts = split(datasets.load_wine, stratify=datasets.load_wine().target)
    end, _ = train(tmp_path, library, parts=parts, scale_type="znorm", solver={"iterations": 300})
    assert end["report"]["measure"]["acc"] >= 0.97


@pytest.mark.parametrize("template", ["mlp", "lregression"])
def test_diabetes_is_predicted_no_worse_than_by_a_linear_model(tmp_path, template):
    parts = split(datasets.load_diabetes)
    linear = linear_model.LinearRegression().fit(parts[0], parts[2])
    error = metrics.mean_absolute_error(parts[3], linear.predict(parts[1]))
    wanted = {"ntargets": 1, "loss": "L2", "template": template, "layers": [50], "net": {"batch_size": 64}}
    solver = {"iterations": 400, "solver_type": "ADAM", "base_lr": 0.003}
    if template == "lregression":
        # All rows at once, and a learning rate that falls to zero: what is left to find is the linear model itself.
        wanted |= {"layers": [], "net": {"batch_size": len(parts[0])}}
        solver |= {"iterations": 800, "base_lr": 1.0, "lr_policy": "poly"}
    end, _ = train(tmp_path, parts=parts, scale_type="znorm", measure=["eucll"], **wanted, solver=solver)
    found = end["report"]["measure"]["eucll"]
    assert found <= error if template == "mlp" else found == pytest.approx(error, rel=5e-3)


# ---- what a job leaves


@pytest.mark.parametrize(("library", "first"), [("torch", 1), ("caffe", 0)])
def test_a_training_counts_and_names_as_its_library_does(tmp_path, library, first):
    end, warnings = train(tmp_path, library, solver={"snapshot": 8})
    assert warnings == []
    assert (end["event"], end["iteration"]) == ("finished", 19 + first)
    assert end["report"]["measure_hist"]["iteration_hist"] == [5, 10, 15, 19 + first]
    assert len(end["report"]["measure_hist"]["train_loss_hist"]) == 20
    measure = end["report"]["measure"]
    assert measure["train_loss"] == end["report"]["measure_hist"]["train_loss_hist"][-1]
    assert measure["learning_rate"] == 0.1
    best = end["report"]["best"]["iteration"]
    assert names(end) == {MODEL[library].format(done) for done in (8, 16, 20, best)} | {
        STATE[library].format(done) for done in (8, 16, 20)
    }
    assert end["description"]["file"] == MODEL[library].format(20)
    assert end["description"]["params"] == (4 * 8 + 8) + (8 * 3 + 3)
    assert end["description"]["frozen_params"] == 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_predicts_what_it_was_measured_with(tmp_path, library):
    end, _ = train(tmp_path, library)
    model = serving.load(tmp_path / "model", end["description"])
    parameters = {"mllib": {"nclasses": 3}, "output": {"best": 1}}
    options = load_prediction(library, "csv", parameters).value
    found = model.predict([LinesSource(tuple(lines(IRIS[1])))], options).predictions
    right = [float(each["classes"][0]["cat"]) == label for each, label in zip(found, IRIS[3], strict=True)]
    assert np.mean(right) == pytest.approx(end["report"]["measure"]["acc"])


def test_a_cancelled_training_is_named_by_the_iterations_done(tmp_path):
    class Stop:
        asked = 0

        def __call__(self):
            self.asked += 1
            return "cancel" if self.asked > 8 else None

    end, _ = train(tmp_path, stop=Stop())
    done = end["description"]["rounds"]
    assert (end["event"], end["iteration"]) == ("cancelled", done)
    assert 0 < done < 20
    assert end["description"]["file"] == f"checkpoint-{done}.npt"
    assert f"solver-{done}.pt" in names(end)


@pytest.mark.parametrize("library", LIBRARIES)
def test_paused_and_resumed_is_the_same_as_uninterrupted(tmp_path, library):
    class Stop:
        asked = 0

        def __call__(self):
            self.asked += 1
            return "pause" if self.asked > 12 else None

    wanted = {"dropout": 0.2, "solver": {"solver_type": "RANGER_PLUS", "snapshot": 6}}
    paused, _ = train(tmp_path / "one", library, stop=Stop(), **wanted)
    assert paused["event"] == "paused"
    resumed, _ = train(tmp_path / "two", library, resume=paused["folder"], **wanted)
    whole, _ = train(tmp_path / "three", library, **wanted)
    assert series(resumed) == series(whole)
    assert resumed["report"]["best"] == whole["report"]["best"]
    assert names(resumed) == names(whole)
    for name in names(whole):
        if name.endswith((".npt", ".caffemodel")):
            files = [(tmp_path / each / "model" / name).read_bytes() for each in ("two", "three")]
            assert files[0] == files[1], name


# ---- what a training starts from


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_training_that_its_user_resumes_goes_on_as_if_it_had_never_ended(tmp_path, library):
    wanted = {"dropout": 0.2, "bn": True}
    solver = {"solver_type": "ADAM", "test_interval": 4}
    first, _ = train(tmp_path / "one", library, **wanted, solver={**solver, "iterations": 12})
    resumed = {**solver, "resume": True}
    second, _ = train(tmp_path / "two", library, previous=left_by(first), **wanted, solver=resumed)
    whole, _ = train(tmp_path / "three", library, **wanted, solver=solver)
    hist, all_at_once = series(second), series(whole)
    assert hist["train_loss_hist"] == all_at_once["train_loss_hist"]
    assert hist["acc_hist"][-2:] == all_at_once["acc_hist"][-2:]
    assert STATE[library].format(20) in names(second)
    assert STATE[library].format(12) not in names(second)
    best = second["report"]["best"]["iteration"]
    assert MODEL[library].format(best) in names(second)


def test_a_training_resumed_with_other_inputs_is_told_so(tmp_path):
    first, _ = train(tmp_path / "one")
    halved = (IRIS[0] / 2, IRIS[1] / 2, *IRIS[2:])
    _, warnings = train(tmp_path / "two", parts=halved, previous=left_by(first), solver={"resume": True})
    assert any("had other inputs: the bounds of the scaling changed" in each for each in warnings), warnings
    _, warnings = train(tmp_path / "three", previous=left_by(first), solver={"resume": True})
    assert not any("had other inputs" in each for each in warnings), warnings


def test_snapshots_and_the_best_model_survive_a_resumed_training_and_the_former_end_does_not(tmp_path):
    first, _ = train(tmp_path / "one", solver={"iterations": 10, "snapshot": 4, "base_lr": 1e-9})
    best = first["report"]["best"]["iteration"]
    assert best == 5
    second, _ = train(tmp_path / "two", previous=left_by(first), resume=None, solver={"resume": True, "base_lr": 1e-9})
    assert second["report"]["best"]["iteration"] == best
    assert names(second) == {
        *(f"checkpoint-{done}.npt" for done in (4, 5, 8, 20)),
        *(f"solver-{done}.pt" for done in (4, 8, 20)),
    }
    for name in ("checkpoint-5.npt", "solver-8.pt"):
        assert (tmp_path / "one/model" / name).read_bytes() == (tmp_path / "two/model" / name).read_bytes()


def test_a_training_that_is_done_already_is_only_tested(tmp_path):
    first, _ = train(tmp_path / "one")
    second, _ = train(tmp_path / "two", previous=left_by(first), solver={"resume": True, "iterations": 15})
    assert second["iteration"] == 20
    assert second["report"]["measure"]["acc"] == first["report"]["measure"]["acc"]
    assert second["report"]["measure"]["train_loss"] == first["report"]["measure"]["train_loss"]
    files = [(tmp_path / each / "model/checkpoint-20.npt").read_bytes() for each in ("one", "two")]
    assert files[0] == files[1]


def test_resuming_may_pass_over_some_rows(tmp_path):
    first, _ = train(tmp_path / "one")
    ends = []
    for rows in (0, 1000):
        solver = {"resume": True, "iterations": 30, "rand_skip": rows}
        end, _ = train(tmp_path / str(rows), previous=left_by(first), solver=solver)
        ends.append(end["report"]["measure_hist"]["train_loss_hist"])
    assert ends[0][:20] == ends[1][:20]
    assert ends[0][20:] != ends[1][20:]


@pytest.mark.parametrize("library", LIBRARIES)
def test_resuming_needs_a_state_and_a_state_needs_resuming(tmp_path, library):
    first, _ = train(tmp_path / "one", library)
    with pytest.raises(BadParameter, match=RESUME_NEEDED):
        train(tmp_path / "two", library, previous=left_by(first))
    for name in os.listdir(tmp_path / "one/model"):
        if "solver" in name and not name.endswith("prototxt"):
            (tmp_path / "one/model" / name).unlink()
    for previous in (None, left_by(first)):
        with pytest.raises(BadParameter, match="resuming a model requires a solverstate"):
            train(tmp_path / "three", library, previous=previous, solver={"resume": True})


@pytest.mark.parametrize(
    ("mllib", "text"),
    [
        ({"layers": [9]}, "has hidden layers \\[8\\], the training asks for hidden layers \\[9\\]"),
        ({"nclasses": 4}, "has 3 outputs, the training asks for 4 outputs"),
        ({"bn": True}, "has no batch normalisation, the training asks for batch normalisation"),
        ({"activation": "tanh"}, "has the activation relu, the training asks for the activation tanh"),
        ({"activation": "prelu"}, "has the activation relu, the training asks for the activation prelu"),
    ],
)
def test_a_training_of_another_network_cannot_be_resumed(tmp_path, mllib, text):
    first, _ = train(tmp_path / "one")
    with pytest.raises(BadParameter, match=text):
        train(tmp_path / "two", previous=left_by(first), solver={"resume": True}, **mllib)


def test_a_state_without_its_network_cannot_be_resumed(tmp_path):
    first, _ = train(tmp_path / "one")
    (tmp_path / "one/model/checkpoint-20.npt").unlink()
    with pytest.raises(ModelUnusable, match=r"checkpoint-20\.npt is not in the repository"):
        train(tmp_path / "two", previous=left_by(first), solver={"resume": True})


def test_without_a_template_a_resumed_training_has_the_network_it_had(tmp_path):
    first, _ = train(tmp_path / "one", layers=[6, 5], activation="tanh")
    wanted = {"template": "", "layers": [], "solver": {"resume": True, "iterations": 25}}
    second, _ = train(tmp_path / "two", previous=left_by(first), **wanted)
    assert second["description"]["template"] == "mlp"
    assert second["description"]["params"] == first["description"]["params"]
    _, warnings = train(tmp_path / "again", previous=left_by(first), **wanted, activation="elu", dropout=0.5)
    assert [each.split(":")[0] for each in warnings] == [
        "parameters.mllib.dropout was ignored", "parameters.mllib.activation was ignored"
    ]  # fmt: skip
    with pytest.raises(BadParameter, match="template is missing; name the network to train, one of lregression, mlp"):
        train(tmp_path / "three", template="", layers=[])


@pytest.fixture
def weights(tmp_path):
    """A folder with the weights of a training and nothing else."""
    end, _ = train(tmp_path / "first", solver={"iterations": 200, "base_lr": 0.5})
    folder = tmp_path / "weights"
    folder.mkdir()
    file = end["description"]["file"]
    (folder / file).write_bytes((tmp_path / "first/model" / file).read_bytes())
    return folder


def read(path):
    return torch.load(path, weights_only=True)["weights"]


def test_weights_put_into_a_repository_are_what_a_training_starts_from(tmp_path, weights):
    _, warnings = train(tmp_path / "two", previous=placed(weights), solver={"iterations": 1, "base_lr": 1e-9})
    before, after = read(weights / "checkpoint-200.npt"), read(tmp_path / "two/model/checkpoint-1.npt")
    assert all(torch.allclose(after[name], tensor, atol=1e-6) for name, tensor in before.items())
    assert any("starts from the weights that lie in the repository" in each for each in warnings)
    with pytest.raises(BadParameter, match=r"has 3 outputs, the training asks for 4 outputs; give .*finetuning"):
        train(tmp_path / "three", previous=placed(weights), nclasses=4)
    with pytest.raises(BadParameter, match="has 4 inputs, the training asks for 30 inputs"):
        train(tmp_path / "four", previous=placed(weights), parts=split(datasets.load_breast_cancer))


@pytest.mark.parametrize("change", [{"activation": "magic"}, {"activation": []}, {"hidden": [-1]}, {"more": 1}])
def test_a_file_with_a_structure_that_is_none_starts_no_training(tmp_path, weights, change):
    content = torch.load(weights / "checkpoint-200.npt", weights_only=True)
    content["structure"] |= change
    torch.save(content, weights / "checkpoint-200.npt")
    with pytest.raises(ModelUnusable, match="tells of no network"):
        train(tmp_path / "two", previous=placed(weights), template="", layers=[])


def test_no_hidden_layer_no_activation_to_be_the_same(tmp_path):
    end, _ = train(tmp_path / "one", template="lregression", layers=[])
    wanted = {"template": "lregression", "layers": [], "activation": "tanh", "solver": {"resume": True}}
    train(tmp_path / "two", previous=left_by(end), **wanted)


def test_finetuning_keeps_what_fits_and_begins_the_rest_anew(tmp_path, weights):
    wanted = {"finetuning": True, "solver": {"iterations": 1, "base_lr": 1e-9}}
    before = read(weights / "checkpoint-200.npt")
    _, warnings = train(tmp_path / "same", previous=placed(weights), **wanted)
    assert warnings == []
    after = read(tmp_path / "same/model/checkpoint-1.npt")
    assert all(torch.allclose(after[name], tensor, atol=1e-6) for name, tensor in before.items())
    _, warnings = train(tmp_path / "other", previous=placed(weights), nclasses=5, **wanted)
    assert warnings == []
    after = read(tmp_path / "other/model/checkpoint-1.npt")
    assert torch.allclose(after["ip0.weight"], before["ip0.weight"], atol=1e-6)
    assert after["ip1.weight"].shape == (5, 8)
    _, warnings = train(tmp_path / "deeper", previous=placed(weights), layers=[8, 7], **wanted)
    assert warnings == ["of the weights in the repository, these layers do not fit and start anew: ip1"]
    with pytest.raises(BadParameter, match="no layer of the model in the repository fits"):
        train(tmp_path / "none", previous=placed(weights), layers=[9], nclasses=5, finetuning=True)
    with pytest.raises(BadParameter, match="there are no weights to start from"):
        train(tmp_path / "nothing", finetuning=True)


def test_frozen_layers_hold_still_while_the_last_one_learns(tmp_path, weights):
    end, _ = train(tmp_path / "two", previous=placed(weights), finetuning=True, freeze_traced=True, nclasses=5)
    before, after = read(weights / "checkpoint-200.npt"), read(tmp_path / "two/model/checkpoint-20.npt")
    assert torch.equal(after["ip0.weight"], before["ip0.weight"])
    assert end["description"]["frozen_params"] == 4 * 8 + 8
    assert end["description"]["params"] == 4 * 8 + 8 + 8 * 5 + 5


def test_a_finetuning_with_frozen_layers_is_resumed_as_if_it_had_never_ended(tmp_path, weights):
    wanted = {"finetuning": True, "freeze_traced": True, "nclasses": 5, "dropout": 0.3}
    train(tmp_path / "whole", previous=placed(weights), **wanted)
    half, _ = train(tmp_path / "half", previous=placed(weights), solver={"iterations": 10}, **wanted)
    end, _ = train(tmp_path / "rest", previous=left_by(half), solver={"resume": True}, **wanted)
    assert end["description"]["frozen_params"] == 4 * 8 + 8
    whole, rest = (read(tmp_path / each / "model/checkpoint-20.npt") for each in ("whole", "rest"))
    assert all(torch.equal(rest[name], tensor) for name, tensor in whole.items())
    with pytest.raises(BadParameter, match="has 5 outputs, the training asks for 4 outputs"):
        train(tmp_path / "other", previous=left_by(half), solver={"resume": True}, **{**wanted, "nclasses": 4})


def test_a_caffemodel_is_finetuned_as_well(tmp_path):
    train(tmp_path / "one", "caffe")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "foreign.caffemodel").write_bytes((tmp_path / "one/model/model_iter_20.caffemodel").read_bytes())
    end, _ = train(tmp_path / "two", "caffe", previous=placed(folder), finetuning=True, nclasses=7)
    assert end["description"]["file"] == "model_iter_20.caffemodel"


# ---- models put there by hand


def service(library, folder, **mllib):
    body = {
        "mllib": library,
        "model": {"repository": str(folder)},
        "parameters": {"input": {"connector": "csv", "scale": False}, "mllib": {"nclasses": 3, **mllib}, "output": {}},
    }
    return load_service(body).value


def predicted(library, folder, described, rows, **mllib):
    model = serving.load(folder, described)
    parameters = {"input": {}, "mllib": {"nclasses": 3, **mllib}, "output": {"best": -1}}
    options = load_prediction(library, "csv", parameters).value
    found = model.predict([LinesSource(tuple(lines(rows)))], options).predictions
    return np.array([[prob["prob"] for prob in sorted(each["classes"], key=lambda one: one["cat"])] for each in found])


ROWS = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)


def test_our_own_file_alone_is_served(tmp_path, weights):
    described = serving.describe_folder(weights, service("torch", weights))
    assert (described["file"], described["template"], described["params"]) == ("checkpoint-200.npt", "mlp", 67)
    network = read(weights / "checkpoint-200.npt")
    hidden = np.maximum(ROWS @ network["ip0.weight"].numpy().T + network["ip0.bias"].numpy(), 0)
    raw = torch.from_numpy(hidden @ network["ip1.weight"].numpy().T + network["ip1.bias"].numpy())
    found = predicted("torch", weights, described, ROWS)
    assert found == pytest.approx(torch.softmax(raw, dim=1).numpy(), abs=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_state_dictionary_of_somebody_else_is_served_with_the_activation_of_the_service(tmp_path, activation):
    torch.manual_seed(2)
    other = nn.Sequential(nn.Linear(4, 6), nn.ReLU() if activation == "relu" else nn.Tanh(), nn.Linear(6, 3))
    torch.save(other.state_dict(), tmp_path / "mine.pt")
    wanted = {} if activation == "relu" else {"activation": activation}
    described = serving.describe_folder(tmp_path, service("torch", tmp_path, template="mlp", **wanted))
    json.dumps(described)
    raw = torch.softmax(other(torch.from_numpy(ROWS)), dim=1).detach().numpy()
    assert predicted("torch", tmp_path, described, ROWS) == pytest.approx(raw, abs=1e-6)


def test_a_caffemodel_is_served(tmp_path):
    end, _ = train(tmp_path / "one", "caffe", bn=True)
    folder = tmp_path / "hand"
    folder.mkdir()
    (folder / "net.caffemodel").write_bytes((tmp_path / "one/model/model_iter_20.caffemodel").read_bytes())
    described = serving.describe_folder(folder, service("caffe", folder))
    own = serving.load(tmp_path / "one/model", end["description"])
    found = predicted("caffe", folder, described, ROWS)
    assert found == pytest.approx(own._engine.predict(ROWS), abs=1e-6)


def test_the_newest_file_is_served_and_states_of_solvers_are_none(tmp_path, weights):
    older = weights / "checkpoint-900.npt"
    older.write_bytes(b"broken, but old")
    (weights / "solver-999.pt").write_bytes(b"no model")
    os.utime(older, (1, 1))
    assert serving.describe_folder(weights, service("torch", weights))["file"] == "checkpoint-200.npt"


@pytest.mark.parametrize(
    ("mllib", "text"),
    [
        ({"nclasses": 4}, "gives 3 values, parameters.mllib.nclasses is 4"),
        ({"nclasses": None, "ntargets": 3}, "was trained for classification, the service is for regression"),
        ({"template": "lregression"}, "of the template mlp, parameters.mllib.template is lregression"),
        ({"template": "mlp", "layers": [9]}, r"hidden layers of \[8\] units, parameters.mllib.layers is \[9\]"),
    ],
)
def test_a_model_that_does_not_fit_the_service_is_refused(weights, mllib, text):
    with pytest.raises(ModelUnusable, match=text):
        serving.describe_folder(weights, service("torch", weights, **mllib))


def test_a_folder_without_a_model_is_refused_with_an_example(tmp_path):
    for library, example in (("torch", "checkpoint-100.npt"), ("caffe", "model_iter_100.caffemodel")):
        with pytest.raises(ModelUnusable, match=example):
            serving.describe_folder(tmp_path, service(library, tmp_path))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    torch.save(layer.state_dict(), tmp_path / "a.pt")
    with pytest.raises(ModelUnusable, match="not all finite"):
        serving.describe_folder(tmp_path, service("torch", tmp_path))


def test_a_description_that_does_not_fit_its_file_is_refused(weights):
    described = serving.describe_folder(weights, service("torch", weights))
    target = {**described["target"], "classes": 9}
    with pytest.raises(ModelUnusable, match="does not give what its description says"):
        serving.load(weights, {**described, "target": target})


def test_without_torch_the_error_names_the_extra(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(networks, "import_module", missing)
    for library in LIBRARIES:
        with pytest.raises(MissingExtra, match=r"modelyard\[torch\]"):
            find(library).warm()


# ---- predictions


def test_layers_and_binary_values_are_answered(tmp_path):
    end, _ = train(tmp_path)
    model = serving.load(tmp_path / "model", end["description"])
    source = [LinesSource(tuple(lines(IRIS[1][:3])))]
    parameters = {"mllib": {"nclasses": 3, "extract_layer": "ip0"}, "output": {"binarized": True}}
    found = model.predict(source, load_prediction("torch", "csv", parameters).value).predictions
    assert [len(each["vals"]) for each in found] == [8, 8, 8]
    assert {value for each in found for value in each["vals"]} <= {0.0, 1.0}
    options = load_prediction("torch", "csv", {"mllib": {"nclasses": 3}}, type="unsupervised").value
    assert [len(each["vals"]) for each in model.predict(source, options).predictions] == [3, 3, 3]


def test_the_temperature_of_the_training_is_remembered_and_that_of_a_request_wins(tmp_path):
    end, _ = train(tmp_path, scaling_temperature=5.0)
    flat = predicted("torch", tmp_path / "model", end["description"], ROWS)
    sharp = predicted("torch", tmp_path / "model", end["description"], ROWS, scaling_temperature=1.0)
    raw = np.log(sharp) / 5
    assert flat == pytest.approx(np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True), abs=1e-5)
