"""Bad input of accounts, keys and the audit."""

from __future__ import annotations

from tests.e2e.bad_requests.cases import request
from tests.e2e.conftest import Answer, Client


@request
def account_query_unknown(client: Client) -> Answer:
    return client.call("GET", "/account?name=ada")


@request
def keys_without_role(client: Client) -> Answer:
    return client.call("GET", "/keys")


@request
def key_to_make_without_role(client: Client) -> Answer:
    return client.call("POST", "/keys", {"role": "admin"})


@request
def key_to_end_without_role(client: Client) -> Answer:
    return client.call("DELETE", "/keys/999999")


@request
def audit_without_role(client: Client) -> Answer:
    return client.call("GET", "/audit")
