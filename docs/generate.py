"""Writes the reference pages from the code: `python -m docs.generate`. A test fails when they are not current."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from marshmallow import fields as kinds

from api.schemas.train import PredictRequest, TrainRequest
from cli.main import main as main_command
from ml.options import catalog, loading, xgboost
from ml.options.output import ELSEWHERE as OUTPUT_ELSEWHERE
from ml.options.output import OutputOptions
from ml.options.service import MODEL_ELSEWHERE, ModelOptions, OriginOptions, ServiceHead
from settings import Settings

FOLDER = Path(__file__).resolve().parent
_HINT = "<!-- Written by `python -m docs.generate`; change the code it is made from. -->"
_NOTHING = "-"

#: DeepDetect's parameters, as its reference lists them.
REFERENCE = FOLDER.parent / "tests" / "data" / "deepdetect_parameters.csv"
#: Words that begin the groups of connectors and libraries that come later, and the name that requests will know.
LATER = {
    "Image (`image`)": "image",
    "Input Object / Image": "image",
    "Text (`txt`)": "txt",
    "Input Object / Text": "txt",
    "CSV Time-series": "csvts",
    "Input Object / CSV Time-series": "csvts",
    "Caffe2": "caffe2",
    "TensorRT": "tensorrt",
    "Tensorflow": "tensorflow",
    "NCNN": "ncnn",
    "TSNE": "tsne",
}


def main() -> int:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
    return 0


def pages() -> dict[str, str]:
    """Every generated page by file name."""
    return {"commands.md": _commands(), "parameters.md": _parameters(), "settings.md": _settings()}


# Markdown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *map(list, rows)]]
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


# Parameters


def _type(kind: kinds.Field[Any]) -> str:
    """The type in words, without what the validators add."""
    return str(getattr(kind, "allowed", "a value"))


def _range(kind: kinds.Field[Any]) -> str:
    """What the validators allow, those of the elements included."""
    found = []
    for each in kind.validators:
        if isinstance(each, loading.Range):
            found.append(each.text())
        elif isinstance(each, loading.Choice):
            found.append(", ".join(map(_code, each.words)))
    inner = getattr(kind, "inner", None)
    if inner is not None and (text := _range(inner)) != _NOTHING:
        found.append(text if text.startswith("each") else f"each {text}")
    return "; ".join(found) or _NOTHING


def _default(field: dataclasses.Field[Any]) -> str:
    value = loading.default_of(field)
    return _NOTHING if value is None else _code(json.dumps(value))


def _options(into: type, columns: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The table of an options class; `columns` adds cells by field name."""
    more = columns or {}
    rows = []
    for field in dataclasses.fields(into):
        declared = field.metadata
        name = _code(declared["key"] or field.name)
        if declared["other_keys"]:
            name += " or " + ", ".join(map(_code, declared["other_keys"]))
        kind = declared["kind"]
        rows.append(
            [
                name,
                _type(kind),
                _range(kind),
                _default(field),
                declared["unit"] or _NOTHING,
                *(column.get(field.name, _NOTHING) for column in more.values()),
                _cell(declared["text"]),
            ]
        )
    return _table(["name", "type", "range", "default", "unit", *more, "meaning"], rows)


def _without_effect(names: Mapping[str, str]) -> str:
    """The known names that do nothing here, gathered by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in names.items():
        by_reason.setdefault(reason, []).append(name)
    rows = [[", ".join(map(_code, sorted(found))), _cell(reason)] for reason, found in by_reason.items()]
    return "Known names without effect, which come back as warnings:\n\n" + _table(["names", "why"], rows)


def _types() -> str:
    described = (
        loading.Whole(),
        loading.Real(),
        loading.Flag(),
        loading.Text(),
        loading.Several(loading.Text()),
        loading.Table(loading.Whole()),
    )
    rows = [[_type(kind), _cell((type(kind).__doc__ or "").strip().splitlines()[0])] for kind in described]
    return _table(["type", "takes"], rows)


def _libraries() -> str:
    rows = [
        [
            _code(each.name),
            ", ".join(map(_code, each.connectors)),
            ", ".join(map(_code, each.types)),
            ", ".join(map(_code, each.devices)),
            _code(each.extra),
            ", ".join(map(_code, each.files)),
        ]
        for each in catalog.libraries().values()
    ]
    return _table(["`mllib`", "connectors", "types", "devices", "installation extra", "model files"], rows)


def _boosters() -> dict[str, str]:
    found = {}
    for field in dataclasses.fields(xgboost.BoosterOptions):
        using = [name for name, names in xgboost.USED.items() if field.name in names]
        found[field.name] = "all" if len(using) == len(xgboost.USED) else ", ".join(map(_code, using))
    return found


def _groups(into: type, path: str, whose: str = "") -> list[str]:
    """The tables of the objects among the options of a class, each under its heading."""
    blocks = []
    for field in dataclasses.fields(into):
        kind = field.metadata["kind"]
        if isinstance(kind, loading.Group):
            columns = {"boosters": _boosters()} if kind.into is xgboost.BoosterOptions else None
            blocks += [f"### `{path}.{field.name}`{whose}", _options(kind.into, columns)]
            if kind.elsewhere:
                blocks.append(_without_effect(kind.elsewhere))
    return blocks


def _later() -> str:
    """The connectors and libraries of DeepDetect that are not here, with the options that come with them."""
    names: dict[str, set[str]] = {}
    for words, name in LATER.items():
        names.setdefault(name, set())
        with REFERENCE.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["group"].startswith(words):
                    names[name].update(row["parameter"].split(","))
    rows = [[_code(name), ", ".join(map(_code, sorted(found)))] for name, found in names.items()]
    return (
        "Connectors and libraries of DeepDetect that are not here yet. A request that names one is refused with the "
        "names\nthat there are; these options of theirs come with them:\n\n" + _table(["name", "options"], rows)
    )


def _parameters() -> str:
    blocks = [
        _HINT,
        "# Parameters",
        "Everything that requests may hold. Options given at the creation of a service are the defaults of its later "
        "calls;\nan option in a call counts instead. `null` counts as absent. A name that is not listed never fails a "
        "request: it comes\nback in `head.warnings` with the nearest known name. A wrong type and a value out of range "
        "do fail it, with the name,\nthe value and what is allowed. "
        f"`{_NOTHING}` in a table says that there is none.",
        "## Types",
        _types(),
        "## Libraries",
        _libraries(),
        "## Creating a service",
        "The top level of `PUT /services/NAME`:",
        _options(ServiceHead),
        "Its `model` object:",
        _options(ModelOptions),
        _without_effect(MODEL_ELSEWHERE),
        "Its `parameters.mllib` takes, besides the options of its library below:",
        _options(OriginOptions),
        "## Training",
        "The top level of `POST /train`:",
        _options(TrainRequest),
        "## Prediction",
        "The top level of `POST /predict`:",
        _options(PredictRequest),
    ]
    for connector in catalog.connectors().values():
        blocks += [f"## `parameters.input` of the connector `{connector.name}`", _options(connector.options)]
        blocks.append(_without_effect(connector.elsewhere))
    for library in catalog.libraries().values():
        blocks += [f"## `parameters.mllib` of `{library.name}`", _options(library.options)]
        blocks.append(_without_effect(library.elsewhere))
        blocks += _groups(library.options, "parameters.mllib", f" of `{library.name}`")
    blocks += ["## `parameters.output`", _options(OutputOptions), _without_effect(OUTPUT_ELSEWHERE)]
    blocks += _groups(OutputOptions, "parameters.output")
    blocks += ["## What comes later", _later()]
    return _page(*blocks)


# Settings


def _setting_default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        # The number of cores differs from machine to machine: the text says where it comes from.
        return _code(f"~/{made.relative_to(Path.home())}") if isinstance(made, Path) else _NOTHING
    value = field.default
    if value is None or value in ("", ()):
        return _NOTHING
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _code(str(value)) + _in_binary(field.name, value)


def _in_binary(name: str, value: Any) -> str:
    if not name.endswith("_bytes"):
        return ""
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if value >= 2**power:
            return f" ({value / 2**power:g} {unit})"
    return ""


def _settings() -> str:
    rows = [
        [_code(field.metadata["variable"]), _setting_default(field), _cell(field.metadata["text"])]
        for field in dataclasses.fields(Settings)
    ]
    return _page(
        _HINT,
        "# Settings",
        "Every setting is an environment variable. They are read once, when a process starts; a value that cannot be "
        "used\nstops it with the name of the variable. An empty variable counts as absent. Every process of a fleet "
        "is given the\nsame values unless [operations](operations.md) says otherwise.",
        _table(["variable", "default", "meaning"], rows),
        "The commands that speak with a server also read `MODELYARD_URL` and `MODELYARD_KEY`: see\n"
        "[the command line](cli.md#which-server).",
        "Credentials of the object store are not among them: boto3 finds those where it always does, in `AWS_*` "
        "variables,\nfiles or roles.",
    )


# Commands


def _commands() -> str:
    blocks = [
        _HINT,
        "# Commands",
        "What `modelyard --help` and the `--help` of each command print. How they are used is told in "
        "[the command line](cli.md).",
    ]
    for words, command in _with_those_inside(("modelyard",), main_command):
        blocks += [f"## `{' '.join(words)}`", f"```\n{_help(words, command)}\n```"]
    return _page(*blocks)


def _with_those_inside(
    words: tuple[str, ...], command: click.Command
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _with_those_inside((*words, name), command.commands[name])


def _help(words: Sequence[str], command: click.Command) -> str:
    # A width of its own: the page must not depend on the terminal that it is written on.
    with click.Context(command, info_name=" ".join(words), terminal_width=100, max_content_width=100) as context:
        return command.get_help(context)


if __name__ == "__main__":
    sys.exit(main())
