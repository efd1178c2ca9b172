"""How predictions and answers travel: what is put in comes out, and numbers that JSON lacks do not."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.json_text import dump, finite
from ml.options.loading import Warning
from ml.serving import Prediction
from workers.asked import Answer, Asked, failed, told

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), st.text(), max_size=3), st.none() | st.lists(st.text(), max_size=4))
def test_head_and_data_come_out_as_they_went_in(head: dict[str, str], data: list[str] | None):
    asked = Asked(json.dumps(head).encode(), b"" if data is None else orjson.dumps(data))
    assert Asked.split(asked.joined()) == asked


def test_line_feeds_in_data_do_not_end_the_head():
    asked = Asked(b'{"a":1}', orjson.dumps(["1,2\n3,4", "\n", ""]))
    assert asked.joined().count(b"\n") == 1
    assert Asked.split(asked.joined()) == asked


def test_no_data_is_something_else_than_none():
    assert Asked.split(Asked(b"{}", b"[]").joined()).data == b"[]"
    assert Asked.split(Asked(b"{}", b"").joined()).data == b""


def test_answer_says_what_it_is_before_its_content():
    rows = [{"uri": "1", "classes": [{"prob": 0.25, "cat": "ä\n", "last": True}]}, {"uri": "2", "classes": []}]
    answer = Answer.split(told(Prediction(rows), {"compute": 1.23456, "queued": 0.0}, together=3, rows=2))
    assert answer == Answer("predictions", dump(rows), 2, {"compute": 1.235, "queued": 0.0}, [], None, 3)
    assert json.loads(answer.content) == rows


def test_measures_go_instead_of_predictions():
    answer = Answer.split(told(Prediction(measure={"acc": 0.5, "mcll": math.nan}), {}, together=1, rows=150))
    assert (answer.name, answer.content, answer.count) == ("measure", b'{"acc":0.5}', 150)


def test_empty_measures_are_measures():
    answer = Answer.split(told(Prediction(measure={}), {}, together=1, rows=1))
    assert (answer.name, answer.content) == ("measure", b"{}")


def test_warnings_travel_with_the_answer():
    made = Prediction([], warnings=[Warning("data", "columns were ignored")])
    answer = Answer.split(told(made, {}, together=1, rows=1))
    assert answer.warnings == [{"parameter": "data", "message": "columns were ignored"}]


@pytest.mark.parametrize("section", [None, "input"])
def test_error_says_its_kind_message_and_section(section: str | None):
    answer = Answer.split(failed("bad_input", "line 1\nis no number: ä", section))
    assert answer.error == {"kind": "bad_input", "message": "line 1\nis no number: ä", "section": section}
    assert (answer.name, answer.content, answer.count, answer.together) == ("", b"", 0, 1)


@given(JSON)
def test_what_is_dumped_is_json_and_the_finite_value(value: Any):
    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(dump(value), parse_constant=refuse) == finite(value)


def test_numbers_that_json_lacks_leave_objects_and_become_null_in_arrays():
    wild = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, None)], "c": {"d": math.nan}, "e": None}
    assert finite(wild) == {"b": [None, 1.5, [None, None]], "c": {}, "e": None}
    assert json.loads(dump(wild)) == finite(wild)
    assert (finite(math.nan), dump(math.inf)) == (None, b"null")


@given(JSON)
def test_values_without_such_numbers_stay_as_they_are(value: Any):
    once = finite(value)
    assert finite(once) == once


def test_what_a_later_version_adds_is_overlooked():
    asked = Asked(b'{"a":1}', b'["1,2"]', "00-trace")
    assert Asked.split(asked.joined() + b"\nlater line\nand more") == asked
    answer = Answer.split(b'{"name":"predictions","count":2,"later":{"x":1}}\n[1,2]')
    assert (answer.name, answer.count, answer.content) == ("predictions", 2, b"[1,2]")
