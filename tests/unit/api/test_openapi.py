"""/openapi.json: valid, whole, and true of the options that it is made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.errors import CODES
from api.openapi.document import OPERATIONS, document
from api.schemas.reading import read
from api.schemas.train import PredictRequest, TrainRequest
from ml.errors import BadParameter
from ml.options import load_prediction, load_service, load_training, merge
from ml.options.catalog import connectors, libraries
from ml.options.loading import Flag, Group, keys_of, load, schema_of
from ml.options.output import OutputOptions
from ml.options.service import ModelOptions, OriginOptions, ServiceHead
from storage.records import Records
from tests.documented import the_document, validator

Json = dict[str, Any]

OPTIONS: list[type] = [
    *(each.options for each in connectors().values()),
    *(each.options for each in libraries().values()),
    OutputOptions,
    ModelOptions,
    OriginOptions,
]


WITHOUT_BODY = {
    ("put", "/datasets/{name}"),
    ("post", "/datasets/{name}/describe"),
    ("post", "/datasets/{name}/uploads/{number}/complete"),
    ("post", "/webhooks/{number}/test"),
    ("post", "/webhooks/{number}/deliveries/{delivery}/replay"),
}


@pytest.fixture
def whole(app: Flask) -> Json:
    return the_document(app)


def operations(whole: Json) -> list[tuple[str, str, Json]]:
    return [(path, verb, made) for path, verbs in whole["paths"].items() for verb, made in verbs.items()]


def test_document_is_valid_openapi_and_served_to_everybody(client: FlaskClient, records: Records):
    records.keys.create("ann")
    answer = client.get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(answer.json).iter_errors()) == []


def test_every_route_of_the_app_is_documented_and_no_other(app: Flask, whole: Json):
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), verb.lower())
        for rule in app.url_map.iter_rules()
        for verb in rule.methods or ()
        if verb not in {"HEAD", "OPTIONS"}
    }
    assert {(path, verb) for path, verb, _ in operations(whole)} == routes


def test_nothing_is_said_of_routes_that_do_not_exist(app: Flask):
    assert set(OPERATIONS) == {rule.endpoint for rule in app.url_map.iter_rules()}


def test_route_that_nothing_is_said_of_has_no_document(app: Flask):
    app.add_url_rule("/new", "new", lambda: "")
    with pytest.raises(KeyError, match="nothing is said of GET /new"):
        document(app, "0", ())


def test_every_route_is_described_with_all_that_it_takes_and_answers(whole: Json):
    ids = [made["operationId"] for _, _, made in operations(whole)]
    assert len(set(ids)) == len(ids)
    for path, verb, made in operations(whole):
        where = f"{verb} {path}"
        assert made["summary"], where
        assert made["description"].endswith("."), where
        assert made["tags"], where
        assert any(status.startswith("2") for status in made["responses"]), where
        for status, answer in made["responses"].items():
            assert answer["description"], where
            assert answer.get("content") or status in {"204", "304"}, (where, status)
        for parameter in made["parameters"]:
            assert parameter["description"].endswith("."), where
            assert parameter["schema"], where
        named = {each["name"] for each in made["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), where
        if verb in {"post", "put"} and (verb, path) not in WITHOUT_BODY:
            [content] = made["requestBody"]["content"].values()
            assert content["schema"], where
            assert content["examples"], where


def test_every_member_of_bodies_and_answers_is_described(whole: Json):
    for name, schema in whole["components"]["schemas"].items():
        for member, told in schema.get("properties", {}).items():
            assert "description" in told or "$ref" in told, f"{name}.{member}"


def schemas_in(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from schemas_in(each)


def test_every_array_says_what_it_holds_which_makers_of_clients_insist_on(whole: Json):
    for each in schemas_in(whole["components"]["schemas"]):
        if each.get("type") == "array" or (isinstance(each.get("type"), list) and "array" in each["type"]):
            assert "items" in each, each


def test_errors_of_a_route_are_those_of_the_table(whole: Json):
    for path, verb, made in operations(whole):
        for status, answer in made["responses"].items():
            for kind in re.findall(r"^- `(\w+)`: ", answer["description"], re.MULTILINE):
                assert CODES[kind].http == int(status), (verb, path, kind)
        needs_key = made.get("security") != []
        assert ("401" in made["responses"]) == needs_key, (verb, path)
    told = whole["paths"]["/train"]["get"]["responses"]["404"]
    assert "- `job_not_found`: The service has no job of that number" in told["description"]
    [_, narrow] = told["content"]["application/json"]["schema"]["allOf"]
    assert narrow["properties"]["status"]["properties"]["dd_code"] == {"enum": [1002, 1003]}


def test_keys_are_taken_in_three_ways_and_not_asked_for_by_the_open_routes(whole: Json):
    schemes = whole["components"]["securitySchemes"]
    assert {name: (each["type"], each.get("scheme", each.get("name"))) for name, each in schemes.items()} == {
        "key": ("apiKey", "X-API-KEY"),
        "bearer": ("http", "bearer"),
        "basic": ("http", "basic"),
    }
    unlocked = {path for path, _, made in operations(whole) if made.get("security") == []}
    assert unlocked == {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/{file}"}


def test_key_is_optional_only_where_none_is_in_force(
    client: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.access._FRESH_S", -1.0)
    assert {} in client.get("/openapi.json").json["security"]
    records.keys.create("ann")
    assert client.get("/openapi.json").json["security"] == [{"key": []}, {"bearer": []}, {"basic": []}]


def test_links_name_operations_and_all_that_these_need(whole: Json):
    by_id = {made["operationId"]: made for _, _, made in operations(whole)}
    links = [
        link
        for _, _, made in operations(whole)
        for answer in made["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert links
    for link in links:
        parameters = by_id[link["operationId"]]["parameters"]
        needed = {each["name"] for each in parameters if each["required"] and each["in"] != "header"}
        assert needed <= set(link["parameters"]) <= {each["name"] for each in parameters}, link


# Examples


def test_every_example_passes_the_schema_of_its_route(whole: Json):
    for path, verb, made in operations(whole):
        for parameter in made["parameters"]:
            if "example" in parameter:
                validator(whole, parameter["schema"]).validate(parameter["example"])
        for content in made.get("requestBody", {}).get("content", {}).values():
            for name, example in content["examples"].items():
                errors = list(validator(whole, content["schema"]).iter_errors(example["value"]))
                assert errors == [], (verb, path, name)


def test_every_example_is_read_without_a_warning():
    created = OPERATIONS["services.create"]["PUT"].examples["iris"][1]
    assert load_service(created).warnings == []
    for (_, body), into, reader in [
        *((each, TrainRequest, load_training) for each in OPERATIONS["train.start"]["POST"].examples.values()),
        *((each, PredictRequest, load_prediction) for each in OPERATIONS["predict.predict"]["POST"].examples.values()),
    ]:
        assert read(into, body, "docs").warnings == []
        parameters = merge(created["parameters"], body.get("parameters"))
        assert reader("xgboost", "csv", parameters).warnings == []


# Options

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    -2,
    7,
    3.0,
    0.5,
    -0.5,
    1.5,
    2**70,
    1e30,
    "",
    "x",
    "7",
    "minmax",
    "gbtree",
    [],
    [1],
    [-5],
    [0.5],
    ["x"],
    [1, "x"],
    [None],
    [[1]],
    {},
    {"a": 1},
    {"a": -5},
    {"a": "x"},
    {"a": None},
]


def accepts(into: type, key: str, value: Any) -> bool:
    try:
        load(into, {key: value}, path="here", section="mllib", owner="a test")
    except BadParameter:
        return False
    return True


@pytest.mark.parametrize("into", OPTIONS, ids=lambda into: into.__name__)
def test_schema_of_an_option_allows_what_the_option_takes(whole: Json, into: type):
    schema = {"$ref": f"#/components/schemas/{into.__name__}"}
    checked = validator(whole, schema)
    for key, field in keys_of(into).items():
        kind = schema_of(into).fields[field]
        for value in VALUES:
            if value is None and kind.required:
                continue  # absent, which the reader of the whole request refuses
            if isinstance(kind, Group) and isinstance(value, dict):
                continue  # its members are looked at below
            taken, allowed = accepts(into, key, value), not list(checked.iter_errors(_with(into, key, value)))
            if isinstance(kind, Flag) and value in (0, 1) and not isinstance(value, bool):
                assert (taken, allowed) == (True, False), f"{key}: 0 and 1 are taken, and not recommended"
            elif type(kind).__name__ == "_ContentType" and isinstance(value, str):
                assert allowed >= taken
            else:
                assert allowed == taken, f"{into.__name__}.{key} = {value!r}"


def _with(into: type, key: str, value: Any) -> Json:
    """An object that has all it must have, and one member more."""
    return {**{str(kind.data_key): "x" for kind in schema_of(into).fields.values() if kind.required}, key: value}


def groups(into: type) -> list[type]:
    found = [kind.into for kind in schema_of(into).fields.values() if isinstance(kind, Group)]
    return [*found, *(inner for each in found for inner in groups(each))]


@pytest.mark.parametrize("into", OPTIONS, ids=lambda into: into.__name__)
def test_objects_among_the_options_are_described_as_well(whole: Json, into: type):
    for inner in groups(into):
        test_schema_of_an_option_allows_what_the_option_takes(whole, inner)


@pytest.mark.parametrize("into", [*OPTIONS, ServiceHead, TrainRequest, PredictRequest], ids=lambda into: into.__name__)
def test_every_option_comes_with_its_sentence_and_default(whole: Json, into: type):
    names = {ServiceHead: "ServiceRequest"}
    properties = whole["components"]["schemas"][names.get(into, into.__name__)]["properties"]
    for kind in schema_of(into).fields.values():
        told = properties[kind.data_key]
        text, unit = kind.metadata["description"], kind.metadata["unit"]
        assert told["description"].startswith(text) or "$ref" in told
        assert not unit or f"Unit: {unit}." in told["description"]
        assert told.get("default") == kind.metadata["default"]
    assert set(properties) == set(keys_of(into))
