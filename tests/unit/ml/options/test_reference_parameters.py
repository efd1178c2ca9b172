"""Every parameter of DeepDetect's reference is an option, is named as one without effect, or comes later.

Options have the reference's type and default but for the differences that `TYPES` and `DEFAULTS` name with a reason.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from docs.generate import LATER
from ml.errors import BadParameter
from ml.options import csv as csv_options
from ml.options import net, output, service, solver, torch, xgboost
from ml.options.catalog import connectors, libraries
from ml.options.loading import Flag, Group, Real, Several, Table, Text, Warning, Whole, keys_of
from ml.options.requests import load_prediction, load_service

ROOT = Path(__file__).resolve().parents[4]
TABLE = ROOT / "tests" / "data" / "deepdetect_parameters.csv"

#: Parameters of requests themselves, which the routes read, by group.
ROUTES = ("General", "Input Object", "Input Connectors")
#: Objects of `mllib` whose members come later with the object.
OBJECTS = {"Noise": "noise", "Distort": "distort", "Geometry": "geometry"}


#: Where the type differs, with the reason.
TYPES = {
    ("Caffe", "layers", "array of string"): "texts stand for layers of convolution, which come with images",
    ("Torch / Model instantiation parameters", "layers", "array of string"): "units of mlp; texts come with series",
}
#: Where the default differs, with the reason.
DEFAULTS = {
    ("Caffe", "dropout"): "DeepDetect leaves nothing out unless asked, whatever its reference says",
    ("Caffe", "layers"): "left open, so that a template may differ: mlp takes 50",
    ("Caffe", "activation"): "left open, so that a resumed training keeps its own: relu",
    ("Caffe", "scaling_temperature"): "left open, so that predictions follow the training: 1",
    ("Caffe / General", "class_weights"): "as many as there are classes, which no default can know: all 1",
    ("Caffe / Caffe2", "extract_layer"): "false is no name of a layer: an empty text stands for none",
    ("Torch / Model instantiation parameters", "layers"): "an empty list stands for 50 units of mlp",
    ("Torch / Solver", "rectified"): "only with solvers that have it: RANGER, tested below",
    ("Torch / Solver", "lookahead"): "only with solvers that have it: RANGER, tested below",
    ("Torch / Solver", "adabelief"): "as the solver says, tested below",
    ("Torch / Solver", "gradient_centralization"): "as the solver says, tested below",
    ("Caffe / Solver", "clip"): "as the solver says, tested below",
    ("Output Object", "measure"): "left open, as it depends on what is learned",
    ("Output connector", "best"): "left open: 1, but all classes with torch",
    ("Output", "best"): "left open: 1, but all classes with torch",
    ("XGBoost / General", "objective"): "left open, as a regression has another: multi:softprob",
    ("XGBoost / General", "num_feature"): "0 takes it from the data",
    ("XGBoost / General", "eval_metric"): "measures are asked for in the output; none of xgboost's own unless named",
    ("XGBoost / General", "base_score"): "xgboost estimates it from the labels since its version 2",
    ("XGBoost / Booster_params", "lambda"): "left open, as xgboost has another for gblinear: 1",
}


def known(options: type, elsewhere: Mapping[str, str]) -> dict[str, str]:
    """Names of options, each with the reason when it has no effect."""
    return {**dict.fromkeys(keys_of(options), ""), **elsewhere}


def options_of(group: str) -> tuple[type[Any], Mapping[str, str]]:
    """The options that a group of the reference is about, and its names without effect."""
    if "Solver" in group:
        return solver.SolverOptions, solver.ELSEWHERE
    if group.endswith("/ Net"):
        return net.NetOptions, net.ELSEWHERE
    if group == "XGBoost / Booster_params":
        return xgboost.BoosterOptions, {}
    if group.startswith("XGBoost"):
        return xgboost.XGBoostOptions, xgboost.ELSEWHERE
    if group.startswith(("Caffe", "Torch")):
        return torch.TorchOptions if group.startswith("Torch") else torch.CaffeOptions, torch.ELSEWHERE
    if "`csv`" in group:
        return csv_options.CsvOptions, csv_options.ELSEWHERE
    if group == "Network object":
        return output.NetworkOptions, {}
    if group == "Model Object":
        return service.ModelOptions, service.MODEL_ELSEWHERE
    assert group in ("Output", "Output Object", "Output connector"), group
    return output.OutputOptions, output.ELSEWHERE


def names_of(group: str) -> dict[str, str]:
    """The names that a group of the reference may use."""
    return known(*options_of(group))


def rows() -> list[tuple[str, str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [
            (row["resource"], row["group"], name)
            for row in csv.DictReader(file)
            for name in row["parameter"].split(",")
        ]


@pytest.mark.parametrize(("resource", "group", "name"), rows())
def test_a_parameter_of_the_reference_is_known(resource: str, group: str, name: str):
    later = next((name for words, name in LATER.items() if group.startswith(words)), None)
    if later is not None:
        assert later not in connectors()
        assert later not in libraries()
        return
    if group in ROUTES:
        return
    part = next((each for word, each in OBJECTS.items() if f"/ {word} " in group), None)
    names = names_of(group)
    found = part or name.partition(".")[0]
    assert found in names
    if part is not None:
        assert "later" in names[found]


def test_the_table_is_the_one_of_the_reference():
    reference = ROOT.parent / "shared" / "reference" / "parameters.csv"
    if not reference.exists():
        pytest.skip("the reference is not beside the project")
    assert TABLE.read_bytes() == reference.read_bytes()


def implemented() -> list[tuple[str, str, str, str]]:
    """Group, name, type and default of every row of the reference whose option has an effect."""
    found = []
    with TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            group = row["group"]
            if group in ROUTES or group.startswith(tuple(LATER)):
                continue
            for name in row["parameter"].split(","):
                if name in keys_of(options_of(group)[0]):
                    found.append((group, name, row["type"], row["default"]))
    return list(dict.fromkeys(found))


def field_of(group: str, name: str) -> dataclasses.Field[Any]:
    options, _ = options_of(group)
    return {each.name: each for each in dataclasses.fields(options)}[keys_of(options)[name]]


def takes(kind: object, type_name: str) -> bool:
    """Whether an option takes what the reference says; wider ones do too."""
    if type_name.startswith("array of "):
        return isinstance(kind, Several) and takes(kind.inner, type_name.removeprefix("array of "))
    if type_name.endswith(" or array"):
        return isinstance(kind, Several) and takes(kind.inner, type_name.removesuffix(" or array"))
    if type_name == "array":
        return isinstance(kind, Several)
    if isinstance(kind, Several):  # takes a single value as well
        return takes(kind.inner, type_name)
    wanted = {
        "int": (Whole, Real),
        "real": (Real,),
        "float": (Real,),
        "double": (Real,),
        "bool": (Flag,),
        "string": (Text,),
        "object": (Group, Table),
    }
    return isinstance(kind, wanted[type_name])


@pytest.mark.parametrize(("group", "name", "type_name", "default"), implemented())
def test_an_option_has_the_type_of_the_reference(group: str, name: str, type_name: str, default: str):
    is_deliberate = (group, name, type_name) in TYPES
    assert takes(field_of(group, name).metadata["kind"], type_name) is not is_deliberate


def has_default(group: str, name: str, default: str) -> bool:
    """Whether an option that is left out counts as the reference says."""
    field = field_of(group, name)
    ours = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    if "Solver" in group and field.name != "resume":
        library = "torch" if group.startswith("Torch") else "caffe"
        ours = getattr(solver.SolverOptions().resolved(solver.defaults_of(library)), field.name)
        if default == "N/A":
            return True  # that of the solver file of a template
    if isinstance(ours, tuple) and len(ours) == 1:
        ours = ours[0]
    if default in ("N/A", "empty", "none", '""'):
        return not ours
    if default in ("true", "false"):
        return ours is (default == "true")
    try:
        return bool(ours == float(default))
    except ValueError:
        return bool(ours == default.strip("'"))


@pytest.mark.parametrize(("group", "name", "type_name", "default"), implemented())
def test_an_option_has_the_default_of_the_reference(group: str, name: str, type_name: str, default: str):
    assert has_default(group, name, default) is ((group, name) not in DEFAULTS), default


@pytest.mark.parametrize(
    ("name", "plain", "ranger", "ranger_plus"),
    [
        ("rectified", False, True, True),
        ("lookahead", False, True, True),
        ("adabelief", False, False, True),
        ("gradient_centralization", False, False, True),
        ("clip", False, True, True),
    ],
)
def test_a_default_that_the_solver_decides_is_the_one_of_the_reference(
    name: str, plain: bool, ranger: bool, ranger_plus: bool
):
    found = [
        getattr(solver.SolverOptions(solver_type=each).resolved(), name) for each in ("SGD", "RANGER", "RANGER_PLUS")
    ]
    assert found == [plain, ranger, ranger_plus]


def test_defaults_that_are_left_open_come_out_as_in_the_reference():
    assert torch.CaffeOptions(template="mlp").hidden == (50,)
    assert xgboost.XGBoostOptions(nclasses=2).effective_objective == "multi:softprob"


def warnings_of(library: str, connector: str, section: str, given: Mapping[str, Any]) -> list[Warning]:
    """What a prediction with some options of a section is told."""
    mllib: dict[str, Any] = {"nclasses": 2}
    parameters: dict[str, dict[str, Any]] = {"input": {"connector": connector}, "mllib": mllib, "output": {}}
    parameters[section].update(given)
    return load_prediction(library, connector, parameters).warnings


def without_effect() -> list[tuple[str, str, str, str, str]]:
    """Library, connector, section, dotted name and reason of every known name without effect."""
    found = []
    for library in libraries().values():
        found += [(library.name, "csv", "mllib", name, why) for name, why in library.elsewhere.items()]
        for each in dataclasses.fields(library.options):
            kind = each.metadata["kind"]
            if isinstance(kind, Group):
                inner = (kind.elsewhere or {}).items()
                found += [(library.name, "csv", "mllib", f"{each.name}.{name}", why) for name, why in inner]
    for connector in connectors().values():
        found += [("torch", connector.name, "input", name, why) for name, why in connector.elsewhere.items()]
    return found + [("torch", "csv", "output", name, why) for name, why in output.ELSEWHERE.items()]


@pytest.mark.parametrize(("library", "connector", "section", "name", "why"), without_effect())
def test_a_name_without_effect_comes_back_with_the_reason(
    library: str, connector: str, section: str, name: str, why: str
):
    outer, _, inner = name.rpartition(".")
    given = {outer: {inner: 1}} if outer else {inner: 1}
    path = f"parameters.{section}.{name}"
    assert Warning(path, f"{path} was ignored: {why}") in warnings_of(library, connector, section, given)


@pytest.mark.parametrize(("name", "why"), service.MODEL_ELSEWHERE.items())
def test_a_name_of_the_model_without_effect_comes_back_with_the_reason(name: str, why: str):
    body = {
        "mllib": "torch",
        "model": {"repository": "here", name: "x"},
        "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 2}},
    }
    assert Warning(f"model.{name}", f"model.{name} was ignored: {why}") in load_service(body).warnings


def every_option() -> list[tuple[str, str, str, str]]:
    """Library, connector, section and dotted name of every option, under each of its names."""
    sections = [(library.name, "csv", "mllib", library.options) for library in libraries().values()]
    sections += [("torch", connector.name, "input", connector.options) for connector in connectors().values()]
    sections.append(("torch", "csv", "output", output.OutputOptions))
    found = []
    for library, connector, section, options in sections:
        kinds = {each.name: each.metadata["kind"] for each in dataclasses.fields(options)}
        for key, field in keys_of(options).items():
            kind = kinds[field]
            inside = [f"{key}.{inner}" for inner in keys_of(kind.into)] if isinstance(kind, Group) else [key]
            found += [(library, connector, section, name) for name in inside]
    return found


@pytest.mark.parametrize(("library", "connector", "section", "name"), every_option())
def test_an_option_is_known_by_each_of_its_names(library: str, connector: str, section: str, name: str):
    outer, _, inner = name.rpartition(".")
    # No option takes this value: a name that is known is refused with it, an unknown one only comes back.
    value = [{"": [None]}]
    with pytest.raises(BadParameter) as refused:
        warnings_of(library, connector, section, {outer: {inner: value}} if outer else {inner: value})
    assert refused.value.name == f"parameters.{section}.{name}"


def test_every_difference_is_about_a_row_of_the_reference():
    rows_with_effect = implemented()
    assert set(TYPES) <= {(group, name, type_name) for group, name, type_name, _ in rows_with_effect}
    assert set(DEFAULTS) <= {(group, name) for group, name, _, _ in rows_with_effect}
    assert all([*TYPES.values(), *DEFAULTS.values()])
