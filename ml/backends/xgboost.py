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
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ml.backends.base import BackendInfo, Previous, target_of
from ml.backends.inspection import inspect
from ml.errors import BadInput, BadParameter, MissingExtra, MlError, ModelUnusable, OutOfMemory
from ml.options.requests import ServiceOptions, TrainingOptions
from ml.options.target import Target
from ml.options.xgboost import CLASSIFICATION, REGRESSION, USED, BoosterOptions, XGBoostOptions
from ml.tables import TrainingData

INFO = BackendInfo(
    name="xgboost",
    files=(".model",),
    trains=True,
    devices=("cpu", "cuda"),
    extra="xgboost",
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


def parameters(options: XGBoostOptions, *, threads: int, device: str) -> dict[str, Any]:
    """The parameters for `xgboost.Booster`; what was left at its default is left to xgboost."""
    given: dict[str, Any] = {
        "objective": options.effective_objective,
        "booster": options.booster,
        "seed": options.seed,
        "nthread": threads,
        "device": device,
        "verbosity": 1,
    }
    if options.effective_objective == "multi:softprob":
        given["num_class"] = options.nclasses
    if options.base_score is not None:
        given["base_score"] = options.base_score
    if options.eval_metric:
        given["eval_metric"] = list(options.eval_metric)
    else:
        given["disable_default_eval_metric"] = True
    defaults = BoosterOptions()
    for each in fields(BoosterOptions):
        value = getattr(options.booster_params, each.name)
        if each.name in USED[options.booster] and value != getattr(defaults, each.name):
            given[each.metadata["key"] or each.name] = value
    if options.booster == "gblinear":
        # The default updater, shotgun, gives other numbers each time it runs with several threads.
        given["updater"] = "coord_descent"
    return given


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
    return SMALL_BLOCK if data.train.features.size * trees < SMALL_WORK else 1


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
    """A training on `data`, or the one that `resume` left off; and warnings as (parameter, message)."""
    xgboost = _library()
    warnings = []
    if device != "cpu" and not xgboost.build_info().get("USE_CUDA"):
        warnings.append(("parameters.mllib.gpu", "the xgboost installed here has no GPU support: the CPU is used"))
        device = "cpu"
    wanted: XGBoostOptions = options.mllib
    found = data.train.features.shape[1]
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
    return XGBoostTrainer(wanted, data, threads=threads, device=device, resume=resume), warnings


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
    low, high = _BOUNDED.get(objective, (-np.inf, np.inf))
    labels = data.train.labels
    assert labels is not None
    wrong = (labels < low) | (labels > high)
    if wrong.any():
        allowed = "between 0 and 1" if high == 1 else "above -1" if low < 0 else "above 0" if low > 0 else "at least 0"
        raise BadInput(f"objective {objective} needs labels {allowed}; {data.train.name} has {labels[wrong].flat[0]:g}")


class XGBoostTrainer:
    """A boosting under way."""

    def __init__(
        self, options: XGBoostOptions, data: TrainingData, *, threads: int, device: str, resume: Path | None
    ) -> None:
        self._xgboost = _library()
        self._options = options
        self._draws = draws(options)
        self._block = block_size(options, data)
        self._given = parameters(options, threads=threads, device=device)
        with self._errors():
            self._train = self._matrix(data.train, threads)
            self._tests = [self._matrix(test, threads) for test in data.tests]
            if resume is not None and self._draws and self._method == "approx":
                first = self._booster(None)
                self._draw_anew(first, 0)
                first.update(self._train, 0)
            raw = None if resume is None else (resume / _STATE_FILE).read_bytes()
            self._model = self._booster(raw)
        self.done = self._model.num_boosted_rounds() if resume is not None else 0
        self._kept: dict[str, bytes] = {}
        if resume is not None:
            self.done = json.loads((resume / "booster.json").read_text())["done"]
            for path in sorted((resume / _KEPT_FOLDER).glob("*.model")):
                self._kept[path.name] = path.read_bytes()

    @property
    def _method(self) -> str:
        return self._options.booster_params.tree_method

    def _matrix(self, table: Any, threads: int) -> Any:
        return self._xgboost.DMatrix(table.features, label=table.labels, nthread=threads)

    def _booster(self, raw: bytes | None) -> Any:
        booster = self._xgboost.Booster(self._given, [self._train, *self._tests])
        if raw is not None:
            booster.load_model(bytearray(raw))
            booster.set_param(self._given)
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
            if self._draws and self.can_save:
                self._draw_anew(self._model, self.done)
            self._model.update(self._train, self.done)
        self.done += 1
        period = self._options.save_period
        if period and self.done % period == 0 and self.done < self._options.iterations:
            self._kept[_file_name(self.done)] = bytes(self._model.save_raw("ubj"))

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
        state = {"done": self.done, "version": self._xgboost.__version__, "parameters": self._given}
        (folder / "booster.json").write_text(json.dumps(state))
        if self._kept:
            (folder / _KEPT_FOLDER).mkdir()
            for name, raw in self._kept.items():
                (folder / _KEPT_FOLDER / name).write_bytes(raw)

    def save_model(self, folder: Path, rounds: int) -> str:
        """Write the model, named by `rounds`, and the ones kept by `save_period`; returns its file name."""
        for name, raw in self._kept.items():
            (folder / name).write_bytes(raw)
        name = _file_name(rounds)
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


def shaped(outputs: np.ndarray, target: Target) -> np.ndarray:
    """Outputs of the booster as they are described at `Target`."""
    if target.kind == "regression":
        return outputs.reshape(len(outputs), -1)
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        positive = outputs.reshape(-1)
        return np.stack([1 - positive, positive], axis=1)
    return outputs.reshape(len(outputs), target.classes)


def newest(folder: Path) -> Path:
    """The newest model file of a folder: by time, then by number. Raises ModelUnusable."""
    found = [path for path in folder.glob("*.model") if path.is_file()] if folder.is_dir() else []
    if not found:
        raise ModelUnusable(f"no xgboost model (a file such as 0100.model) was found in {folder.name}")
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
    if holds.kind != asked.kind:
        raise ModelUnusable(f"{path.name} was trained for {holds.kind} ({found['objective']}), the service was not")
    if holds.classes != asked.classes:
        raise ModelUnusable(f"{path.name} knows {holds.classes} classes, parameters.mllib.nclasses is {asked.classes}")
    if holds.targets != asked.targets:
        raise ModelUnusable(f"{path.name} gives {holds.targets} values, parameters.mllib.ntargets is {asked.targets}")
    return found


def facts(path: Path) -> dict[str, Any]:
    """What a model file says of itself, after a look at every tree and a prediction. Raises ModelUnusable."""
    booster = _loaded(path)
    learner = json.loads(booster.save_config())["learner"]
    objective = str(learner["learner_train_param"]["objective"])
    classes = int(learner["learner_model_param"]["num_class"])
    targets = int(learner["learner_model_param"]["num_target"])
    is_regression = not objective.startswith(("multi:", "binary:"))
    target = (
        Target("regression", targets=targets) if is_regression else Target("classification", classes=max(classes, 2))
    )
    if objective not in (*CLASSIFICATION, *REGRESSION):
        raise ModelUnusable(f"{path.name} was trained with objective {objective}, which is not served")
    _check_trees(booster, path.name)
    features = booster.num_features()
    rows = np.array([np.zeros(features), np.full(features, np.nan), np.full(features, 1e30)], np.float32)
    booster.predict(_library().DMatrix(rows, nthread=1), validate_features=False)
    return {
        "file": path.name,
        "objective": objective,
        "target": target.as_json(),
        "inputs": booster.feature_names or [f"f{each}" for each in range(features)],
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _check_trees(booster: Any, name: str) -> None:
    """Refuse trees that point outside of themselves or of the features; xgboost would follow them anywhere."""
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    model = model.get("gbtree", model).get("model", {})
    features = booster.num_features()
    for tree in model.get("trees", ()):
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        inner = left >= 0
        children = np.concatenate([left[inner], right[inner]])
        split = np.array(tree["split_indices"])
        sound = (
            len(left) == len(right) == len(split) > 0
            and bool(np.all((right >= 0) == inner))
            and bool(np.all((children > 0) & (children < len(left))))
            and len(np.unique(children)) == len(children) == len(left) - 1
            and bool(np.all(split[inner] < features))
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
        self._features = booster.num_features()
        self._in_place = json.loads(booster.save_config())["learner"]["learner_train_param"]["booster"] != "gblinear"
        self.bytes = self.FLOOR + self.GROWTH * size

    def predict(self, features: np.ndarray, options: Any = None) -> np.ndarray:
        """Probabilities, shape (rows, classes), or values, shape (rows, targets), of float32 features."""
        if features.shape[1] != self._features:
            raise BadInput(f"the data has {features.shape[1]} features, the model was trained with {self._features}")
        if self._in_place:
            outputs = self._booster.inplace_predict(features, validate_features=False)
        else:
            outputs = self._booster.predict(self._xgboost.DMatrix(features), validate_features=False)
        return shaped(outputs, self._target)
