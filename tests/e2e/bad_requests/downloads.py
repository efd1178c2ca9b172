"""Bad input of downloads."""

from __future__ import annotations

from tests.e2e.bad_requests.cases import request
from tests.e2e.bad_requests.datasets import dataset
from tests.e2e.bad_requests.stage import SERVICE, TRAINED
from tests.e2e.conftest import Answer, Client


def download(client: Client, path: str, **headers: str) -> Answer:
    """Ask for what should not be sent."""
    return client.send("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@request
def download_without_model(client: Client) -> Answer:
    return download(client, f"/services/{SERVICE}/files")


@request
def download_unknown_file(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/no.model")


@request
def download_unknown_version(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/archive?version=999")


@request
def download_version_no_number(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files?version=newest")


@request
def download_format_unknown(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/archive?format=rar")


@request
def download_link_no_boolean(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/modelyard.json?link=please")


@request
def download_range_behind_the_end(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/modelyard.json", Range="bytes=99999999-")


@request
def download_of_other_state(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/modelyard.json", If_Match='"other"')


@request
def download_of_unknown_service(client: Client) -> Answer:
    return download(client, "/services/nobody/archive")


@request
def download_of_unknown_task(client: Client) -> Answer:
    return download(client, "/tasks/999999/files")


@request
def download_of_task_unknown_file(client: Client) -> Answer:
    return download(client, "/tasks/1/files/no.csv")


@request
def download_of_dataset_unknown_file(client: Client) -> Answer:
    return download(client, f"{dataset(client)}/files/no.csv")


@request
def download_of_unknown_dataset(client: Client) -> Answer:
    return download(client, "/datasets/nobody/archive")
