"""Bad input that stands in the data of a training."""

from __future__ import annotations

from tests.e2e.bad_requests.cases import Json, train
from tests.e2e.bad_requests.stage import GOOD, file, training_body
from tests.e2e.conftest import Client


@train
def label_column_missing(client: Client) -> Json:
    return training_body(client, input={"label": "species"})


@train
def id_column_missing(client: Client) -> Json:
    return training_body(client, input={"id": "number"})


@train
def text_in_numeric_column(client: Client) -> Json:
    return training_body(client, file(client, "text", GOOD.replace("\n7,", "\nseven,")))


@train
def wrong_separator(client: Client) -> Json:
    return training_body(client, input={"separator": ";"})


@train
def one_class(client: Client) -> Json:
    return training_body(client, file(client, "one-class", "a,b,label\n" + "1,2,0\n" * 30))


@train
def label_out_of_range(client: Client) -> Json:
    return training_body(client, file(client, "classes", GOOD.replace("39,4,1", "39,4,7")))


@train
def label_infinite(client: Client) -> Json:
    return training_body(client, file(client, "infinite-label", GOOD.replace("39,4,1", "39,4,inf")))


@train
def label_empty(client: Client) -> Json:
    return training_body(client, file(client, "no-label", GOOD.replace("39,4,1", "39,4,")))


@train
def no_features(client: Client) -> Json:
    return training_body(client, file(client, "bare", "label\n0\n1\n0\n1\n"))


@train
def column_twice(client: Client) -> Json:
    return training_body(client, file(client, "twice", GOOD.replace("a,b,label", "a,a,label")))


@train
def line_too_short(client: Client) -> Json:
    return training_body(client, file(client, "short", GOOD + "1\n"))


@train
def line_too_wide(client: Client) -> Json:
    return training_body(client, file(client, "wide", GOOD + "1,2,0,4,5\n"))


@train
def line_of_10_mb(client: Client) -> Json:
    return training_body(client, file(client, "long", "a,b,label\n" + "1" * 10_000_000 + ",2,0\n1,2,1\n"))


@train
def quote_open(client: Client) -> Json:
    return training_body(client, file(client, "quote", GOOD + '"1,2,0\n'))


@train
def file_binary(client: Client) -> Json:
    return training_body(client, file(client, "binary", bytes(range(256)) * 64))


@train
def file_not_utf8(client: Client) -> Json:
    return training_body(client, file(client, "latin", GOOD.replace("a,b", "é,b").encode("latin-1")))


@train
def test_file_with_other_columns(client: Client) -> Json:
    return training_body(client, client.data / "good.csv", file(client, "other", "x,y,label\n1,2,0\n"))


@train
def too_few_rows_for_the_split(client: Client) -> Json:
    return training_body(client, file(client, "few", "a,b,label\n1,2,0\n"), input={"test_split": 0.5})
