"""One declaration per option: the schema, the type, the text."""

from dataclasses import dataclass, fields

import pytest
from marshmallow import Schema

from ml.errors import BadParameter
from ml.options.catalog import connectors, libraries
from ml.options.csv import CsvOptions
from ml.options.loading import (
    Choice,
    Flag,
    Group,
    Range,
    Real,
    Several,
    Table,
    Text,
    Whole,
    allowed_by,
    as_json,
    load,
    option,
    schema_of,
)
from ml.options.output import OutputOptions
from ml.options.service import ModelOptions, ServiceHead
from ml.options.xgboost import BoosterOptions, XGBoostOptions

ALL = (CsvOptions, OutputOptions, XGBoostOptions, BoosterOptions, ModelOptions, ServiceHead)


@dataclass(frozen=True)
class Inner:
    share: float = option(Real(validate=Range(0.0, 1.0, above=True)), "A share.", default=0.5, key="part")


@dataclass(frozen=True)
class Outer:
    count: int = option(Whole(validate=Range(1, 9)), "A count.", default=1, other_keys=("number",), unit="things")
    word: str = option(Text(validate=Choice("red", "green")), "A colour.", default="red")
    names: tuple[str, ...] = option(Several(Text()), "Names.", default=())
    flag: bool = option(Flag(), "A flag.", default=False)
    table: dict[str, int] = option(  # noqa: RUF009
        Table(Whole()), "Numbers by name.", factory=dict
    )
    inner: Inner = option(  # noqa: RUF009
        Group(Inner), "More.", factory=Inner
    )


def read(given):
    return load(
        Outer, given, path="parameters.mllib", section="mllib", owner="the test", elsewhere={"old": "it is old"}
    )


def test_absent_and_null_options_keep_their_defaults():
    loaded = read({"count": None, "inner": None})
    assert loaded.value == Outer()
    assert loaded.warnings == []


def test_values_are_read_liberally_where_nothing_is_lost():
    value = read({"count": 3.0, "names": "a", "flag": 1, "inner": {"part": 1}}).value
    assert value == Outer(count=3, names=("a",), flag=True, inner=Inner(share=1.0))


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"count": "3"}, "a whole number, at least 1 and at most 9"),
        ({"count": True}, "a whole number"),
        ({"count": 2.5}, "a whole number"),
        ({"count": 10}, "at most 9"),
        ({"count": float("nan")}, "a whole number"),
        ({"count": [1]}, "a whole number"),
        ({"word": "blue"}, "one of red, green"),
        ({"word": 3}, "one of red, green"),
        ({"names": ["a", 3]}, "a text or a list of them"),
        ({"names": {"a": 1}}, "a text or a list of them"),
        ({"flag": 2}, "true or false"),
        ({"flag": "true"}, "true or false"),
        ({"table": {"a": "b"}}, "an object whose values are a whole number"),
        ({"table": []}, "an object whose values are a whole number"),
        ({"inner": 3}, "it must be an object"),
        ({"inner": {"part": 0}}, "a number, above 0 and at most 1"),
        ({"inner": {"part": float("inf")}}, "a number"),
        ({"inner": {"part": 10**400}}, "a number"),
        ({"count": 10**400}, "at most 9"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(given, allowed):
    with pytest.raises(BadParameter) as caught:
        read(given)
    assert allowed in str(caught.value)
    assert caught.value.name.startswith("parameters.mllib.")
    assert caught.value.name in str(caught.value)
    assert caught.value.section == "mllib"
    assert len(str(caught.value)) < 400


def test_an_object_is_wanted_where_options_stand():
    with pytest.raises(BadParameter, match=r"parameters\.mllib is \[1\]; it must be an object"):
        read([1])


def test_unknown_names_are_warnings_with_the_nearest_known_name():
    loaded = read({"conut": 3, "zzz": 1, "inner": {"prat": 0.1}})
    assert loaded.value == Outer()
    assert [(w.parameter, "did you mean" in w.message) for w in loaded.warnings] == [
        ("parameters.mllib.conut", True),
        ("parameters.mllib.zzz", False),
        ("parameters.mllib.inner.prat", True),
    ]
    assert "'count'" in loaded.warnings[0].message


def test_a_name_that_stands_one_level_too_high_is_told_where_it_belongs():
    [warning] = read({"part": 0.1}).warnings
    assert "did you mean 'parameters.mllib.inner.part'?" in warning.message


def test_known_names_without_effect_say_why_unless_they_are_off():
    assert [w.message for w in read({"old": True}).warnings] == ["parameters.mllib.old was ignored: it is old"]
    assert read({"old": False}).warnings == []


def test_other_names_of_an_option_set_it_and_the_first_one_wins():
    assert read({"number": 4}).value.count == 4
    loaded = read({"number": 4, "count": 5})
    assert loaded.value.count == 4
    assert [w.parameter for w in loaded.warnings] == ["parameters.mllib.count"]


def test_options_go_back_to_json_under_their_json_names():
    value = Outer(count=2, names=("a", "b"), inner=Inner(0.25))
    assert as_json(value)["inner"] == {"part": 0.25}
    assert read(as_json(value)).value == value


@pytest.mark.parametrize("into", ALL)
def test_every_option_has_a_sentence_an_allowed_form_and_a_default_that_is_allowed(into):
    schema = schema_of(into)
    assert isinstance(schema, Schema)
    texts = [field.metadata["description"] for field in schema.fields.values()]
    assert len(set(texts)) == len(texts), "each option has a sentence of its own"
    for each in fields(into):
        assert each.metadata["text"].endswith("."), each.name
        assert len(each.metadata["text"].split()) >= 3, each.name
        assert allowed_by(schema.fields[each.name])


def test_every_library_names_connectors_that_exist():
    for library in libraries().values():
        assert set(library.connectors) <= set(connectors())
        assert library.types
        assert library.devices
