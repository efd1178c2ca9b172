"""The `data` of a request becomes what a connector reads: files of a data root, or lines."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.connectors.source import LinesSource, from_json
from ml.errors import BadInput
from storage.data_roots import DataRoots
from storage.errors import OutsideDataRoots
from storage.objects import connect
from workers.data import Json, encoded, inline, sources
from workers.fetching import Fetch


@pytest.fixture
def roots(tmp_path: Path) -> DataRoots:
    (tmp_path / "a.csv").write_text("x\n1\n")
    return DataRoots((tmp_path,))


def test_files_keep_the_name_that_the_client_wrote(roots: DataRoots, tmp_path: Path) -> None:
    path = str(tmp_path / "a.csv")
    found = {"path": path, "resolved": True}
    assert sources([path, "a.csv"], roots) == [{**found, "name": path}, {**found, "name": "a.csv"}]


def test_lines_stay_together(roots: DataRoots) -> None:
    assert sources(["x,y", "1,2"], roots) == [{"lines": ["x,y", "1,2"]}]
    assert sources([], roots) == []


def test_row_that_looks_like_a_path_is_a_row_among_rows(roots: DataRoots) -> None:
    assert sources(["name,value", "/etc/passwd,1"], roots) == [{"lines": ["name,value", "/etc/passwd,1"]}]


def test_row_of_one_cell_may_be_the_name_of_a_file(roots: DataRoots) -> None:
    rows = ["invoice.txt", "paypal.zip", "a.b"]
    assert sources(rows, roots) == [{"lines": rows}]
    assert inline(orjson.dumps(rows), roots) == [LinesSource(rows)]


def test_paths_mixed_with_lines_are_refused(roots: DataRoots, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="both paths and lines"):
        sources([str(tmp_path / "a.csv"), "1,2"], roots)


@pytest.mark.parametrize("name", ["none.csv", "folder/none.svm", "a.csv/none.csv"])
def test_name_of_a_file_that_is_not_there_is_no_line(roots: DataRoots, tmp_path: Path, name: str) -> None:
    where = re.escape(f"data file {name} does not exist in the data roots ({tmp_path})")
    for data in ([name], [name, "a.csv"], ["a.csv", name]):
        with pytest.raises(BadInput, match=where):
            sources(data, roots, for_training=True)
    with pytest.raises(BadInput, match=where):
        inline(orjson.dumps(["a.csv", name]), roots)
    with pytest.raises(BadInput, match="no data root has a file 'none'"):
        sources(["a.csv", "none"], roots)
    rows = ["name,size", f"{name},3"]
    assert sources(rows, roots, for_training=True) == [{"lines": rows}]
    assert inline(orjson.dumps(rows), roots) == [LinesSource(rows)]


@pytest.mark.parametrize("entry", ["ftp://host/a.csv", "dataset://a", "gopher://host:25/_HELO", "file+ssh://host/a"])
def test_places_that_cannot_be_read_are_named(roots: DataRoots, entry: str) -> None:
    with pytest.raises(BadInput, match="cannot be read from"):
        sources([entry], roots)


def test_entries_of_data_sets_are_the_files_that_were_fetched(roots: DataRoots, tmp_path: Path) -> None:
    path = str(tmp_path / "a.csv")
    both = [{"path": "/cache/0/a", "name": "dataset://d/a"}, {"path": "/cache/0/b", "name": "dataset://d/b"}]
    fetched = {"dataset://d": both}
    assert sources(["dataset://d", path], roots, fetched=fetched) == [
        *both,
        {"path": path, "name": path, "resolved": True},
    ]
    assert inline(b'["dataset://d"]', roots, fetched=fetched) == [from_json(each) for each in both]
    with pytest.raises(BadInput, match="both paths and lines"):
        sources(["dataset://d", "1,2"], roots, fetched=fetched)
    with pytest.raises(BadInput, match="cannot be read from"):
        sources(["dataset://d", "dataset://other"], roots, fetched=fetched)


def fetched(asked: list[tuple[list[str], bool]]) -> Fetch:
    """Other hosts on which every address is a file, or, where it ends with a slash, two."""

    def fetch(entries: Sequence[str], with_folders: bool) -> list[list[Json]]:
        asked.append((list(entries), with_folders))
        return [[{"path": each, "name": each}] * (1 + each.endswith("/")) for each in entries]

    return fetch


def test_files_of_other_hosts_stand_in_their_places(roots: DataRoots, tmp_path: Path) -> None:
    asked: list[tuple[list[str], bool]] = []
    data = ["https://host/b.csv", "a.csv", "s3://bucket/folder/", "https://host/b.csv"]
    found = sources(data, roots, fetch=fetched(asked), with_folders=True)
    assert [each["name"] for each in found] == [data[0], "a.csv", data[2], data[2], data[0]]
    assert asked == [(["https://host/b.csv", "s3://bucket/folder/"], True)], "all at once, and each once"


def test_nothing_is_fetched_beside_what_may_not_be_read(roots: DataRoots) -> None:
    asked: list[tuple[list[str], bool]] = []
    with pytest.raises(OutsideDataRoots):
        sources(["https://host/b.csv", "/etc/passwd"], roots, fetch=fetched(asked))
    with pytest.raises(BadInput, match="both paths and lines"):
        sources(["https://host/b.csv", "1,2"], roots, fetch=fetched(asked))
    assert asked == []


def test_row_that_looks_like_an_address_is_a_row_among_rows(roots: DataRoots) -> None:
    rows = ["name,value", "http://host/,1", "s3://bucket/key"]
    assert sources(rows, roots, fetch=fetched([])) == [{"lines": rows}]


def test_who_cannot_fetch_says_so(roots: DataRoots) -> None:
    with pytest.raises(BadInput, match="from other hosts"):
        sources(["https://host/a.csv"], roots)


@pytest.mark.parametrize("entry", ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd"])
def test_paths_outside_the_data_roots_are_refused(roots: DataRoots, entry: str) -> None:
    with pytest.raises(OutsideDataRoots):
        sources([entry], roots)


def test_a_million_lines_are_not_looked_up_one_by_one(roots: DataRoots) -> None:
    began = time.process_time()
    sources(["1,2,3"] * 1_000_000, roots)
    assert time.process_time() - began < 5


@given(
    data=st.lists(
        st.sampled_from(
            [
                "1,2",
                "x,y",
                "a.csv",
                "./a.csv",
                "b.csv",
                "/etc/passwd",
                "s3://a/b",
                "file://h/a",
                '"a"',
                "ä\\",
                "",
                "a\nb",
            ]
        ),
        max_size=3,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_that_were_not_read_yet_mean_the_same(roots: DataRoots, data: list[str]) -> None:
    def came_to(work: Callable[[], object]) -> object:
        try:
            return work()
        except (BadInput, OutsideDataRoots) as error:
            return type(error), str(error)

    encoded = orjson.dumps(data)
    assert came_to(lambda: inline(encoded, roots)) == came_to(
        lambda: [from_json(each) for each in sources(data, roots)]
    )


def test_stored_entries_are_read_by_the_connector_only(roots: DataRoots, tmp_path: Path) -> None:
    objects = connect(f"file://{tmp_path}/objects")
    rows = ['a,"b","c"', "größe,\t1,\\2"]
    for stored in (orjson.dumps(rows), json.dumps(rows, ensure_ascii=False).encode(), b'["one"]'):
        objects.put_bytes("inputs/1-x.json", stored)
        found = encoded({"data_key": "inputs/1-x.json"}, objects)
        assert found == orjson.dumps(orjson.loads(stored))
        assert inline(found, roots) == [LinesSource(orjson.loads(stored))]
        objects.delete(["inputs/1-x.json"])


def test_entries_that_were_stored_without_blanks_are_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = connect(f"file://{tmp_path}/objects")
    objects.put_bytes("inputs/1-x.json", b'["1, 2","3, 4"]')
    monkeypatch.setattr("workers.data.orjson", None)
    assert encoded({"data_key": "inputs/1-x.json"}, objects) == b'["1, 2","3, 4"]'
