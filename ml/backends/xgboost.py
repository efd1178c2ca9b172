"""XGBoost: boosted trees and linear models on tables.

Resuming is exact, to the bit. Three facts of the library (3.2) decide how:

- Without random draws a saved model goes on exactly as if nothing had happened.
- Row sampling, column sampling and dart draw from a global generator and from one inside each tree updater; neither
  is saved with a model. So a training that draws goes in blocks of iterations: at the start of each block, in *every*
  run, the global generator is seeded with `seed + iteration` and the updaters are made anew (by naming another tree
  method and the right one again). A block then depends on its first iteration alone, and a checkpoint between blocks
  is exact. This costs 0.3 to 0.6 ms, so blocks have one iteration where that does not count, and several where
  iterations are that short.
- `approx` with an objective of constant hessian sketches its bins once, from the first sampled rows. A resumed
  training therefore runs that first iteration once more on a booster that is thrown away, to get the same bins.

Tables on disk are cut into the same bins whenever their chunks are the same, so all this holds for them too. What
xgboost computes from bins is what it computes from numbers, as long as the splits of a tree are borders of these bins;
so a model that goes on with other data than it was made of gets first predictions there that are near, not exact.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.backends.base import BackendInfo, Previous, target_of
from ml.backends.inspection import inspect
from ml.backends.resuming import check_same_data, refusal
from ml.backends.xgboost_dense import DensePredictor
from ml.backends.xgboost_matrices import (
    Rows,
    cells,
    give_memory_back,
    in_memory,
    is_in_memory,
    mover,
    on_disk,
    steps,
)
from ml.errors import BadInput, BadParameter, MissingExtra, MlError, ModelUnusable, OutOfMemory
from ml.options.requests import ServiceOptions, TrainingOptions
from ml.options.target import Target
from ml.options.xgboost import CLASSIFICATION, REGRESSION, SOFT_LABELS, BoosterOptions, XGBoostOptions, used
from ml.tables import Table, TrainingData

INFO = BackendInfo(
    name="xgboost",
    files=(".model",),
    trains=True,
    devices=("cpu", "cuda"),
    extra="xgboost",
    test_sets_max=None,
)

_STATE_FILE = "booster.ubj"
_KEPT_FOLDER = "kept"


#: Iterations of a block, when rows x columns x trees of an iteration are fewer than this; otherwise 1.
SMALL_BLOCK = 8
SMALL_WORK = 4_000_000

#: Libraries that xgboost imports when they are there, only to offer classes in their style.
_NOT_NEEDED = ("sklearn", "pandas")


def _library() -> Any:
    """The library itself. Raises MissingExtra."""
    # Without them the import takes a quarter of the time and half of the memory.
    hidden = [] if "xgboost" in sys.modules else [name for name in _NOT_NEEDED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import xgboost
    except ModuleNotFoundError:
        raise MissingExtra("xgboost", INFO.extra) from None
    finally:
        for name in hidden:
            del sys.modules[name]
    return xgboost


def warm() -> None:
    """Import the library and let it set up what it sets up on first use. Raises MissingExtra."""
    xgboost = _library()
    tiny = xgboost.DMatrix(np.zeros((2, 1), np.float32), label=np.array([0.0, 1.0], np.float32), nthread=1)
    booster = xgboost.Booster({"nthread": 1, "objective": "binary:logistic"}, [tiny])
    booster.update(tiny, 0)
    booster.predict(tiny)
    booster.save_raw("ubj")


def parameters(options: XGBoostOptions, *, threads: int, device: str, inputs: Sequence[str]) -> dict[str, Any]:
    """The parameters for `xgboost.Booster`; what was left at its default is left to xgboost.

    inputs : names of the features. Raises BadParameter for constraints on others.
    """
    given: dict[str, Any] = {
        "objective": options.effective_objective,
        "booster": options.booster,
        "seed": options.seed,
        "nthread": threads,
        "device": device,
        "verbosity": 1,
    }
    target = options.target
    if options.effective_objective == "multi:softprob":
        given["num_class"] = options.nclasses
    if options.base_score:
        several = {"classification": 1, "regression": target.targets}.get(target.kind, target.classes)
        scores = list(options.base_score)
        given["base_score"] = scores * several if len(scores) == 1 < several else scores
    if options.eval_metric:
        given["eval_metric"] = list(options.eval_metric)
    else:
        given["disable_default_eval_metric"] = True
    for name in used(options):
        key = BoosterOptions.__dataclass_fields__[name].metadata["key"] or name
        value = getattr(options.booster_params, name)
        if name == "monotone_constraints":
            signs = dict(zip(_places(name, value, inputs), value.values(), strict=True))
            value = "(" + ",".join(str(signs.get(place, 0)) for place in range(max(signs, default=-1) + 1)) + ")"
        elif name == "interaction_constraints":
            value = json.dumps([_places(name, group, inputs) for group in value])
        given[key] = value
    if options.booster == "gblinear":
        # The default updater, shotgun, gives other numbers each time it runs with several threads.
        given["updater"] = "coord_descent"
    return given


def _places(option: str, names: Collection[str], inputs: Sequence[str]) -> list[int]:
    """Positions of some features among all."""
    places = {name: place for place, name in enumerate(inputs)}
    for name in names:
        if name not in places:
            path = f"parameters.mllib.booster_params.{option}"
            known = ", ".join(inputs[:10]) + (" and more" if len(inputs) > 10 else "")
            raise BadParameter(
                name=path, section="mllib", message=f"{path} names {name!r}; the features of the data are {known}"
            )
    return [places[name] for name in names]


def draws(options: XGBoostOptions) -> bool:
    """Whether the training makes random draws."""
    if options.booster == "gblinear":
        return False
    wanted = options.booster_params
    shares = (wanted.subsample, wanted.colsample_bytree, wanted.colsample_bylevel, wanted.colsample_bynode)
    drops = options.booster == "dart" and (wanted.rate_drop > 0 or wanted.one_drop)
    return drops or any(share < 1 for share in shares)


def block_size(options: XGBoostOptions, data: TrainingData) -> int:
    """Iterations between two moments at which a training can be saved; the same for every run on the same data."""
    if not draws(options):
        return 1
    trees = max(1, options.nclasses, options.ntargets) * options.booster_params.num_parallel_tree
    return SMALL_BLOCK if cells(data.train) * trees < SMALL_WORK else 1


def start(
    options: TrainingOptions,
    data: TrainingData,
    *,
    threads: int,
    device: str,
    seed: int,
    scratch: Path,
    resume: Path | None,
    previous: Previous,
) -> tuple[XGBoostTrainer, list[tuple[str, str]]]:
    """A training on `data`, or the one that `resume` left off; and warnings as (parameter, message).

    With `resume` among the options a new training goes on with the model in `previous`. Raises BadParameter when that
    cannot be, and BadInput.
    """
    xgboost = _library()
    wanted: XGBoostOptions = options.mllib
    device, warnings = _device(xgboost, wanted, data, device)
    found = data.train.width
    if wanted.num_feature and wanted.num_feature != found:
        raise BadParameter(
            name="parameters.mllib.num_feature",
            section="mllib",
            message=f"parameters.mllib.num_feature is {wanted.num_feature}, but the data has {found} features",
        )
    if wanted.eval_metric and not data.tests:
        text = "parameters.mllib.eval_metric needs a test set and was ignored"
        warnings.append(("parameters.mllib.eval_metric", text))
    _check_labels(wanted.effective_objective, data)
    given = parameters(wanted, threads=threads, device=device, inputs=data.fitted.inputs)
    begun: _Begun | None = None
    if resume is None and wanted.resume:
        begun = _goes_on(wanted, options.connector, data, previous)
        if wanted.base_score:
            text = "parameters.mllib.base_score was ignored: the model that is gone on with has its own"
            warnings.append(("parameters.mllib.base_score", text))
    return XGBoostTrainer(wanted, data, given, scratch=scratch, resume=resume, begun=begun), warnings


def _device(
    xgboost: Any, options: XGBoostOptions, data: TrainingData, device: str
) -> tuple[str, list[tuple[str, str]]]:
    """The device to train on, and what to say when it is not the one that was asked for."""
    if device == "cpu":
        return device, []
    tables = [data.train, *data.tests]
    is_on_disk = not all(map(is_in_memory, tables))
    if not xgboost.build_info().get("USE_CUDA"):
        why = "the xgboost installed here has no GPU support"
    elif options.booster == "gblinear":
        why = "the booster gblinear does not know it"
    elif options.booster_params.tree_method == "exact":
        why = "the tree_method exact does not know it"
    elif is_on_disk and any(chunk.features.__class__ is not np.ndarray for chunk in _first_chunks(tables)):
        why = "it cannot take sparse tables from disk (parameters.input.db)"
    elif is_on_disk and mover(device) is None:
        why = "with parameters.input.db it needs cupy, or torch with GPU support, to take tables from disk"
    else:
        return device, []
    return "cpu", [("parameters.mllib.gpu", f"no GPU is used, but the CPU: {why}")]


def _first_chunks(tables: Sequence[Table]) -> list[Any]:
    return [next(iter(table.chunks())) for table in tables if len(table)]


#: Objectives whose labels are bounded below, and above.
_BOUNDED = {
    "reg:logistic": (0.0, 1.0),
    "count:poisson": (0.0, np.inf),
    "reg:tweedie": (0.0, np.inf),
    "reg:gamma": (np.nextafter(0.0, 1.0), np.inf),
    "reg:squaredlogerror": (np.nextafter(-1.0, 0.0), np.inf),
}


def _check_labels(objective: str, data: TrainingData) -> None:
    """Refuse labels that the objective is not defined for; xgboost's own text would blame base_score."""
    if objective not in _BOUNDED:
        return
    low, high = _BOUNDED[objective]
    allowed = "between 0 and 1" if high == 1 else "above -1" if low < 0 else "above 0" if low > 0 else "at least 0"
    for table in (data.train, *data.tests):
        assert table.labels is not None
        for some in steps(len(table)):
            labels = table.labels[some]
            wrong = (labels < low) | (labels > high)
            if wrong.any():
                raise BadInput(
                    f"objective {objective} needs labels {allowed}; {table.name} has {labels[wrong].flat[0]:g}"
                )


@dataclass(frozen=True)
class _Begun:
    """A model to go on with: its bytes, its rounds, and the models that were kept on the way to it, by name."""

    raw: bytes
    rounds: int
    kept: dict[str, Path]


def _goes_on(options: XGBoostOptions, connector: str, data: TrainingData, previous: Previous) -> _Begun:
    """The model to go on with. Raises BadParameter when there is none, or none that the training could go on with."""
    if previous.folder is None:
        raise refusal("the repository holds no model")
    file = (previous.description or {}).get("file")
    try:
        path = previous.folder / file if file and (previous.folder / file).is_file() else newest(previous.folder)
        found = inspect(INFO.name, path)
    except ModelUnusable as error:
        raise refusal(str(error)) from None
    is_vector = options.booster_params.multi_strategy == "multi_output_tree" and options.booster == "gbtree"
    told = {True: "multi_output_tree", False: "one_output_per_tree"}
    trees, outputs = found["parallel_trees"], "classes" if options.target.classes else "targets"
    for what, before, now in (
        ("objective", found["objective"], options.effective_objective),
        ("booster", found["booster"], options.booster),
        (f"number of {outputs}", _counted(found["target"]), _counted(options.target.as_json())),
        ("number of features", len(found["inputs"]), data.train.width),
        ("num_parallel_tree", trees, options.booster_params.num_parallel_tree if trees else trees),
        ("multi_strategy", told[found["is_vector"]], told[is_vector]),
    ):
        if before != now:
            raise refusal(f"{path.name} in the repository has the {what} {before}, and this training {now}")
    check_same_data(previous, connector, data)
    period, rounds = options.save_period, int(found["rounds"])
    kept = {
        each.name: each
        for each in previous.folder.glob("*.model")
        if period and (number := _rounds_of(each.name)) is not None and number % period == 0 and 0 < number <= rounds
    }
    return _Begun(path.read_bytes(), rounds, kept)


def _counted(target: dict[str, Any]) -> int:
    """How many classes or targets a model tells of; soft labels are a regression of several targets to xgboost."""
    return int(target["classes"] or target["targets"])


class XGBoostTrainer:
    """A boosting under way.

    given : parameters of `xgboost.Booster`. begun : a model to go on with; `resume` says it better where it is given.
    Raises BadParameter or BadInput for what only xgboost can find wrong.
    """

    def __init__(
        self,
        options: XGBoostOptions,
        data: TrainingData,
        given: dict[str, Any],
        *,
        scratch: Path,
        resume: Path | None,
        begun: _Begun | None,
    ) -> None:
        self._xgboost = _library()
        self._options = options
        self._draws = draws(options)
        self._block = block_size(options, data)
        self._given = given
        self._kept = scratch / _KEPT_FOLDER
        self.done = self._first = 0 if begun is None else begun.rounds
        raw, kept = (None, {}) if begun is None else (begun.raw, begun.kept)
        if resume is not None:
            state = json.loads((resume / "booster.json").read_text())
            self.done, self._first = state["done"], state["first"]
            raw = (resume / _STATE_FILE).read_bytes()
            kept = {path.name: path for path in (resume / _KEPT_FOLDER).glob("*.model")}
        shutil.rmtree(self._kept, ignore_errors=True)
        for name, path in kept.items():
            self._keep(name, path)
        with self._errors():
            self._train, self._tests = self._matrices(data, scratch / "pages")
            if resume is not None and self._draws and self._method == "approx":
                first = self._booster(None)
                self._draw_anew(first, self._first)
                first.update(self._train, self._first)
            self._model = self._booster(raw)

    @property
    def _method(self) -> str:
        return self._options.booster_params.tree_method

    def _matrices(self, data: TrainingData, folder: Path) -> tuple[Any, list[Any]]:
        """The matrices to train and to test on."""
        options, threads = self._options, self._given["nthread"]
        train = Rows(options.target, options.class_weights, is_training=True)
        test = Rows(options.target, (), is_training=False)
        tables = [data.train, *data.tests]
        if all(map(is_in_memory, tables)):
            first, *others = (
                in_memory(self._xgboost, table, rows, threads)
                for table, rows in zip(tables, [train] + [test] * len(data.tests), strict=True)
            )
            return first, others
        give_memory_back()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        device = self._given["device"]
        how: dict[str, Any] = {
            "threads": threads,
            "max_bin": options.booster_params.max_bin,
            "move": None if device == "cpu" else mover(device),
        }
        first = on_disk(self._xgboost, data.train, train, folder / "train", **how)
        others = [
            on_disk(self._xgboost, table, test, folder / f"test{position}", like=first, **how)
            for position, table in enumerate(data.tests)
        ]
        return first, others

    def _booster(self, raw: bytes | None) -> Any:
        given = dict(self._given)
        if raw is not None:
            given.pop("base_score", None)  # the model has its own, which this would take the place of
        booster = self._xgboost.Booster(given, [self._train, *self._tests])
        if raw is not None:
            booster.load_model(bytearray(raw))
            booster.set_param(given)
        return booster

    def _draw_anew(self, booster: Any, iteration: int) -> None:
        """Make the random draws of the coming block depend on `iteration` alone; see the top of this file."""
        booster.set_param({"tree_method": "hist" if self._method in ("approx", "exact") else "approx"})
        booster.num_features()  # applies the line above
        booster.set_param({"tree_method": self._method, "seed": self._options.seed + iteration})
        if iteration > 0:
            # Checked once already; twice a block it would cost more than all the rest.
            booster.set_param({"validate_parameters": False})

    @property
    def can_save(self) -> bool:
        """Whether `save_state` may be called now; true again after a few iterations at most."""
        return self.done % self._block == 0

    def step(self) -> None:
        """Add one round. Raises BadParameter or BadInput for what only xgboost can find wrong."""
        with self._errors():
            # A training that goes on with a model of the repository begins a block wherever that ended.
            if self._draws and (self.can_save or self.done == self._first):
                self._draw_anew(self._model, self.done)
            self._model.update(self._train, self.done)
        self.done += 1
        period = self._options.save_period
        if period and self.done % period == 0 and self.done < self._options.iterations:
            self._keep(_file_name(self.done), self._model.save_raw("ubj"))

    def _keep(self, name: str, content: bytes | Path) -> None:
        self._kept.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            _linked(content, self._kept / name)
        else:
            (self._kept / name).write_bytes(content)

    def test(self, position: int) -> tuple[np.ndarray, dict[str, float]]:
        """Predictions for a test set, and the values of `eval_metric` on it.

        xgboost keeps the margins of known data from test to test, so only the new rounds are computed.
        """
        matrix = self._tests[position]
        with self._errors():
            outputs = self._model.predict(matrix)
        own = {}
        if self._options.eval_metric:
            with self._errors("parameters.mllib.eval_metric"):
                text = self._model.eval(matrix, "t", self.done - 1)
            own = {name: float(value) for name, value in re.findall(r"\tt-([^\t]+):(\S+)", text)}
        return shaped(outputs, self._options.target), own

    def running(self) -> dict[str, float]:
        """Nothing: xgboost tells no loss of its own while it trains."""
        return {}

    def keep(self, wanted: Collection[int]) -> None:
        """Nothing: every round of the final model is there to be used."""

    def facts(self) -> dict[str, Any]:
        """What the description tells besides: trees are no weights that could be counted."""
        return {}

    def save_state(self, folder: Path) -> None:
        """Write the booster and what it was doing."""
        (folder / _STATE_FILE).write_bytes(self._model.save_raw("ubj"))
        state = {
            "done": self.done,
            "first": self._first,
            "version": self._xgboost.__version__,
            "parameters": self._given,
        }
        (folder / "booster.json").write_text(json.dumps(state))
        if self._kept.exists():
            (folder / _KEPT_FOLDER).mkdir()
            for path in self._kept.iterdir():
                _linked(path, folder / _KEPT_FOLDER / path.name)

    def save_model(self, folder: Path, rounds: int) -> str:
        """Write the model, named by `rounds`, and the ones kept by `save_period`; returns its file name."""
        name = _file_name(max(rounds, self.done))
        if self._kept.exists():
            for path in self._kept.iterdir():
                _linked(path, folder / path.name)
        # Last, and as a new file: one that was kept under the same name may be a link to somebody else's.
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(self._model.save_raw("ubj"))
        return name

    def _errors(self, parameter: str | None = None) -> _Errors:
        return _Errors(self._xgboost, parameter)


class _Errors:
    """Turns what xgboost raises into our errors; `parameter` is to blame, if it is known."""

    def __init__(self, xgboost: Any, parameter: str | None) -> None:
        self._xgboost = xgboost
        self._parameter = parameter

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._xgboost.core.XGBoostError):
            raise _told(str(error), self._parameter) from error


def _told(text: str, parameter: str | None) -> MlError:
    """Our error for a message of xgboost, without its addresses and stack."""
    line = re.sub(r"^\[[\d:]+\] \S+?:\d+: ", "", text.strip()).split("\nStack trace")[0].strip()
    line = re.sub(r"^Check failed: .*?: ", "", " ".join(line.split())) or "xgboost failed"
    if "bad_alloc" in line or "out of memory" in line.lower():
        return OutOfMemory(f"xgboost ran out of memory: {line}")
    if parameter is None and ("label" in line.lower() or "inf" in line.lower().split()):
        return BadInput(f"xgboost cannot train on the data: {line}")
    name = parameter or "parameters.mllib"
    return BadParameter(name=name, section="mllib", message=f"xgboost refuses {name}: {line}")


def _file_name(rounds: int) -> str:
    return f"{rounds:04d}.model"


def _rounds_of(name: str) -> int | None:
    """The number in the name of a model file; None when there is none."""
    found = re.fullmatch(r"(\d{4,9})\.model", name)
    return None if found is None else int(found[1])


def _linked(source: Path, target: Path) -> None:
    """Give a file that will not change a second name, or where that cannot be, make a copy."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def shaped(outputs: np.ndarray, target: Target) -> np.ndarray:
    """Outputs of the booster as they are described at `Target`."""
    if target.kind == "regression":
        return outputs.reshape(len(outputs), -1)
    if target.kind == "classification" and (outputs.ndim == 1 or outputs.shape[1] == 1):
        positive = outputs.reshape(-1)
        return np.stack([1 - positive, positive], axis=1)
    return outputs.reshape(len(outputs), target.classes)


def newest(folder: Path) -> Path:
    """The newest model file of a folder: by time, then by number. Raises ModelUnusable."""
    found = [path for path in folder.glob("*.model") if path.is_file()] if folder.is_dir() else []
    if not found:
        raise ModelUnusable("no xgboost model (a file such as 0100.model) was found in the repository")
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def describe(folder: Path, options: ServiceOptions) -> dict[str, Any]:
    """Facts of the newest model file in a folder somebody filled by hand: file, objective, classes, targets, columns.

    The file is looked at in another process, as a broken one can end the process that reads it.
    Raises ModelUnusable when there is none, when it cannot be read, or when it does not fit the service.
    """
    path = newest(folder)
    found = inspect(INFO.name, path)
    wanted: XGBoostOptions = options.mllib
    holds, asked = Target.from_json(found["target"]), wanted.target
    if asked.kind == "soft_labels" and found["objective"] == SOFT_LABELS:
        holds = Target("soft_labels", classes=holds.targets)
    if holds.kind != asked.kind:
        raise ModelUnusable(f"{path.name} was trained for {holds.kind} ({found['objective']}), the service was not")
    if holds.classes != asked.classes:
        raise ModelUnusable(f"{path.name} knows {holds.classes} classes, parameters.mllib.nclasses is {asked.classes}")
    if holds.targets != asked.targets:
        raise ModelUnusable(f"{path.name} gives {holds.targets} values, parameters.mllib.ntargets is {asked.targets}")
    return {**found, "target": asked.as_json()}


def facts(path: Path) -> dict[str, Any]:
    """What a model file says of itself, after a look at every tree and a prediction. Raises ModelUnusable.

    Besides what every backend tells: `objective`, `booster`, `rounds`, `parallel_trees` (how many a round adds for each
    output, 0 for gblinear), and `is_vector`, whether a tree has all outputs.
    """
    booster = _loaded(path)
    learner = json.loads(booster.save_config())["learner"]
    objective = str(learner["learner_train_param"]["objective"])
    if objective not in (*CLASSIFICATION, *REGRESSION):
        raise ModelUnusable(f"{path.name} was trained with objective {objective}, which is not served")
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    model = model.get("gbtree", model).get("model", {})
    trees, features = model.get("trees", []), booster.num_features()
    target = _target_of(objective, learner["learner_model_param"])
    _check_trees(trees, features, target.classes or target.targets, path.name)
    rows = np.array([np.zeros(features), np.full(features, np.nan), np.full(features, 1e30)], np.float32)
    booster.predict(_library().DMatrix(rows, nthread=1), validate_features=False)
    return {
        "file": path.name,
        "objective": objective,
        "booster": learner["gradient_booster"]["name"],
        "rounds": booster.num_boosted_rounds(),
        "parallel_trees": int(model.get("gbtree_model_param", {}).get("num_parallel_tree", 0)),
        "is_vector": any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees[:1]),
        "target": target.as_json(),
        "inputs": booster.feature_names or [f"f{each}" for each in range(features)],
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _target_of(objective: str, sizes: dict[str, str]) -> Target:
    """What a model of that objective predicts."""
    targets = int(sizes["num_target"])
    if objective not in CLASSIFICATION:
        return Target("regression", targets=targets)
    if targets > 1:
        return Target("multi_label", classes=targets)
    return Target("classification", classes=max(int(sizes["num_class"]), 2))


def _check_trees(trees: Sequence[dict[str, Any]], features: int, outputs: int, name: str) -> None:
    """Refuse trees that point outside of themselves or of the features; xgboost would follow them anywhere."""
    for tree in trees:
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        inner = left >= 0
        children = np.concatenate([left[inner], right[inner]])
        split = np.array(tree["split_indices"])
        size = int(tree["tree_param"]["size_leaf_vector"])
        # A leaf of several outputs says in place of a right child where its weights are.
        leaves = len(tree.get("leaf_weights", ())) // size if size > 1 else 0
        ends = right[~inner]
        sound = (
            len(left) == len(right) == len(split) > 0
            and bool(np.all((children > 0) & (children < len(left))))
            and len(np.unique(children)) == len(children) == len(left) - 1
            and bool(np.all(split[inner] < features))
            and bool(np.all((ends >= 0) & (ends < leaves)) if size > 1 else np.all(ends < 0))
            and size in (0, 1, outputs)
        )
        if not sound:
            raise ModelUnusable(f"model file {name} is broken: one of its trees points outside of itself")


def _loaded(path: Path) -> Any:
    xgboost = _library()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelUnusable(f"model file {path.name} cannot be read: {error.strerror}") from None
    if not raw:  # xgboost would end this process over it
        raise ModelUnusable(f"model file {path.name} is empty")
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(raw))
        booster.num_features()
    except (xgboost.core.XGBoostError, ValueError, TypeError):
        raise ModelUnusable(f"model file {path.name} is no model that xgboost {xgboost.__version__} reads") from None
    return booster


def load(folder: Path, description: dict[str, Any], *, device: str, threads: int) -> XGBoostEngine:
    """The described model, ready to predict. Raises ModelUnusable, MissingExtra."""
    path = folder / description["file"]
    booster = _loaded(path)
    booster.set_param({"nthread": threads, "device": device})
    size = path.stat().st_size
    return XGBoostEngine(booster, size, target_of(description))


class XGBoostEngine:
    """A loaded booster."""

    #: Bytes in memory per byte of file, and of a booster without trees: an estimate on the safe side.
    GROWTH, FLOOR = 3, 2**20

    def __init__(self, booster: Any, size: int, target: Target) -> None:
        self._xgboost = _library()
        self._booster = booster
        self._target = target
        self._dense = DensePredictor(booster)
        self._features = booster.num_features()
        learner = json.loads(booster.save_config())["learner"]
        # gblinear has no other way than by a matrix; dart rounds otherwise without one than its tests did; and data
        # that lies elsewhere than the model would be copied with a warning each time.
        is_here = learner["generic_param"]["device"] == "cpu"
        self._in_place = is_here and learner["learner_train_param"]["booster"] == "gbtree"
        self.bytes = self.FLOOR + self.GROWTH * size

    def rows_together(self, options: Any = None) -> int:
        """One: each row is computed by itself."""
        return 1

    def predict(self, features: Any, options: Any = None) -> np.ndarray:
        """Outputs, as described at `Target`, of float32 features: an array, or a CSR matrix, in which values that it
        does not hold are missing ones, as they were in training. Raises BadInput.
        """
        if features.shape[1] != self._features:
            raise BadInput(f"the data has {features.shape[1]} features, the model was trained with {self._features}")
        if self._in_place and isinstance(features, np.ndarray):
            outputs = self._dense(features)
        elif self._in_place:
            outputs = self._booster.inplace_predict(features, validate_features=False)
        else:
            outputs = self._booster.predict(self._xgboost.DMatrix(features), validate_features=False)
        return shaped(outputs, self._target)
