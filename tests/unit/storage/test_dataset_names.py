"""Names of data sets and paths in them: what they may be, and what an address is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.dataset_names import check_name, check_path, split_address
from storage.errors import BadDatasetName


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("dataset://iris", ("iris", "")),
        ("dataset://iris/", ("iris", "")),
        ("dataset://Iris/Train.csv", ("iris", "Train.csv")),
        ("dataset://iris/a/b.csv", ("iris", "a/b.csv")),
        ("dataset://iris/a/b/", ("iris", "a/b")),
        ("dataset://my flowers/année.csv", ("my flowers", "année.csv")),
        ("dataset://1.0/50%25.csv", ("1.0", "50%25.csv")),
    ],
)
def test_address_is_a_name_and_a_path(address: str, parts: tuple[str, str]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/a.csv",
        "../iris",
        "iris//a.csv",
        "iris/../a.csv",
        "iris/a/../../b",
        "iris/./a",
        "iris/.hidden",
        "iris/a\\b",
    ],
)
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadDatasetName):
        split_address(f"dataset://{address}")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\nb", "x" * 256])
def test_names_that_no_data_set_can_have(name: str) -> None:
    with pytest.raises(BadDatasetName):
        check_name(name)


@pytest.mark.parametrize(
    "path", ["/a", "a/", "a//b", "../a", "a/..", ".a", "a/.b", "a\0b", "a\nb", "x" * 256, "a/" * 460]
)
def test_paths_that_no_file_can_have(path: str) -> None:
    with pytest.raises(BadDatasetName, match="path"):
        check_path(path)


@given(st.text(max_size=40))
def test_path_that_is_taken_stays_inside(path: str) -> None:
    try:
        taken = check_path(path)
    except BadDatasetName:
        return
    assert taken == path
    assert not taken.startswith("/")
    assert not {"", ".", ".."} & set(taken.split("/"))
