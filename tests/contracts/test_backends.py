"""One suite for every backend: it describes itself, trains, resumes exactly, is loaded, predicts, refuses."""

import hashlib
import json

import pytest
from sklearn import datasets, metrics, model_selection

from ml import registry, serving
from ml.connectors.source import LinesSource
from ml.errors import BadInput, BadParameter, MlError, ModelUnusable
from ml.options import load_prediction, load_service, load_training
from ml.options.catalog import libraries
from ml.training.session import Specification, run

_NETWORK = {
    "classes": {"template": "mlp", "layers": [16], "net": {"batch_size": 32}},
    "numbers": {"template": "mlp", "layers": [16], "net": {"batch_size": 64}, "loss": "L2"},
    "draws": {"dropout": 0.3},
    "solver": {"iterations": 300, "solver_type": "ADAM", "base_lr": 0.01},
}
#: What each backend needs to learn something small, and what makes it draw random numbers; a new backend adds its line.
SMALL = {
    "xgboost": {
        "classes": {"iterations": 15},
        "numbers": {"iterations": 40, "booster_params": {"max_depth": 3, "eta": 0.1}},
        "draws": {"booster_params": {"subsample": 0.7}},
    },
    "torch": _NETWORK,
    "caffe": _NETWORK,
}
BACKENDS = [name for name, backend in registry.listed().items() if backend.INFO.trains]

SETS = {
    "iris": (datasets.load_iris, {"nclasses": 3}),
    "wine": (datasets.load_wine, {"nclasses": 3}),
    "breast cancer": (datasets.load_breast_cancer, {"nclasses": 2}),
    "diabetes": (datasets.load_diabetes, {"ntargets": 1, "regression": True}),
}


def csv_lines(name):
    bunch = SETS[name][0]()
    header = ",".join([*(f"f{each}" for each in range(bunch.data.shape[1])), "y"])
    return [header] + [
        ",".join(map(repr, [*map(float, row), float(y)])) for row, y in zip(bunch.data, bunch.target, strict=True)
    ]


def parameters(backend, name, **mllib):
    kind = "numbers" if "ntargets" in SETS[name][1] else "classes"
    measure = ["eucll", "l1"] if kind == "numbers" else ["acc", "f1", "mcll", "cmdiag"]
    options = {**SETS[name][1], **SMALL[backend][kind], "test_interval": 5, **mllib}
    scaled = {}
    if "solver" in SMALL[backend]:
        # Networks have these among the options of their solver, and learn badly from columns of different sizes.
        moved = {key: options.pop(key) for key in ("iterations", "test_interval") if key in options}
        options["solver"] = {**SMALL[backend]["solver"], **moved}
        scaled = {"scale": name != "iris", "scale_type": "znorm"}
    return {
        "input": {"label": "y", "shuffle": True, "seed": 11, "test_split": 0.25, **scaled},
        "mllib": options,
        "output": {"measure": measure},
    }


def train(backend, name, folder, stop=lambda: None, resume=None, **mllib):
    events = []
    given = {
        "task": "train-1-a1",
        "backend": backend,
        "connector": "csv",
        "parameters": parameters(backend, name, **mllib),
        "data": [{"lines": csv_lines(name)}],
        "scratch": str(folder),
        "resume": resume,
        "threads": 1,
        "device": "cpu",
        "checkpoint_s": 1e9,
    }
    run(Specification.from_json(json.loads(json.dumps(given))), events.append, stop)
    return events


class PauseAfter:
    def __init__(self, iterations):
        self.left = iterations + 1  # the session asks once more before the first iteration

    def __call__(self):
        self.left -= 1
        return "pause" if self.left < 0 else None


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_a_backend_describes_itself(backend):
    info = registry.find(backend).INFO
    assert info.name == backend
    assert info.files
    assert all(ending.startswith(".") for ending in info.files)
    assert set(info.devices) <= {"cpu", "cuda"}
    assert "cpu" in info.devices
    assert info.extra == libraries()[backend].extra
    assert backend in SMALL


@pytest.mark.parametrize(("name", "least"), [("iris", 0.9), ("wine", 0.93), ("breast cancer", 0.93)])
def test_classes_are_learned_as_well_as_a_library_of_reference_learns_them(backend, tmp_path, name, least):
    report = train(backend, name, tmp_path)[-1]["report"]
    features, labels = SETS[name][0](return_X_y=True)
    from sklearn.ensemble import GradientBoostingClassifier

    peer = model_selection.cross_val_score(
        GradientBoostingClassifier(n_estimators=15, random_state=0), features, labels, cv=4
    ).mean()
    assert report["measure"]["acc"] >= min(least, peer - 0.05)
    assert report["mltype"] == "classification"


def test_numbers_are_learned_as_well_as_a_library_of_reference_learns_them(backend, tmp_path):
    report = train(backend, "diabetes", tmp_path)[-1]["report"]
    features, labels = datasets.load_diabetes(return_X_y=True)
    from sklearn.ensemble import GradientBoostingRegressor

    guessed = model_selection.cross_val_predict(
        GradientBoostingRegressor(n_estimators=40, random_state=0), features, labels, cv=4
    )
    assert report["measure"]["eucll"] <= metrics.mean_absolute_error(labels, guessed) * 1.15
    assert report["mltype"] == "regression"


@pytest.mark.parametrize("draws", [False, True])
@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_a_resumed_training_equals_an_uninterrupted_one(backend, tmp_path, name, draws):
    extra = SMALL[backend]["draws"] if draws else {}
    whole = train(backend, name, tmp_path / "whole", **extra)[-1]
    paused = train(backend, name, tmp_path / "first", PauseAfter(7), **extra)[-1]
    assert paused["event"] == "paused"
    assert 6 <= paused["iteration"] < whole["iteration"]  # a backend may need a few more iterations to pause
    resumed = train(backend, name, tmp_path / "second", resume=paused["folder"], **extra)[-1]
    for end in (resumed, whole):
        end["report"]["measure_hist"].pop("elapsed_time_ms_hist", None)  # the one series that tells the time
    for part in ("measure", "measure_hist", "best"):
        assert resumed["report"][part] == whole["report"][part]
    digests = [
        hashlib.sha256((tmp_path / part / "model" / end["description"]["file"]).read_bytes()).hexdigest()
        for part, end in (("whole", whole), ("second", resumed))
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_a_loaded_model_predicts_what_training_measured(backend, tmp_path, name):
    end = train(backend, name, tmp_path)[-1]
    model = serving.load(tmp_path / "model", end["description"])
    assert model.bytes > 0
    options = load_prediction(backend, "csv", {"output": {"measure": parameters(backend, name)["output"]["measure"]}})
    lines = csv_lines(name)
    whole = model.predict([LinesSource(tuple(lines))], options.value).measure
    assert whole.keys() >= {"acc", "f1"} or whole.keys() >= {"eucll"}
    plain = model.predict([LinesSource(tuple(lines[:3]))], load_prediction(backend, "csv", {}).value)
    assert [each["uri"] for each in plain.predictions] == ["1", "2"]


def test_a_bare_model_file_is_recognised(backend, tmp_path):
    end = train(backend, "iris", tmp_path / "trained")[-1]
    (tmp_path / "bare").mkdir()
    file = end["description"]["file"]
    (tmp_path / "bare" / file).write_bytes((tmp_path / "trained" / "model" / file).read_bytes())
    body = {
        "mllib": backend,
        "model": {"repository": "r"},
        "parameters": {"input": {"connector": "csv"}, "mllib": SETS["iris"][1]},
    }
    description = serving.describe_folder(tmp_path / "bare", load_service(body).value)
    one = serving.load(tmp_path / "bare", description)
    other = serving.load(tmp_path / "trained" / "model", end["description"])
    rows = [LinesSource(tuple(line.rsplit(",", 1)[0] for line in csv_lines("iris")[1:9]))]
    options = load_prediction(backend, "csv", {"output": {"best": -1}}).value
    assert one.predict(rows, options).predictions == other.predict(rows, options).predictions


def test_a_broken_model_file_cannot_hurt_this_process(backend, tmp_path):
    body = {
        "mllib": backend,
        "model": {"repository": "r"},
        "parameters": {"input": {"connector": "csv"}, "mllib": SETS["iris"][1]},
    }
    options = load_service(body).value
    with pytest.raises(ModelUnusable):
        serving.describe_folder(tmp_path, options)
    for content in (b"", b"\0" * 100):
        (tmp_path / f"0001{registry.find(backend).INFO.files[0]}").write_bytes(content)
        with pytest.raises(ModelUnusable):
            serving.describe_folder(tmp_path, options)


def test_a_cancelled_training_leaves_a_model_that_predicts(backend, tmp_path):
    class Cancel(PauseAfter):
        def __call__(self):
            return "cancel" if super().__call__() else None

    end = train(backend, "iris", tmp_path, Cancel(2))[-1]
    assert (end["event"], end["iteration"]) == ("cancelled", 1 + registry.find(backend).INFO.first_iteration)
    model = serving.load(tmp_path / "model", end["description"])
    options = load_prediction(backend, "csv", {}).value
    assert len(model.predict([LinesSource(tuple(csv_lines("iris")))], options).predictions) == 150


@pytest.mark.parametrize(
    ("mllib", "error"),
    [
        ({"iterations": "many"}, BadParameter),
        ({"iterations": -1}, BadParameter),
        ({"nclasses": None}, BadParameter),
        ({"nclasses": 2}, BadInput),
    ],
)
def test_bad_options_are_refused_before_any_training(backend, tmp_path, mllib, error):
    with pytest.raises(error) as caught:
        train(backend, "iris", tmp_path, **mllib)
    assert isinstance(caught.value, MlError)
    assert not (tmp_path / "model").exists()


def test_unknown_options_are_warnings(backend):
    loaded = load_training(backend, "csv", parameters(backend, "iris", unheard_of=1))
    assert [warning.parameter for warning in loaded.warnings] == ["parameters.mllib.unheard_of"]


def test_progress_is_told_at_most_five_times_a_second(backend, tmp_path):
    events = train(backend, "iris", tmp_path, iterations=300, test_interval=1000)
    progress = [event for event in events if event["event"] == "progress"]
    assert 2 <= len(progress) <= 2 + 5 * (events[-1]["seconds"]["training"] + 0.2)
