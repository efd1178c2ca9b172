"""Files land whole or not at all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from storage.errors import StorageFull, StoreUnavailable
from storage.landing import copy_hashing, is_partial_name, landing, local_errors, partial_name, sha256_of


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with landing(path, durable=True, mode=0o600) as file:
        file.write(b"hello")
        assert not path.exists()
    assert path.read_bytes() == b"hello"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def fail() -> None:
        with landing(path, durable=False) as file:
            file.write(b"hello")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_a_copy_is_hashed_on_the_way(tmp_path: Path, size: int) -> None:
    data, target = b"\x07" * size, io.BytesIO()
    assert copy_hashing(io.BytesIO(data), target) == (size, hashlib.sha256(data).hexdigest())
    assert target.getvalue() == data
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_temporary_names_are_told_from_others() -> None:
    assert partial_name() != partial_name()
    assert is_partial_name(partial_name())
    for name in [".modelyard.json", "a.partial", ".partial", ""]:
        assert not is_partial_name(name)


@pytest.mark.parametrize(("number", "expected"), [(28, StorageFull), (122, StorageFull), (5, StoreUnavailable)])
def test_errors_of_the_system_become_ours(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="doing this"), local_errors("doing this"):
        raise OSError(number, "why")
