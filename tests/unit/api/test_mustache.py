"""The templates of `output.template`: hand-worked cases, limits, and a library where the dialects agree."""

from __future__ import annotations

import html
import json
import time
from typing import Any

import pystache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import mustache
from api.mustache import BadTemplate, TooMuch, compiled

ANSWER: dict[str, Any] = {
    "status": {"code": 200, "msg": "OK"},
    "head": {"method": "/predict", "time": 12.0, "service": "iris"},
    "body": {
        "predictions": [
            {"uri": "1", "classes": [{"prob": 0.93, "cat": "A & B"}, {"prob": 0.07, "cat": "it's", "last": True}]},
            {"uri": "2", "classes": [{"prob": 1.0, "cat": "<c>", "last": True}]},
        ]
    },
}


def rendered(template: str, document: Any) -> str:
    return compiled(template).render(document)


# What tags do


@pytest.mark.parametrize(
    ("template", "document", "made"),
    [
        ("plain } text { with }} braces", {}, "plain } text { with }} braces"),
        ("{{a}}", {"a": "& \" ' < > é"}, "&amp; &quot; &apos; &lt; &gt; é"),
        ("{{{a}}}{{& a }}", {"a": "<'"}, "<'<'"),
        ("{{ a.b.c }}", {"a": {"b": {"c": 10}}}, "10"),
        ("{{a.b.c.d}}|{{nowhere}}", {"a": {"b": {"c": 10}}}, "|"),
        ('{{"a.b"."c d"}}', {"a.b": {"c d": "quoted"}}, "quoted"),
        ("{{.a.}}", {"a": 1}, "1"),
        ("{{a}}{{b}}{{c}}", {"a": None, "b": [1], "c": {"d": 1}}, ""),
        ("{{a}} {{b}}", {"a": True, "b": False}, "true false"),
        ("{{a}}", {"a": 9223372036854775807}, "9223372036854775807"),
        # Sections
        ("{{#a}}{{b}};{{/a}}", {"a": [{"b": 1}, {"b": 2}, {}]}, "1;2;;"),
        ("{{#a}}{{.}},{{/a}}", {"a": [1, "x", 0.5, True]}, "1,x,0.5,true,"),
        ("{{#a}}{{#.}}{{.}}{{/.}};{{/a}}", {"a": [[1, 2], [3]]}, "12;3;"),
        ("{{#a}}{{b}}{{/a}}", {"a": {"b": 10}, "b": 20}, "10"),
        ("{{#a}}in{{/a}}", {"a": 0}, "in"),
        ("{{#a}}in{{/a}}", {"a": ""}, "in"),
        ("{{#a}}in{{/a}}{{#b}}in{{/b}}{{#c}}in{{/c}}{{#d}}in{{/d}}", {"a": False, "b": None, "c": []}, ""),
        ("{{#a.b}}{{.}}{{/a.b}}", {"a": {"b": [1, 2]}}, "12"),
        # Names are not looked up further out.
        ("{{#a}}[{{b}}]{{/a}}", {"a": {}, "b": 20}, "[]"),
        ("{{#a}}[{{b}}]{{/a}}", {"a": True, "b": 20}, "[]"),
        # Without entering
        ("{{?a}}{{b}}{{/a}}", {"a": {"b": 10}, "b": 20}, "20"),
        ("{{?a}}{{b}}{{/a}}", {"a": [1, 2, 3], "b": 20}, "20"),
        ("{{?a}}in{{/a}}{{?b}}in{{/b}}{{?c}}in{{/c}}", {"a": False, "b": None}, ""),
        ("{{^a}}{{b}}{{/a}}", {"b": 1}, "1"),
        ("{{^a}}out{{/a}}{{^b}}out{{/b}}", {"a": False, "b": True}, "out"),
        ("{{^a}}out{{/a}}{{?a}}in{{/a}}", {"a": []}, "in"),
        ("{{=a foo}}same{{/a}}", {"a": "foo"}, "same"),
        ("{{=a FoO  }}same{{/a}}", {"a": "foo"}, "same"),
        ("{{= a two words }}{{b}}{{/a}}", {"a": "Two Words", "b": "same"}, "same"),
        ("{{=a foo}}same{{/a}}", {"a": "bar"}, ""),
        ("{{=a 1}}same{{/a}}", {"a": 1}, ""),
        ("{{!=a foo}}other{{/a}}", {"a": "bar"}, "other"),
        ("{{!=a foo}}other{{/a}}", {"a": "foo"}, ""),
        ("{{!=a foo}}other{{/a}}", {}, "other"),
        ("{{=a.b x}}{{=c y}}both{{/c}}{{/a.b}}", {"a": {"b": "x"}, "c": "y"}, "both"),
        # Length
        ("{{%a}} {{%b}} {{%c}} {{%d}}{{%e}}", {"a": [1, 2, 3], "b": [], "c": "abcdefg", "d": 8}, "3 0 7 "),
        # Comments, and lines of tags alone, which stay
        ("a{{! no } tag, = and {{ neither }}b", {}, "ab"),
        ("{{#a}}\n- {{.}}\n{{/a}}\n", {"a": [1, 2]}, "\n- 1\n\n- 2\n\n"),
        # Braces of JSON around tags
        ('{"a":{"b":{{b}}}}', {"b": 1}, '{"a":{"b":1}}'),
        ('{"a":{{{b}}}}', {"b": '"x"'}, '{"a":"x"}'),
        (
            '[{{#a}}{"v":{{v}}}{{^last}},{{/last}}{{/a}}]',
            {"a": [{"v": 1}, {"v": 2, "last": True}]},
            '[{"v":1},{"v":2}]',
        ),
    ],
)
def test_tags_do_what_the_dialect_says(template: str, document: Any, made: str):
    assert rendered(template, document) == made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93, "0.93"),
        (12.0, "12"),
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333"),
        (123456.0, "123456"),
        (1234567.0, "1.23457e+06"),
        (1e6, "1e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-2.5e-300, "-2.5e-300"),
        (float("nan"), ""),
        (float("inf"), ""),
    ],
)
def test_numbers_with_a_fraction_look_as_a_c_stream_writes_them(value: float, text: str):
    assert rendered("{{a}}", {"a": value}) == text


def test_whole_answer_can_be_written_anew():
    template = (
        '{"{{head.service}}":[{{#body.predictions}}{"{{uri}}":{ {{#classes}}"{{{cat}}}":{{prob}}'
        "{{^last}},{{/last}}{{/classes}} }}{{=uri 1}},{{/uri}}{{/body.predictions}}]}"
    )
    assert json.loads(rendered(template, ANSWER)) == {"iris": [{"1": {"A & B": 0.93, "it's": 0.07}}, {"2": {"<c>": 1}}]}


# What is no template


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a\n  {{b", "line 2 column 3: the tag is not closed; end it with }}"),
        ("{{{b}}", "line 1 column 1: the tag is not closed; end it with }}}"),
        ("{{#a}}", "line 1 column 1: the section is not closed; end it with {{/a}}"),
        ("x\ny{{=a.b word}}z", "line 2 column 2: the section is not closed; end it with {{/a.b}}"),
        ("{{#a}}{{#b}}{{/a}}{{/b}}", "line 1 column 13: {{/a}} stands where {{/b}} must close the open section"),
        ("x{{/a}}", "line 1 column 2: {{/a}} closes no section: none is open"),
        ("{{ }}", "the tag is empty"),
        ("{{#}}{{/}}", "'' is no name"),
        ("{{a b}}", "'a b' is no name; names are keys with dots between them, as in {{head.time}}"),
        ("{{{{a}}}}", "'{a' is no name"),
        ("{{a..b}}", "'a..b' is no name"),
        ("{{=a}}{{/a}}", "a comparison needs a name and a text, as in {{=cat dog}}"),
        ("{{!= a }}{{/a}}", "a comparison needs a name and a text"),
        ("{{=<% %>=}}", "delimiters cannot be changed"),
        ("{{> part}}", "partials are not offered"),
        ("{{<parent}}{{/parent}}", "parents are not offered"),
        ("{{$block}}{{/block}}", "blocks are not offered"),
        ("{{#a}}" * 33 + "{{/a}}" * 33, "more than 32 sections stand inside each other"),
        ("x" * (mustache.TEMPLATE_LIMIT + 1), "it has 65537 characters; 65536 are the most"),
    ],
)
def test_bad_template_is_refused_with_place_and_reason(template: str, text: str):
    with pytest.raises(BadTemplate) as refusal:
        compiled(template)
    assert text in str(refusal.value)


# Limits


@pytest.mark.parametrize(
    "unit", ["{{", "{", "}}", "{{a.", "{{=a.", "{{.", '{{"', '{{"a".', "{{=a ", "{{!", "{{#a}}", "{{/"]
)
def test_no_text_takes_long_to_refuse_or_compile(unit: str):
    text = (unit * mustache.TEMPLATE_LIMIT)[: mustache.TEMPLATE_LIMIT - 2]
    began = time.monotonic()
    for each in (text, text + "}}"):
        refusal = ""
        try:
            compiled(each)
        except BadTemplate as error:
            refusal = str(error)
        assert len(refusal) < 200
    assert time.monotonic() - began < 2.0


def test_output_is_limited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mustache, "OUTPUT_LIMIT", 1000)
    document = {"a": ["x" * 10] * 100}
    assert len(rendered("{{#a}}{{.}}{{/a}}", document)) == 1000
    with pytest.raises(TooMuch, match="more than 1000 characters"):
        rendered("{{#a}}{{.}}{{/a}}!", document)


def test_steps_are_limited_also_where_nothing_is_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mustache, "STEP_LIMIT", 1000)
    document = {"a": [[{}] * 10] * 10}
    assert rendered("{{#a}}{{#.}}{{b}}{{/.}}{{/a}}", document) == ""
    with pytest.raises(TooMuch, match="more than 1000 steps"):
        rendered("{{#a}}{{#.}}{{b}}{{/.}}{{/a}}" * 10, document)


# Laws

DEEPEST = 2
SCALARS = ("text", "number", "absent")
SECTIONS = ("list", "list", "object", "text", "number", "absent")


def documents(depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose keys are found at one depth only, so that it does not matter whether names are inherited.

    Neither empty arrays, 0 nor empty texts: what counts as false differs.
    """
    kinds: dict[str, st.SearchStrategy[Any]] = {
        f"text{depth}": st.text("ab<>&\"' é", min_size=1, max_size=5),
        f"number{depth}": st.integers(1, 10**18),
        f"flag{depth}": st.booleans(),
    }
    if depth < DEEPEST:
        inner = documents(depth + 1)
        kinds[f"list{depth}"] = st.lists(st.one_of(inner, st.integers(1, 9)), min_size=1, max_size=3)
        kinds[f"object{depth}"] = inner
    return st.fixed_dictionaries(kinds)


@st.composite
def templates(draw: st.DrawFn, depth: int = 0) -> str:
    """Templates of tags that all dialects share, for `documents`."""
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(
            st.sampled_from(["plain", "value", "raw", "dotted", "dot", "comment", "flag", "section", "section", "not"])
        )
        name = f"{draw(st.sampled_from(SCALARS))}{depth}"
        match kind:
            case "plain":
                pieces.append(draw(st.sampled_from(["x", " y ", "{", "}", "}}", "."])) + " ")
            case "value":
                pieces.append(f"{{{{ {name} }}}}")
            case "raw":
                pieces.append(draw(st.sampled_from(["{{{%s}}}", "{{& %s}}"])) % name)
            case "dotted":
                pieces.append(f"{{{{object{depth}.text{depth + 1}}}}}")
            case "comment":
                pieces.append("{{! a comment }}")
            case "flag":  # nothing of it is written: true is another word there
                opening = draw(st.sampled_from("#^"))
                pieces.append(f"{{{{{opening}flag{depth}}}}}is so{{{{/flag{depth}}}}}")
            case "section" if depth <= DEEPEST:
                key = f"{draw(st.sampled_from(SECTIONS))}{depth}"
                pieces.append(f"{{{{#{key}}}}}{draw(templates(depth + 1))}{{{{/{key}}}}}")
            case "not":
                key = f"{draw(st.sampled_from(SECTIONS))}{depth}"
                pieces.append(f"{{{{^{key}}}}}{{{{{name}}}}}{{{{/{key}}}}}")
            case "dot" if depth:
                pieces.append(f"{{{{^text{depth}}}}}{{{{.}}}}{{{{/text{depth}}}}}")
    return "".join(pieces)


def escape(text: str) -> str:
    return html.escape(text).replace("&#x27;", "&apos;")


@settings(max_examples=300, deadline=None)
@given(templates(), documents())
def test_where_the_dialects_agree_a_library_makes_the_same(template: str, document: dict[str, Any]):
    expected = pystache.Renderer(escape=escape, missing_tags="ignore").render(template, document)
    assert rendered(template, document) == expected


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3)
    ),
    max_leaves=10,
)
ODD_TEXTS = st.lists(
    st.sampled_from(
        ["{{", "}}", "{{{", "}}}", "{", "}", "#", "^", "?", "/", "=", "!", "%", "&", ">", "a", "b", ".", " ", '"', "\n"]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(ODD_TEXTS, JSON_VALUES)
def test_any_text_is_a_template_or_refused_and_fits_any_document(text: str, document: Any):
    try:
        made = compiled(text).render(document)
    except BadTemplate as error:
        made = str(error)
    assert isinstance(made, str)


@given(st.text(max_size=50).filter(lambda text: "{{" not in text), JSON_VALUES)
def test_text_without_tags_stays_as_it_is(text: str, document: Any):
    assert rendered(text, document) == text


@given(JSON_VALUES)
def test_if_and_its_opposite_exclude_each_other(document: Any):
    assert rendered("{{?a}}yes{{/a}}{{^a}}no{{/a}}", document) in {"yes", "no"}
    assert rendered("{{=a b}}yes{{/a}}{{!=a b}}no{{/a}}", document) in {"yes", "no"}
