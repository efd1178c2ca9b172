"""The list of services that a server begins with, as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main as command
from cli.start_list import BadList, Line, read_list

GOOD = """
# what this machine serves
service_create;iris;{"mllib":"xgboost","description":"one; two"}

  service_predict;{"service":"iris","data":["1,2"]}
"""


def test_lines_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(GOOD)
    assert read_list(path) == [
        Line(3, "service_create", "iris", {"mllib": "xgboost", "description": "one; two"}),
        Line(5, "service_predict", "iris", {"service": "iris", "data": ["1,2"]}),
    ]


def test_a_text_in_json_may_hold_characters_at_which_other_texts_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text('service_create;iris;{"description":"a\u2028b\x85c"}\r\n', encoding="utf-8", newline="")
    assert read_list(path) == [Line(1, "service_create", "iris", {"description": "a\u2028b\x85c"})]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("service_delete;iris;{}", "line 1 of .* begins with 'service_delete'"),
        ("\nservice_create;;{}", "line 2 of .* names no service"),
        ("service_create;iris", "holds no JSON"),
        ("service_create;iris;{", "holds no JSON"),
        ("service_create;iris;[1]", "holds no JSON object"),
        ("service_predict;" + "[" * 100_000, "holds no JSON"),
        ("service_predict;\udcff", "is no UTF-8"),
    ],
)
def test_line_that_cannot_be_read_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "list"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadList, match=why):
        read_list(path)


def test_list_that_cannot_be_read_is_told_before_anything_starts(tmp_path: Path) -> None:
    for words, environment in (
        (["--service-start-list", str(tmp_path / "missing")], {}),
        ([], {"MODELYARD_SERVICE_START_LIST": str(tmp_path / "missing")}),
    ):
        home = {"MODELYARD_HOME": str(tmp_path / "home"), **environment}
        found = CliRunner().invoke(command.main, ["up", *words], env=home)
        assert found.exit_code == 1
        assert "missing cannot be read: No such file" in found.output
        assert not (tmp_path / "home").exists()
