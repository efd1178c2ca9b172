"""Attacks by way of a template: to read more than the answer, to run something, to write or to work without end."""

from __future__ import annotations

import time
from typing import Any

import pystache
import pytest

from api import mustache
from api.mustache import BadTemplate, TooMuch, compiled

ANSWER = {"body": {"predictions": [{"uri": "1", "classes": [{"cat": "a", "prob": 0.5}]}]}}


def rendered(text: str, document: Any) -> str:
    return compiled(text).render(document)


def naively(text: str, document: Any) -> str:
    """By a library of the common dialect, without any lock."""
    made: str = pystache.Renderer(missing_tags="ignore").render(text, document)
    return made


# Reading and running what is none of its business


class Account:
    """What a document could hold by mistake, beside JSON."""

    secret = "of the server"

    def tell(self) -> str:
        return "what a call returns"


@pytest.mark.parametrize(
    "text",
    [
        "{{account.secret}}",
        "{{{account.tell}}}",
        "{{#account}}{{secret}}{{/account}}",
    ],
)
def test_members_of_objects_are_not_read_and_not_called(text: str):
    document = {"account": Account(), "body": {}}
    assert rendered(text, document) == ""
    # The lock open:
    assert naively(text, document) != ""


@pytest.mark.parametrize(
    "text", ["{{__class__}}", "{{body.__init__.__globals__}}", "{{body.predictions.0.uri}}", "{{a.keys}}"]
)
def test_names_are_keys_and_nothing_else(text: str):
    assert rendered(text, ANSWER) == ""


def test_text_of_a_value_is_never_a_template():
    document = {"a": "{{b}}", "b": "{{#a}}x{{/a}}"}
    assert rendered("{{{a}}} {{{b}}}", document) == "{{b}} {{#a}}x{{/a}}"
    # The lock open: a lambda has its result made into a template.
    assert naively("{{#l}}{{/l}}", {"l": lambda text: "{{secret}}", "secret": "of the server"}) == "of the server"


def test_sections_cannot_be_entered_anew_from_inside():
    """Where names are looked up outwards as well, each section inside of itself multiplies what is written."""
    document = {"a": ["x"] * 10}
    text = "{{#a}}" * 4 + "{{.}}" + "{{/a}}" * 4
    assert rendered(text, document) == ""
    # The lock open:
    assert len(naively(text, document)) == 10**4


@pytest.mark.parametrize("text", ["{{> a}}", "{{>/etc/passwd}}", "{{< a}}{{/a}}", "{{$ a}}{{/a}}", "{{*a}}", "{{~ a}}"])
def test_other_templates_and_files_are_not_taken_in(text: str):
    with pytest.raises(BadTemplate, match="not"):
        compiled(text)


@pytest.mark.parametrize("text", ["{{=<% %>=}}<% a %>", "{{=| |=}}", "{{= = = =}}", "{{={{ }}=}}"])
def test_marks_of_tags_stay_as_they_are(text: str):
    with pytest.raises(BadTemplate):
        compiled(text)


# Writing and working without end

BIG = {"a": [{"b": [{"c": "x" * 100}] * 100}] * 100}


def test_output_ends_at_the_limit_and_only_there(monkeypatch: pytest.MonkeyPatch):
    text = "{{#a}}{{#b}}{{c}}{{c}}{{/b}}{{/a}}"
    monkeypatch.setattr(mustache, "OUTPUT_LIMIT", 100_000)
    with pytest.raises(TooMuch, match="more than 100000 characters"):
        rendered(text, BIG)
    # The lock open:
    monkeypatch.setattr(mustache, "OUTPUT_LIMIT", 10**9)
    assert len(rendered(text, BIG)) == 2_000_000


def test_work_ends_at_the_limit_and_only_there(monkeypatch: pytest.MonkeyPatch):
    text = "{{#a}}{{#b}}" + "{{d}}" * 20 + "{{/b}}{{/a}}"
    monkeypatch.setattr(mustache, "STEP_LIMIT", 100_000)
    with pytest.raises(TooMuch, match="more than 100000 steps"):
        rendered(text, BIG)
    # The lock open:
    monkeypatch.setattr(mustache, "STEP_LIMIT", 10**9)
    assert rendered(text, BIG) == ""


def test_sections_in_each_other_end_at_the_limit_and_only_there(monkeypatch: pytest.MonkeyPatch):
    text = "{{#a}}" * 33 + "{{/a}}" * 33
    with pytest.raises(BadTemplate, match="more than 32 sections"):
        mustache._Parser(text).parse()
    # The lock open: a section for each level of the machine's own calls.
    monkeypatch.setattr(mustache, "DEPTH_LIMIT", 10**6)
    document: Any = {}
    document["a"] = document
    with pytest.raises(RecursionError):
        mustache.Template(mustache._Parser("{{#a}}" * 2000 + "{{/a}}" * 2000).parse()).render(document)


def test_long_text_is_not_gone_through_for_each_comparison():
    document = {"a": "X" * 10_000_000}
    text = "{{=a x}}{{/a}}{{!=a x}}{{/a}}" * 2000
    began = time.process_time()
    rendered(text, document)
    took_s = time.process_time() - began
    # The lock open: what one of the comparisons would have cost.
    began = time.process_time()
    assert document["a"].lower() != "x"
    assert took_s < 4000 * (time.process_time() - began) / 20


@pytest.mark.parametrize(("value", "word"), [("İ", "i̇"), ("ẞ", "ß"), ("STRASSE", "strasse"), ("ǅ", "ǆ")])
def test_text_is_compared_in_lower_case_as_before(value: str, word: str):
    assert rendered(f"{{{{=a {word}}}}}yes{{{{/a}}}}", {"a": value}) == ("yes" if value.lower() == word.lower() else "")


@pytest.mark.parametrize("key", ["a" * 30_000, ".".join(["a"] * 30_000), '"' + "a b" * 10_000 + '"', "." * 30_000])
def test_long_names_take_no_time(key: str):
    began = time.process_time()
    try:
        rendered(f"{{{{#list}}}}{{{{{key}}}}}{{{{/list}}}}", {"list": [{"a": {}}] * 10_000})
    except BadTemplate as error:
        assert "is no name" in str(error)  # noqa: PT017  # either is right
    assert time.process_time() - began < 2.0
