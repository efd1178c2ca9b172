"""Bad input of the wire: bodies that cannot be read, and addresses and verbs that there are not."""

from __future__ import annotations

import gzip

from tests.e2e.bad_requests.cases import request
from tests.e2e.conftest import LIMIT_BYTES, Answer, Client

# Bodies


@request
def body_empty(client: Client) -> Answer:
    return client.send("POST", "/train", b"")


@request
def body_no_json(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "x",}')


@request
def body_not_utf8(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "\xff"}')


@request
def body_too_deep(client: Client) -> Answer:
    return client.send("POST", "/train", b"[" * 50_000)


@request
def body_too_many_brackets(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"data": [' + b"[]," * 100_000 + b"[]]}")


@request
def body_huge_number(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service":' + b"9" * 10_000 + b"}")


@request
def body_with_nul(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "a\\u0000"}')


@request
def body_half_character(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "\\ud800"}')


@request
def body_no_object(client: Client) -> Answer:
    return client.call("POST", "/train", ["service"])


@request
def body_too_large(client: Client) -> Answer:
    return client.send("POST", "/train", b" " * (LIMIT_BYTES + 1))


@request
def body_too_large_unpacked(client: Client) -> Answer:
    packed = gzip.compress(b" " * (LIMIT_BYTES + 1))
    return client.send("POST", "/train", packed, {"Content-Encoding": "gzip"})


@request
def body_not_gzip(client: Client) -> Answer:
    return client.send("POST", "/train", b"{}", {"Content-Encoding": "gzip"})


@request
def body_unknown_encoding(client: Client) -> Answer:
    return client.send("POST", "/train", b"{}", {"Content-Encoding": "br"})


# Addresses


@request
def route_unknown(client: Client) -> Answer:
    return client.call("GET", "/train/1")


@request
def verb_unknown(client: Client) -> Answer:
    return client.call("GET", "/predict")


@request
def native_route_unknown(client: Client) -> Answer:
    return client.call("GET", "/nowhere")


@request
def native_verb_unknown(client: Client) -> Answer:
    return client.call("POST", "/tasks")
