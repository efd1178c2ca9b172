"""Bad input about what becomes of predictions: their templates, and the hosts that they are sent to."""

from __future__ import annotations

import socket
from typing import Any

from tests.e2e.bad_requests.cases import request
from tests.e2e.bad_requests.predictions import ask
from tests.e2e.conftest import ALLOWED, Answer, Client
from tests.receiver import receiving


def output(client: Client, **given: Any) -> Answer:
    """A prediction with output options."""
    return ask(client, parameters={"output": given})


@request
def template_no_text(client: Client) -> Answer:
    return output(client, template=7)


@request
def template_tag_open(client: Client) -> Answer:
    return output(client, template="a {{head.service")


@request
def template_section_open(client: Client) -> Answer:
    return output(client, template="{{#body}}{{#predictions}}{{/predictions}}")


@request
def template_section_crossed(client: Client) -> Answer:
    return output(client, template="{{#a}}{{#b}}{{/a}}{{/b}}")


@request
def template_with_partial(client: Client) -> Answer:
    return output(client, template="{{> header}}")


@request
def template_too_long(client: Client) -> Answer:
    return output(client, template="x" * 65537)


@request
def template_too_deep(client: Client) -> Answer:
    return output(client, template="{{#a}}" * 33 + "{{/a}}" * 33)


@request
def template_writes_too_much(client: Client) -> Answer:
    template = "{{#body.predictions}}" + "x" * 60_000 + "{{/body.predictions}}"
    return ask(client, data=["1,2"] * 2000, parameters={"output": {"template": template}})


@request
def binarized_twice(client: Client) -> Answer:
    return output(client, binarized=True, bool_binarized=True)


@request
def network_no_object(client: Client) -> Answer:
    return output(client, network="here")


@request
def network_without_url(client: Client) -> Answer:
    return output(client, network={"http_method": "POST"})


@request
def network_url_no_http(client: Client) -> Answer:
    return output(client, network={"url": "file:///etc/passwd"})


@request
def network_method_unknown(client: Client) -> Answer:
    return output(client, network={"url": "http://127.0.0.1/", "http_method": "TRACE"})


@request
def network_second_header(client: Client) -> Answer:
    line = "Content-Type: text/plain\r\nCookie: a=b"
    return output(client, network={"url": "http://127.0.0.1/", "content_type": line})


@request
def network_private(client: Client) -> Answer:
    return output(client, network={"url": f"http://127.0.0.1:{client.port}/healthz"})


@request
def network_host_unknown(client: Client) -> Answer:
    return output(client, network={"url": "http://nowhere.invalid/"})


@request
def network_refused(client: Client) -> Answer:
    return output(client, network={"url": f"http://{ALLOWED}:1/"})


@request
def network_silent(client: Client) -> Answer:
    with socket.create_server((ALLOWED, 0)) as silent:
        return output(client, network={"url": f"http://{ALLOWED}:{silent.getsockname()[1]}/"})


@request
def network_no_http(client: Client) -> Answer:
    with receiving(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), host=ALLOWED) as odd:
        return output(client, network={"url": odd.url})


@request
def network_no_tls(client: Client) -> Answer:
    hello = b"SSH-2.0-OpenSSH\r\n"
    with receiving(lambda connection: connection.sendall(hello), host=ALLOWED, listens=False) as odd:
        return output(client, network={"url": odd.url.replace("http:", "https:")})
