"""Repositories in a data root: made, written, read and cleared without surprises."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from storage import repository_folder
from storage.errors import RepositoryUnusable, StorageFull
from storage.landing import is_partial_name, partial_name
from storage.repository_folder import clear, export, prepare, read_marker, write_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The folder as on a read-only file system: opening for writing fails, for root as well.

    Permission bits would not do: root may write in spite of them.
    """
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT and Path(path).is_relative_to(folder):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are opened on /dev/full: the kernel itself then says that no space is left."""
    real = os.open

    def open_full(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT and is_partial_name(Path(path).name):
            return real("/dev/full", os.O_RDWR)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", open_full)


# Preparing


@pytest.mark.parametrize("create", [False, True])
def test_a_folder_that_can_be_written_is_left_as_it_is(folder: Path, create: bool) -> None:
    folder.chmod(0o700)
    (folder / "weights.model").write_bytes(b"mine")
    prepare(folder, create)
    assert names(folder) == ["weights.model"]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_missing_folders_are_created_with_mode_775_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        prepare(tmp_path / "a" / "b" / "c", create=True)
    finally:
        os.umask(before)
    for path in ["a", "a/b", "a/b/c"]:
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o775


def test_a_missing_folder_is_refused_in_the_words_of_the_compatible_api(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(RepositoryUnusable) as caught:
        prepare(missing, create=False)
    assert str(caught.value) == f"destination model directory {missing} is not writable or does not exist."
    assert not missing.exists()


@pytest.mark.parametrize("create", [False, True])
def test_a_file_of_the_same_name_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "model").write_bytes(b"mine")
    with pytest.raises(RepositoryUnusable) as caught:
        prepare(tmp_path / "model", create)
    assert str(caught.value) == f"file exists with same name as repository {tmp_path / 'model'}"
    assert (tmp_path / "model").read_bytes() == b"mine"


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to("nowhere")
    with pytest.raises(RepositoryUnusable, match="same name"):
        prepare(tmp_path / "model", create=True)


@pytest.mark.parametrize("create", [False, True])
def test_a_folder_below_a_file_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryUnusable, match="not writable or does not exist"):
        prepare(tmp_path / "file" / "model", create)


@pytest.mark.parametrize("create", [False, True])
def test_a_read_only_folder_is_refused(folder: Path, read_only: None, create: bool) -> None:
    with pytest.raises(RepositoryUnusable) as caught:
        prepare(folder, create)
    assert str(caught.value) == f"destination model directory {folder} is not writable or does not exist."


def test_a_folder_in_which_nobody_can_create_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnusable, match="/proc/self/model is not writable"):
        prepare(Path("/proc/self/model"), create=True)


def test_a_full_disk_is_named_as_such(folder: Path, full_disk: None) -> None:
    with pytest.raises(StorageFull, match="No space left"):
        prepare(folder, create=False)
    with pytest.raises(StorageFull, match="No space left"):
        write_file(folder, "a", b"x")
    assert names(folder) == []


# Writing


def test_files_are_written_from_bytes_and_from_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    write_file(folder, "0100.model", tmp_path / "source")
    write_file(folder, "corresp.txt", b"0 setosa\n")
    write_file(folder, "corresp.txt", b"0 virginica\n")
    assert names(folder) == ["0100.model", "corresp.txt"]
    assert (folder / "0100.model").read_bytes() == b"x" * 3_000_000
    assert (folder / "corresp.txt").read_bytes() == b"0 virginica\n"


def test_a_planted_link_is_replaced_and_not_followed(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (folder / "metrics.json").symlink_to(victim)
    write_file(folder, "metrics.json", b"{}")
    assert victim.read_bytes() == b"mine"
    assert not (folder / "metrics.json").is_symlink()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x", "a\0b", ".modelyard-00.partial"])
def test_names_that_are_none_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(RepositoryUnusable, match="cannot be the name"):
        write_file(folder, name, b"x")


def test_a_name_that_is_too_long_or_taken_by_a_folder_is_refused(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ["x" * 256, "sub"]:
        with pytest.raises(RepositoryUnusable, match="cannot be written"):
            write_file(folder, name, b"x")
    assert names(folder) == ["sub"]


def test_a_failed_write_keeps_the_file_that_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(folder, "corresp.txt", b"before")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RepositoryUnusable, match="Input/output error"):
        write_file(folder, "corresp.txt", b"after")
    assert names(folder) == ["corresp.txt"]
    assert (folder / "corresp.txt").read_bytes() == b"before"


def test_a_missing_local_file_is_the_callers_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(folder, "a", folder / "missing")


# Exporting


def test_an_export_ends_with_its_marker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = write_file

    def write_and_note(target: Path, name: str, content: bytes | Path) -> None:
        order.append(name)
        real(target, name, content)

    monkeypatch.setattr(repository_folder, "write_file", write_and_note)
    export(folder, {"z.model": b"z", "corresp.txt": b"c"}, {"version": 7})
    assert order == ["z.model", "corresp.txt", ".modelyard.json"]
    assert read_marker(folder) == {"version": 7}
    assert json.loads((folder / ".modelyard.json").read_text()) == {"version": 7}


def test_an_interrupted_export_keeps_the_former_marker_and_can_be_done_again(folder: Path) -> None:
    export(folder, {"a": b"1"}, {"version": 1})
    with pytest.raises(RepositoryUnusable):
        export(folder, {"a": b"2", "bad/name": b"2"}, {"version": 2})
    assert read_marker(folder) == {"version": 1}
    export(folder, {"a": b"2"}, {"version": 2})
    assert read_marker(folder) == {"version": 2}
    assert (folder / "a").read_bytes() == b"2"


def test_an_export_removes_what_a_killed_one_left_long_ago(folder: Path) -> None:
    old, new = folder / partial_name(), folder / partial_name()
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    export(folder, {"a": b"1"}, {})
    assert names(folder) == sorted([".modelyard.json", "a", new.name])


def test_the_marker_is_no_file_of_the_repository(folder: Path) -> None:
    with pytest.raises(RepositoryUnusable, match="marker"):
        export(folder, {".modelyard.json": b"{}"}, {})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b" " * (2**20 + 2)])
def test_a_spoilt_marker_counts_as_none(folder: Path, content: bytes) -> None:
    (folder / ".modelyard.json").write_bytes(content)
    assert read_marker(folder) is None


def test_no_marker_counts_as_none(folder: Path, tmp_path: Path) -> None:
    assert read_marker(folder) is None
    assert read_marker(folder / "missing") is None
    (tmp_path / "elsewhere").write_text("{}")
    (folder / ".modelyard.json").symlink_to(tmp_path / "elsewhere")
    assert read_marker(folder) is None
    (folder / ".modelyard.json").unlink()
    os.mkfifo(folder / ".modelyard.json")
    assert read_marker(folder) is None
    (folder / ".modelyard.json").unlink()
    (folder / ".modelyard.json").mkdir()
    assert read_marker(folder) is None


# Clearing


@pytest.fixture
def filled(folder: Path, tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.model").write_bytes(b"mine")
    for name in ["0100.model", "0200.model", "corresp.txt", "config.json", ".modelyard.json"]:
        (folder / name).write_bytes(b"x")
    (folder / "names.bin").mkdir()
    (folder / "names.bin" / "0").write_bytes(b"x")
    (folder / "names.bin" / "link").symlink_to(outside)
    (folder / "link.model").symlink_to(outside / "kept.model")
    (folder / "folder link").symlink_to(outside)
    return folder


def kept(tmp_path: Path) -> bool:
    return (tmp_path / "outside" / "kept.model").read_bytes() == b"mine"


def test_lib_removes_what_matches_and_nothing_else(filled: Path, tmp_path: Path) -> None:
    assert clear(filled, "lib", ["*.model", "names.bin"]) == [
        "0100.model",
        "0200.model",
        "link.model",
        "names.bin",
    ]
    assert names(filled) == [".modelyard.json", "config.json", "corresp.txt", "folder link"]
    assert kept(tmp_path)


def test_lib_without_patterns_removes_nothing(filled: Path) -> None:
    before = names(filled)
    assert clear(filled, "lib") == []
    assert names(filled) == before


def test_full_removes_everything_but_the_folder(filled: Path, tmp_path: Path) -> None:
    before = names(filled)
    assert clear(filled, "full") == before
    assert names(filled) == []
    assert kept(tmp_path)


def test_dir_removes_the_folder_as_well(filled: Path, tmp_path: Path) -> None:
    clear(filled, "dir")
    assert not filled.exists()
    assert kept(tmp_path)


@pytest.mark.parametrize("mode", ["lib", "full", "dir"])
def test_a_missing_folder_is_cleared_already(tmp_path: Path, mode: repository_folder.Mode) -> None:
    assert clear(tmp_path / "missing", mode, ["*"]) == []


@pytest.mark.parametrize("mode", ["full", "dir"])
def test_a_link_in_place_of_the_folder_is_not_followed(
    filled: Path, tmp_path: Path, mode: repository_folder.Mode
) -> None:
    (tmp_path / "link").symlink_to(filled)
    before = names(filled)
    with pytest.raises(RepositoryUnusable, match="cannot be cleared"):
        clear(tmp_path / "link", mode)
    assert names(filled) == before


def test_what_cannot_be_removed_is_an_error(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.unlink

    def refuse(path: Any, **named: Any) -> None:
        if path == "config.json":
            raise PermissionError(1, "Operation not permitted")
        real(path, **named)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(RepositoryUnusable, match="Operation not permitted"):
        clear(filled, "full")
