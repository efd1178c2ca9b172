"""Bad input about where the data of a training comes from."""

from __future__ import annotations

import gzip
import socket

from tests.e2e.bad_requests.cases import Json, request, train
from tests.e2e.bad_requests.stage import GOOD, file, svm_body, training_body
from tests.e2e.conftest import ALLOWED, Answer, Client
from tests.receiver import answer, receiving

UNLABELLED = b"a,b\n1,2\n3,4\n"


@train
def data_missing(client: Client) -> Json:
    return {**training_body(client), "data": None}


@train
def data_no_array(client: Client) -> Json:
    return {**training_body(client), "data": str(client.data / "good.csv")}


@train
def data_no_texts(client: Client) -> Json:
    return {**training_body(client), "data": [1, 2, 3]}


@train
def data_mixed(client: Client) -> Json:
    return training_body(client, client.data / "good.csv", "1,2,0")


@train
def data_of_unknown_scheme(client: Client) -> Json:
    return training_body(client, "ftp://example.org/train.csv")


@train
def data_no_url(client: Client) -> Json:
    return training_body(client, "https:///train.csv")


@train
def data_private(client: Client) -> Json:
    return training_body(client, f"http://127.0.0.1:{client.port}/healthz")


@train
def data_host_refuses(client: Client) -> Json:
    return training_body(client, f"http://me:secret@{ALLOWED}:1/train.csv")


@request
def data_elsewhere_empty(client: Client) -> Answer:
    with receiving(answer("200 OK"), host=ALLOWED) as host:
        return client.call("POST", "/train", {**training_body(client, f"{host.url}/train.csv"), "async": False})


@request
def data_elsewhere_without_label(client: Client) -> Answer:
    told = [f"Content-Range: bytes 0-{len(UNLABELLED) - 1}/{len(UNLABELLED)}", "Accept-Ranges: bytes"]

    def offering(connection: socket.socket) -> None:
        status = "200 OK" if host.heads[-1].startswith("HEAD") else "206 Partial Content"
        answer(status, UNLABELLED, *told)(connection)

    with receiving(offering, host=ALLOWED) as host:
        address = f"http://me:secret@{ALLOWED}:{host.port}/train.csv"
        return client.call("POST", "/train", {**training_body(client, address), "async": False})


@train
def data_bucket_off(client: Client) -> Json:
    return training_body(client, "s3://bucket/train.csv")


@train
def path_outside(client: Client) -> Json:
    return training_body(client, "/etc/passwd")


@train
def path_outside_by_dots(client: Client) -> Json:
    return training_body(client, f"{client.data}/../../../etc/passwd")


@train
def path_outside_by_link(client: Client) -> Json:
    link = client.data / "out.csv"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    return training_body(client, link)


@train
def path_outside_by_file_url(client: Client) -> Json:
    return training_body(client, "file:///etc/passwd")


@train
def path_too_long(client: Client) -> Json:
    return training_body(client, client.data / ("n" * 300))


@train
def path_in_a_loop(client: Client) -> Json:
    link = client.data / "loop.csv"
    if not link.is_symlink():
        link.symlink_to(link)
    return training_body(client, link)


@train
def file_missing(client: Client) -> Json:
    return training_body(client, client.data / "no-such-file.csv")


@train
def file_missing_by_name(client: Client) -> Json:
    return training_body(client, "no-such-file.csv")


@train
def file_packed(client: Client) -> Json:
    return training_body(client, file(client, "packed", gzip.compress(GOOD.encode())))


@train
def data_of_one_word(client: Client) -> Json:
    return training_body(client, "no-such-file")


@train
def svm_data_of_one_word(client: Client) -> Json:
    return svm_body(client, "no-such-file")


@train
def file_empty(client: Client) -> Json:
    return training_body(client, file(client, "empty", ""))


@train
def file_blank(client: Client) -> Json:
    return training_body(client, file(client, "blank", "\n \n\n"))


@train
def file_header_only(client: Client) -> Json:
    return training_body(client, file(client, "header", "a,b,label\n"))


@train
def file_is_a_folder(client: Client) -> Json:
    (client.data / "folder").mkdir(exist_ok=True)
    return training_body(client, client.data / "folder")


@train
def file_that_cannot_be_read(client: Client) -> Json:
    # A socket in the folder: permissions alone do not stop a server that runs as root.
    path = client.data / "socket.csv"
    if not path.exists():
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    return training_body(client, path)


@train
def test_file_missing(client: Client) -> Json:
    return training_body(client, client.data / "good.csv", client.data / "no-test.csv")
