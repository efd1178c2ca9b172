"""Bad input of services: what they are made of, their repositories, and the list of them."""

from __future__ import annotations

from tests.e2e.bad_requests.cases import request
from tests.e2e.bad_requests.stage import SERVICE, create, file, parameters, service_body
from tests.e2e.conftest import Answer, Client

# Services


@request
def service_exists(client: Client) -> Answer:
    return client.send("PUT", f"/services/{SERVICE.upper()}", b"not even JSON")


@request
def service_unnamed(client: Client) -> Answer:
    return client.call("PUT", "/services/", service_body(client))


@request
def service_name_too_long(client: Client) -> Answer:
    return client.call("PUT", "/services/" + "n" * 300, service_body(client))


@request
def service_unknown(client: Client) -> Answer:
    return client.call("GET", "/services/nobody")


@request
def service_to_delete_unknown(client: Client) -> Answer:
    return client.call("DELETE", "/services/nobody")


@request
def service_flag_no_boolean(client: Client) -> Answer:
    return client.call("GET", f"/services/{SERVICE}?labels=maybe")


@request
def mllib_missing(client: Client) -> Answer:
    return create(client, mllib=None)


@request
def mllib_no_text(client: Client) -> Answer:
    return create(client, mllib=7)


@request
def mllib_empty(client: Client) -> Answer:
    return create(client, mllib="")


@request
def mllib_unknown(client: Client) -> Answer:
    return create(client, mllib="xgbost")


@request
def connector_missing(client: Client) -> Answer:
    return create(client, parameters={"mllib": {"nclasses": 2}})


@request
def connector_no_text(client: Client) -> Answer:
    return create(client, parameters=parameters(input={"connector": ["csv"]}))


@request
def connector_unknown(client: Client) -> Answer:
    return create(client, parameters=parameters(input={"connector": "cvs"}))


@request
def type_unknown(client: Client) -> Answer:
    return create(client, type="magic")


@request
def parameters_no_object(client: Client) -> Answer:
    return create(client, parameters="csv")


@request
def input_no_object(client: Client) -> Answer:
    return create(client, parameters={"input": "csv"})


@request
def mllib_options_no_object(client: Client) -> Answer:
    return create(client, parameters={"input": {"connector": "csv"}, "mllib": 3})


@request
def input_option_of_wrong_type(client: Client) -> Answer:
    return create(client, parameters=parameters(input={"test_split": "a fifth"}))


@request
def mllib_option_of_wrong_type(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"iterations": "100"}))


@request
def mllib_option_out_of_range(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"booster_params": {"subsample": 1.5}}))


@request
def output_option_of_wrong_type(client: Client) -> Answer:
    return create(client, parameters=parameters(output={"best": "all"}))


@request
def classes_missing(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"nclasses": None}))


@request
def targets_missing(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"nclasses": None, "regression": True}))


@request
def objective_softmax(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"objective": "multi:softmax"}))


# Repositories


def repository(client: Client, path: str, make: bool = False) -> Answer:
    """A creation on a repository that cannot be one."""
    return create(client, model={"repository": path, "create_repository": make})


@request
def repository_unnamed(client: Client) -> Answer:
    return create(client, model={})


@request
def repository_missing(client: Client) -> Answer:
    return repository(client, f"{client.data}/no/such/folder")


@request
def repository_is_a_file(client: Client) -> Answer:
    return repository(client, str(file(client, "a-file", "x")), make=True)


@request
def repository_below_a_file(client: Client) -> Answer:
    return repository(client, f"{file(client, 'a-file', 'x')}/model", make=True)


@request
def repository_that_cannot_be_written(client: Client) -> Answer:
    return repository(client, "/proc")


@request
def repository_that_cannot_be_made(client: Client) -> Answer:
    return repository(client, "/proc/modelyard", make=True)


@request
def repository_outside(client: Client) -> Answer:
    return repository(client, "/etc")


@request
def repository_outside_by_dots(client: Client) -> Answer:
    return repository(client, f"{client.data}/../../etc")


@request
def repository_outside_by_link(client: Client) -> Answer:
    link = client.data / "way-out"
    if not link.is_symlink():
        link.symlink_to("/usr")
    return repository(client, str(link / "share"))


@request
def repository_name_unusable(client: Client) -> Answer:
    return repository(client, "../mine")


@request
def repository_is_a_data_root(client: Client) -> Answer:
    body = service_body(client, model={"repository": str(client.data)})
    assert client.call("PUT", "/services/whole-root", body).code == 201
    try:
        return client.call("DELETE", "/services/whole-root?clear=full")
    finally:
        client.call("DELETE", "/services/whole-root")


# The list of services


@request
def services_of_unknown_library(client: Client) -> Answer:
    return client.call("GET", "/services?mllib=abacus")


@request
def services_cursor_unreadable(client: Client) -> Answer:
    return client.call("GET", "/services?cursor=first")


@request
def services_query_unknown(client: Client) -> Answer:
    return client.call("GET", "/services?sort=name")
