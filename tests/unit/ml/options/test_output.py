"""Options of the output, and where a prediction is sent."""

from __future__ import annotations

from typing import Any

import pytest

from ml.errors import BadParameter
from ml.options.loading import Loaded, as_json, load
from ml.options.output import ELSEWHERE, OutputOptions, check


def loaded(given: dict[str, Any]) -> Loaded[OutputOptions]:
    return load(
        OutputOptions,
        given,
        path="parameters.output",
        section="output",
        owner="the output",
        elsewhere=ELSEWHERE,
    )


def test_what_is_left_out_asks_for_nothing():
    options = loaded({}).value
    assert options.template == ""
    assert options.network is None
    assert options.binary is None
    assert options.best is None
    assert options.target_repository == ""
    assert check(options) == []


def test_network_needs_its_address_only():
    network = loaded({"network": {"url": "http://files.local/hook"}}).value.network
    assert network is not None
    assert as_json(network) == {
        "url": "http://files.local/hook",
        "http_method": "POST",
        "content_type": "Content-Type: application/json",
    }
    assert network.headers == {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("Content-Type: text/plain", "Content-Type: text/plain"),
        ("content-type:text/csv; charset=utf-8", "Content-Type: text/csv; charset=utf-8"),
        ("application/vnd.api+json", "Content-Type: application/vnd.api+json"),
        (' Content-Type : text/x-a;b="c d" ', 'Content-Type: text/x-a;b="c d"'),
    ],
)
def test_content_type_is_a_header_line_or_its_value(given: str, line: str):
    network = loaded({"network": {"url": "x", "content_type": given}}).value.network
    assert network is not None
    assert network.content_type == line


@pytest.mark.parametrize(
    "given",
    [
        "Content-Type: text/plain\r\nX-Other: 1",
        "Content-Type: text/plain\nX-Other: 1",
        "text/plain\r\n\r\nbody",
        "Content-Type: text/plain\n",
        "X-Other: a/b",
        "Authorization: Basic a/b",
        "Content-Type: ",
        "Content-Type: nonsense",
        "Content-Type: text/plain\x00",
        "Content-Type: text/pläin",
        "",
        7,
    ],
)
def test_nothing_but_one_content_type_is_taken(given: Any):
    with pytest.raises(BadParameter, match="must be one header line of printable characters") as refusal:
        loaded({"network": {"url": "x", "content_type": given}})
    assert (refusal.value.name, refusal.value.section) == ("parameters.output.network.content_type", "output")


def test_methods_are_a_choice_in_any_case():
    network = loaded({"network": {"url": "x", "http_method": "put"}}).value.network
    assert network is not None
    assert network.http_method == "PUT"
    for given in ("TRACE", "POST /x HTTP/1.1", ""):
        with pytest.raises(BadParameter, match="one of POST, PUT, PATCH, GET, DELETE"):
            loaded({"network": {"url": "x", "http_method": given}})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"template": ["{{a}}"]}, "parameters.output.template is .* must be a text"),
        ({"network": "http://files.local"}, "parameters.output.network is .* must be an object"),
        ({"network": {"url": 7}}, "parameters.output.network.url is 7; it must be a text"),
        ({"target_repository": 1}, "must be a text"),
        ({"best": -2}, "at least -1"),
        ({"best": 1.5}, "a whole number"),
        ({"confidence_threshold": 1.1}, "at least 0 and at most 1"),
        ({"bool_binarized": "yes"}, "true or false"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], text: str):
    with pytest.raises(BadParameter, match=text) as refusal:
        loaded(given)
    assert refusal.value.section == "output"


def test_unknown_members_of_network_are_warned_of():
    [warning] = loaded({"network": {"url": "x", "method": "POST"}}).warnings
    assert warning.parameter == "parameters.output.network.method"
    assert "did you mean 'http_method'?" in warning.message


def test_each_way_to_write_signs_has_its_name_and_two_exclude_each_other():
    assert loaded({"binarized": True}).value.binary == "numbers"
    assert loaded({"bool_binarized": True}).value.binary == "booleans"
    assert loaded({"string_binarized": True}).value.binary == "text"
    with pytest.raises(BadParameter, match="binarized and string_binarized say different things"):
        check(loaded({"binarized": True, "string_binarized": True}).value)


def test_what_comes_later_is_named_when_it_is_asked_for():
    warnings = loaded({"bbox": True, "search": True, "rois": False}).warnings
    assert {each.parameter for each in warnings} == {"parameters.output.bbox", "parameters.output.search"}
    assert all("it comes later, with" in each.message for each in warnings)
