"""The commands that speak with a server: what they take and what they show, without a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cli import main as command
from cli.remote import tables
from cli.remote.client import Refused, usable_url
from cli.remote.following import Lines, end_well, news_of
from cli.remote.given import put, read_data
from cli.remote.predictions import print_predictions


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(command.main, list(words), env=environment)


# What is given


@pytest.mark.parametrize("words", ["{", "[1]", "no/such/file.json", "{'a': 1}", '{"a": 1} x'])
def test_parameters_that_are_no_json_object_are_wrong_usage(words: str):
    result = run("train", "iris", "iris.csv", "--parameters", words)
    assert result.exit_code == 2
    assert "--parameters" in result.stderr
    assert "Traceback" not in result.output


def test_parameters_of_a_file_that_holds_no_object_are_wrong_usage(tmp_path: Path):
    file = tmp_path / "given.json"
    file.write_text("[1, 2]")
    result = run("train", "iris", "iris.csv", "--parameters", str(file))
    assert result.exit_code == 2
    assert "holds no JSON object" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("predict", "iris", "-", "-"), "give - once"),
        (("predict", "iris", "@none.csv"), "none.csv cannot be read"),
        (("predict", "iris", "1,2", "--output", "x.json"), "--output needs --async"),
        (("predict", "iris", "1,2", "--async", "--output", "no/such/x.json"), "there is no folder"),
        (("predict", "iris", "1,2", "--async", "--no-wait", "--output", "x.json"), "exclude each other"),
        (("predict", "iris", "1,2", "--async", "--format", "parquet"), "needs --output"),
        (("predict", "iris"), "Missing argument"),
        (("services", "create", "iris"), "--mllib"),
        (("services", "delete", "iris", "--clear", "all"), "is not one of"),
        (
            ("services", "create", "iris", "--mllib", "torch", "--nclasses", "3", "--parameters", '{"mllib": 1}'),
            "mllib",
        ),
        (("tasks", "show", "one"), "not a valid integer"),
        (("tasks", "list", "--state", "over"), "is not one of"),
        (("tasks", "list", "--url", "ftp://here"), "MODELYARD_URL"),
        (("tasks", "list", "--timeout", "0"), "--timeout"),
    ],
)
def test_wrong_usage_ends_with_two_and_names_what_is_wrong(words: tuple[str, ...], told: str):
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert told in result.stderr


@pytest.mark.parametrize("url", ["ftp://a", "here", "http://", "http://a:99999", "http://a?b=1", "http://u:secret@a/"])
def test_address_that_no_api_can_have_is_refused_without_repeating_it(url: str):
    with pytest.raises(ValueError, match=r"is no address|password|query") as caught:
        usable_url(url)
    assert "secret" not in str(caught.value)


def test_key_with_characters_that_no_header_holds_is_refused_without_showing_it():
    for wrong in ("secret\r\nX-Other: 1", "secret\N{LATIN SMALL LETTER E WITH ACUTE}"):
        result = run("services", "list", MODELYARD_KEY=wrong)
        assert result.exit_code == 2
        assert "MODELYARD_KEY" in result.stderr
        assert "secret" not in result.output


def test_rows_come_from_the_command_line_and_from_files_without_empty_lines(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\n")
    assert read_data(["5,6", f"@{file}", "iris.csv"]) == ["5,6", "a,b", "1,2", "3,4", "iris.csv"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe1"])
def test_file_without_rows_is_wrong_usage(tmp_path: Path, content: bytes):
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    with pytest.raises(click.UsageError):
        read_data([f"@{file}"])


def test_options_win_over_parameters_and_absent_ones_change_nothing():
    parameters = {"mllib": {"nclasses": 2, "db": True}}
    put(parameters, "mllib", "nclasses", 3)
    put(parameters, "mllib", "template", None)
    put(parameters, "input", "label", "species")
    assert parameters == {"mllib": {"nclasses": 3, "db": True}, "input": {"label": "species"}}


# What is shown


def test_control_characters_of_a_server_never_reach_a_terminal():
    assert tables.clean("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb c\u202ed"


def test_table_in_a_file_is_neither_folded_nor_padded(capsys: pytest.CaptureFixture[str]):
    long = "word " * 60
    tables.print_table(("name", "text"), [("a", long.strip()), ("bb", "[red]no markup[/red]")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name  text", f"a     {long.strip()}", "bb    [red]no markup[/red]"]


def test_numbers_stand_to_the_right_with_six_digits(capsys: pytest.CaptureFixture[str]):
    tables.print_table(("name", "number"), [("a", 1.0), ("b", 0.123456789), ("c", None)])
    assert capsys.readouterr().out.splitlines() == [
        "name    number",
        "a            1",
        "b     0.123457",
        "c            -",
    ]


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (126341, "123.4 KiB"),
        (2**20 - 1, "1 MiB"),
        (500 * 2**30, "500 GiB"),
        (2**60, "1 EiB"),
    ],
)
def test_bytes_are_told_in_units_that_people_read(count: int, told: str):
    assert tables.size(count) == told


def test_one_thing_is_told_as_one():
    assert [tables.counted(count, "task") for count in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    assert tables.counted(1, "process", "processes") == "1 process"
    assert tables.counted(3, "process", "processes") == "3 processes"


@pytest.mark.parametrize(
    ("code", "body", "told"),
    [
        (
            404,
            {"status": {"code": 404, "dd_code": 1002, "dd_msg": "Not Found", "message": "no iris"}},
            "404 (1002) Not Found: no iris",
        ),
        (404, {"error": {"kind": "task_not_found", "message": "no task 7"}}, "404 task_not_found: no task 7"),
        (400, {"status": {"code": 400, "msg": "BadRequest", "message": "no service"}}, "400 no service"),
        (405, {"status": {"code": 405, "msg": "Nothing"}}, "405 Nothing"),
    ],
)
def test_error_of_the_api_is_one_line_with_its_codes(code: int, body: dict[str, object], told: str):
    assert Refused(code, json.dumps(body)).message == told


def test_error_of_something_else_is_told_in_its_own_words():
    assert Refused(502, "<html>\nBad\x1b Gateway").message == r"502 <html> Bad\x1b Gateway"
    assert Refused(503, "", "5").message == "503 (Retry-After: 5)"
    assert "MODELYARD_KEY" in Refused(401, "").message


RUNNING = {
    "state": "running",
    "percent": 20.6,
    "attempt": 1,
    "progress": {
        "phase": "training",
        "iteration": 10296,
        "iterations": 50000,
        "measure": {"acc": 1.0, "train_loss": 0.010725, "iter_time": 1.5, "remain_time": 60.5, "cmfull": [1]},
        "remain_s": 3661.2,
    },
}


def test_news_of_a_training_are_iteration_loss_measures_and_remaining_time():
    assert news_of(RUNNING) == "iteration 10296/50000  train_loss 0.010725  acc 1  1:01:01 left"
    assert news_of(RUNNING, measures_max=1) == "iteration 10296/50000  train_loss 0.010725  1:01:01 left"


def test_news_of_what_waits_say_how_many_are_before_it():
    assert news_of({"state": "queued", "queue_position": 3}) == "waiting, 3 before it"
    assert news_of({"state": "queued", "queue_position": 0}) == "waiting for a worker"


def test_plain_lines_are_few_and_hold_no_control_characters(capsys: pytest.CaptureFixture[str]):
    now = [0.0]
    lines = Lines(7, clock=lambda: now[0])
    for percent in (1.0, 2.0, 3.0, 12.0, 13.0):
        lines.tell({**RUNNING, "percent": percent})
    now[0] = 11.0
    lines.tell({**RUNNING, "percent": 13.5})
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" %")[0] for line in told] == ["task 7: 1", "task 7: 12", "task 7: 14"]
    assert not re.search(r"[\x00-\x1f\x7f]", "".join(told))


def test_end_that_is_no_success_is_an_error_with_its_reason(capsys: pytest.CaptureFixture[str]):
    end_well({"state": "finished", "warnings": [{"parameter": "a", "message": "a was ignored"}]})
    assert capsys.readouterr().err == "warning: a was ignored\n"
    end_well({"state": "finished", "warnings": [{"parameter": "a", "message": "a was ignored"}]}, {"a: a was ignored"})
    assert capsys.readouterr().err == "", "what was shown while it ran is not repeated"
    with pytest.raises(click.ClickException, match="was cancelled"):
        end_well({"state": "cancelled", "task_id": 7})
    failure = {"kind": "bad_input", "message": "no such file", "advice": "send it again"}
    with pytest.raises(click.ClickException, match=r"task 7 failed \(bad_input\): no such file; send it again"):
        end_well({"state": "failed", "task_id": 7, "failure": failure})


CLASSES = ["1    0             0.75", "1    1                0", "2    -                -"]


@pytest.mark.parametrize(
    ("predictions", "lines"),
    [
        (
            [
                {"uri": "1", "classes": [{"cat": "0", "prob": 0.75}, {"cat": "1", "prob": 0.25}]},
                {"uri": "2", "classes": []},
            ],
            [
                "uri  class  probability",
                "1    0             0.75",
                "1    1             0.25",
                "2    -                -",
            ],
        ),
        ([{"uri": "1", "vector": [{"cat": "0", "val": 2.5}]}], ["uri  target  value", "1    0         2.5"]),
        ([{"uri": "1", "losses": [{"loss": 0.5}]}], ["uri  loss", "1     0.5"]),
        ([{"uri": "1", "vals": [1.0, 2.5]}, {"uri": "2", "vals": "101"}], ["uri  values", "1    1 2.5", "2    101"]),
        ([], ["no predictions"]),
    ],
)
def test_predictions_of_every_kind_are_a_table(
    capsys: pytest.CaptureFixture[str], predictions: list[dict[str, object]], lines: list[str]
):
    print_predictions(predictions)
    assert capsys.readouterr().out.splitlines() == lines
