"""Bad input of tasks: the list of them, and their reports, logs and events."""

from __future__ import annotations

from tests.e2e.bad_requests.cases import request
from tests.e2e.bad_requests.stage import training_body
from tests.e2e.conftest import Answer, Client


@request
def task_unknown(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999")


@request
def task_number_no_number(client: Client) -> Answer:
    return client.call("GET", "/tasks/first")


@request
def task_to_cancel_unknown(client: Client) -> Answer:
    return client.call("DELETE", "/tasks/999999")


def failed_task(client: Client) -> int:
    body = training_body(client, client.data / "no-such-file.csv")
    number: int = client.call("POST", "/train", {**body, "data": None}).json["head"]["task_id"]
    return number


@request
def task_without_report(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/report")


@request
def ids_no_numbers(client: Client) -> Answer:
    return client.call("GET", "/tasks?ids=1,two")


@request
def ids_too_many(client: Client) -> Answer:
    return client.call("GET", "/tasks?ids=" + ",".join(map(str, range(1001))))


@request
def query_parameter_unknown(client: Client) -> Answer:
    return client.call("GET", "/tasks?sate=queued")


@request
def state_unknown(client: Client) -> Answer:
    return client.call("GET", "/tasks?state=done")


@request
def limit_out_of_range(client: Client) -> Answer:
    return client.call("GET", "/tasks?limit=100000")


@request
def cursor_unreadable(client: Client) -> Answer:
    return client.call("GET", "/tasks?cursor=next")


@request
def logs_of_unknown_task(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999/logs")


@request
def logs_after_unreadable(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/logs?after=last")


@request
def logs_query_unknown(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/logs?since=3")


@request
def events_of_unknown_task(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999/events")


@request
def events_query_unknown(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/events?since=3")


@request
def last_event_id_unreadable(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/events", headers={"Last-Event-ID": "latest"})


@request
def since_unreadable(client: Client) -> Answer:
    return client.call("GET", "/tasks?since=yesterday")


@request
def tasks_of_unknown_service(client: Client) -> Answer:
    return client.call("GET", "/tasks?service=nobody")
