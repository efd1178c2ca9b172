"""Bad input of data sets: their files, their uploads, and their use."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from typing import Any

from tests.e2e.bad_requests.cases import Json, request, train
from tests.e2e.bad_requests.predictions import ask
from tests.e2e.bad_requests.stage import GOOD, training_body
from tests.e2e.conftest import LIMIT_BYTES, Answer, Client

DATASET = "bad-input"
"""A data set with the file good.csv; whoever needs it makes it."""


def dataset(client: Client) -> str:
    """The address of the data set."""
    if client.call("PUT", f"/datasets/{DATASET}").code == 201:
        assert form(client, {"good.csv": GOOD.encode()}).code == 201
    return f"/datasets/{DATASET}"


def form(client: Client, files: dict[str, bytes], query: str = "", name: str = DATASET) -> Answer:
    """Send files as a form does."""
    body = b"".join(
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n'
        % (path.encode(), content)
        for path, content in files.items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    return client.send("POST", f"/datasets/{name}/files{query}", body + b"--limit--\r\n", headers)


def upload(client: Client, **changes: Any) -> str:
    """The address of a new upload of three bytes."""
    body = {"path": "more.csv", "bytes": 3, **changes}
    return f"{dataset(client)}/uploads/{client.call('POST', f'{dataset(client)}/uploads', body).json['upload_id']}"


def refused_upload(client: Client, **changes: Any) -> Answer:
    """An upload that should not begin."""
    return client.call("POST", f"{dataset(client)}/uploads", {"path": "more.csv", "bytes": 3, **changes})


def put_part(client: Client, address: str, content: bytes, digest: str | None = None, part: str = "1") -> Answer:
    """Send a part."""
    found = hashlib.sha256(content).hexdigest() if digest is None else digest
    return client.send("PUT", f"{address}/parts/{part}", content, {"X-Content-SHA256": found})


@request
def dataset_unknown(client: Client) -> Answer:
    return client.call("GET", "/datasets/nobody")


@request
def dataset_to_delete_unknown(client: Client) -> Answer:
    return client.call("DELETE", "/datasets/nobody")


@request
def dataset_name_unusable(client: Client) -> Answer:
    return client.call("PUT", "/datasets/" + "x" * 256)


@request
def dataset_with_a_body(client: Client) -> Answer:
    return client.call("PUT", f"/datasets/{DATASET}", {"description": "flowers"})


@request
def dataset_cursor_unreadable(client: Client) -> Answer:
    return client.call("GET", f"{dataset(client)}?cursor=first")


@request
def dataset_file_unknown(client: Client) -> Answer:
    return client.call("DELETE", f"{dataset(client)}/files/no.csv")


@request
def files_without_a_form(client: Client) -> Answer:
    return client.send("POST", f"{dataset(client)}/files", GOOD.encode(), {"Content-Type": "text/csv"})


@request
def form_packed(client: Client) -> Answer:
    headers = {"Content-Type": "multipart/form-data; boundary=limit", "Content-Encoding": "gzip"}
    return client.send("POST", f"{dataset(client)}/files", gzip.compress(b"--limit--"), headers)


@request
def form_without_files(client: Client) -> Answer:
    dataset(client)
    return form(client, {})


@request
def files_of_unknown_dataset(client: Client) -> Answer:
    return form(client, {"a.csv": b"x"}, name="nobody")


@request
def file_path_climbing(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a/../b.csv": b"x"})


@request
def file_path_hidden(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a/.b.csv": b"x"})


@request
def file_path_twice(client: Client) -> Answer:
    dataset(client)
    return client.send(
        "POST",
        f"/datasets/{DATASET}/files",
        b'--l\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n' * 2 + b"--l--\r\n",
        {"Content-Type": "multipart/form-data; boundary=l"},
    )


@request
def file_below_a_file(client: Client) -> Answer:
    dataset(client)
    return form(client, {"good.csv/a.csv": b"x"})


@request
def files_too_many(client: Client) -> Answer:
    dataset(client)
    return form(client, {str(number): b"" for number in range(10_001)})


@request
def files_too_large(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a.csv": bytes(LIMIT_BYTES)})


@request
def archive_that_is_none(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a.zip": GOOD.encode()}, "?unpack=true")


@request
def archive_climbing(client: Client) -> Answer:
    dataset(client)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("../evil.csv", "x")
    return form(client, {"a.zip": made.getvalue()}, "?unpack=true")


@request
def archives_together(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a.zip": b"x", "b.zip": b"x"}, "?unpack=true")


@request
def upload_without_bytes(client: Client) -> Answer:
    return refused_upload(client, bytes=None)


@request
def upload_without_path(client: Client) -> Answer:
    return refused_upload(client, path=None)


@request
def upload_option_unknown(client: Client) -> Answer:
    return refused_upload(client, sha="x")


@request
def upload_option_of_wrong_type(client: Client) -> Answer:
    return refused_upload(client, bytes="3")


@request
def upload_digest_that_is_none(client: Client) -> Answer:
    return refused_upload(client, sha256="abc")


@request
def upload_path_outside(client: Client) -> Answer:
    return refused_upload(client, path="/etc/passwd")


@request
def upload_too_large(client: Client) -> Answer:
    return refused_upload(client, bytes=10**15)


@request
def upload_without_links(client: Client) -> Answer:
    return refused_upload(client, links=True, sha256="0" * 64)


@request
def upload_unknown(client: Client) -> Answer:
    return client.call("GET", f"{dataset(client)}/uploads/999999")


@request
def part_without_digest(client: Client) -> Answer:
    return put_part(client, upload(client), b"abc", "")


@request
def part_with_wrong_digest(client: Client) -> Answer:
    return put_part(client, upload(client), b"abc", "0" * 64)


@request
def part_of_wrong_size(client: Client) -> Answer:
    return put_part(client, upload(client), b"abcd")


@request
def part_of_wrong_number(client: Client) -> Answer:
    return put_part(client, upload(client), b"abc", part="2")


@request
def upload_with_missing_parts(client: Client) -> Answer:
    return client.call("POST", f"{upload(client)}/complete")


@request
def upload_with_wrong_digest(client: Client) -> Answer:
    address = upload(client, sha256="0" * 64)
    assert put_part(client, address, b"abc").code == 200
    return client.call("POST", f"{address}/complete")


@train
def data_of_unknown_dataset(client: Client) -> Json:
    return training_body(client, "dataset://nobody/a.csv")


@train
def data_of_unknown_file(client: Client) -> Json:
    return training_body(client, f"{dataset(client).replace('/datasets/', 'dataset://')}/no.csv")


@train
def data_of_climbing_path(client: Client) -> Json:
    return training_body(client, f"{dataset(client).replace('/datasets/', 'dataset://')}/a/../b.csv")


@train
def data_of_several_files(client: Client) -> Json:
    client.call("PUT", "/datasets/bad-input-two")
    form(client, {"a.csv": GOOD.encode(), "b.csv": GOOD.encode()}, name="bad-input-two")
    return training_body(client, "dataset://bad-input-two")


@request
def predict_unknown_dataset(client: Client) -> Answer:
    return ask(client, data=["dataset://nobody"])
