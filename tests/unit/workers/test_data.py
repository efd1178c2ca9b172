"""The `data` of a request becomes what a connector reads: files of a data root, or lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.connectors.source import from_json
from ml.errors import BadInput
from storage.data_roots import DataRoots
from storage.errors import OutsideDataRoots
from workers.data import inline, sources


@pytest.fixture
def roots(tmp_path: Path) -> DataRoots:
    (tmp_path / "a.csv").write_text("x\n1\n")
    return DataRoots((tmp_path,))


def test_files_keep_the_name_that_the_client_wrote(roots: DataRoots, tmp_path: Path) -> None:
    path = str(tmp_path / "a.csv")
    assert sources([path, "a.csv"], roots) == [{"path": path, "name": path}, {"path": path, "name": "a.csv"}]


def test_lines_stay_together(roots: DataRoots) -> None:
    assert sources(["x,y", "1,2"], roots) == [{"lines": ["x,y", "1,2"]}]
    assert sources([], roots) == []


def test_row_that_looks_like_a_path_is_a_row_among_rows(roots: DataRoots) -> None:
    assert sources(["name,value", "/etc/passwd,1"], roots) == [{"lines": ["name,value", "/etc/passwd,1"]}]


def test_paths_mixed_with_lines_are_refused(roots: DataRoots, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="both paths and lines"):
        sources([str(tmp_path / "a.csv"), "1,2"], roots)


@pytest.mark.parametrize("entry", ["s3://bucket/a.csv", "http://host/a.csv", "https://host/a.csv", "dataset://a"])
def test_places_that_cannot_be_read_are_named(roots: DataRoots, entry: str) -> None:
    with pytest.raises(BadInput, match="cannot be read from"):
        sources([entry], roots)


def test_entries_of_data_sets_are_the_files_that_were_fetched(roots: DataRoots, tmp_path: Path) -> None:
    path = str(tmp_path / "a.csv")
    both = [{"path": "/cache/0/a", "name": "dataset://d/a"}, {"path": "/cache/0/b", "name": "dataset://d/b"}]
    fetched = {"dataset://d": both}
    assert sources(["dataset://d", path], roots, fetched=fetched) == [*both, {"path": path, "name": path}]
    assert inline(b'["dataset://d"]', roots, fetched) == [from_json(each) for each in both]
    with pytest.raises(BadInput, match="both paths and lines"):
        sources(["dataset://d", "1,2"], roots, fetched=fetched)
    with pytest.raises(BadInput, match="cannot be read from"):
        sources(["dataset://d", "dataset://other"], roots, fetched=fetched)


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
