"""Repositories in a data root: made, written, read and cleared without surprises."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from storage import repository_folder
from storage.errors import RepositoryUnusable, StorageFull
from storage.landing import partial_name
from storage.repository_folder import (
    Comparison,
    clear,
    compare,
    copy_out,
    export,
    exported_files,
    look,
    prepare,
    read_marker,
    write_file,
)


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
    words = f"destination model directory {missing} is not writable or does not exist."
    assert str(caught.value) == f"{words} (There is no such folder; with model.create_repository true it is made.)"
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


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Exporter:
    """Writes files as the newest version of a repository holds them."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self.source = source
        source.mkdir()

    def __call__(
        self, *, version: int = 1, made: bool = True, spared: tuple[str, ...] = (), **files: bytes
    ) -> list[str]:
        """Export `files`, named with `__` for a dot and `_` for a dash, in this order."""
        contents = {name.replace("__", ".").replace("_", "-"): content for name, content in files.items()}
        for name, content in contents.items():
            (self.source / name).write_bytes(content)
        paths = {name: self.source / name for name in contents}
        digests = {name: digest(content) for name, content in contents.items()}
        return export(self.folder, paths, digests, {"version": version}, made=made, spared=spared)


@pytest.fixture
def exported(folder: Path, tmp_path: Path) -> Exporter:
    return Exporter(folder, tmp_path / "source")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were written, in order."""
    order: list[str] = []
    real = write_file

    def write_and_note(target: Path, name: str, content: bytes | Path) -> None:
        order.append(name)
        real(target, name, content)

    monkeypatch.setattr(repository_folder, "write_file", write_and_note)
    return order


def test_an_export_ends_with_its_marker(folder: Path, exported: Exporter, written: list[str]) -> None:
    exported(version=7, z__model=b"z", corresp__txt=b"c")
    assert written == ["z.model", "corresp.txt", ".modelyard.json"]
    marker = read_marker(folder)
    assert marker is not None
    assert marker["version"] == 7
    assert marker["files"]["z.model"]["sha256"] == digest(b"z")
    assert marker == json.loads((folder / ".modelyard.json").read_text())


def test_each_exported_file_is_newer_than_the_one_before_whatever_their_names(folder: Path, exported: Exporter) -> None:
    exported(checkpoint_900__npt=b"9", checkpoint_1000__npt=b"10")
    times = [(folder / name).stat().st_mtime for name in ("checkpoint-900.npt", "checkpoint-1000.npt")]
    assert times[0] + 0.9 < times[1] <= time.time()


def test_a_file_that_lies_there_already_is_not_written_again(
    folder: Path, exported: Exporter, written: list[str]
) -> None:
    exported(a__model=b"1", vocab__dat=b"words")
    written.clear()
    exported(version=2, a__model=b"2", vocab__dat=b"words")
    assert written == ["a.model", ".modelyard.json"]
    (folder / "vocab.dat").write_bytes(b"changed by hand")
    written.clear()
    exported(version=3, a__model=b"2", vocab__dat=b"words")
    assert written == ["vocab.dat", ".modelyard.json"]
    assert (folder / "vocab.dat").read_bytes() == b"words"


def test_files_of_the_version_before_go_unless_somebody_changed_or_spared_them(
    folder: Path, exported: Exporter
) -> None:
    exported(a__model=b"1", b__model=b"2", c__model=b"3", config__json=b"{}")
    (folder / "b.model").write_bytes(b"my own weights")
    (folder / "mine.model").write_bytes(b"mine")
    assert exported(version=2, spared=("config.json",), c__model=b"3") == ["a.model"]
    assert names(folder) == [".modelyard.json", "b.model", "c.model", "config.json", "mine.model"]


def test_files_that_no_training_made_stay_when_a_version_without_them_follows(folder: Path, exported: Exporter) -> None:
    exported(a__model=b"1")
    exported(version=2, made=False, a__model=b"1", hand__model=b"mine")
    assert exported(version=3, c__model=b"3") == ["a.model"]
    assert names(folder) == [".modelyard.json", "c.model", "hand.model"]
    assert compared(folder, c__model=b"3") == compared(folder, thoroughly=False, c__model=b"3")
    assert compared(folder, c__model=b"3").changed == frozenset(), "it was seen already"
    assert exported(version=4, d__model=b"4") == ["c.model"]
    assert names(folder) == [".modelyard.json", "d.model", "hand.model"]
    (folder / "hand.model").write_bytes(b"another one")
    assert compared(folder, d__model=b"4").changed == {"hand.model"}


def test_an_interrupted_export_keeps_the_former_marker_and_can_be_done_again(
    folder: Path, exported: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(a__model=b"1", b__model=b"2")
    with monkeypatch.context() as patched:
        patched.setattr(os, "utime", lambda *given, **named: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(RepositoryUnusable):
            exported(version=2, a__model=b"2")
    assert (read_marker(folder) or {})["version"] == 1
    exported(version=2, a__model=b"2")
    assert (read_marker(folder) or {})["version"] == 2
    assert (folder / "a.model").read_bytes() == b"2"
    assert names(folder) == [".modelyard.json", "a.model"]


def test_an_export_removes_what_a_killed_one_left_long_ago(folder: Path, exported: Exporter) -> None:
    old, new = folder / partial_name(), folder / partial_name()
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    exported(a=b"1")
    assert names(folder) == sorted([".modelyard.json", "a", new.name])


def test_the_marker_is_no_file_of_the_repository(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnusable, match="marker"):
        export(folder, {".modelyard.json": tmp_path}, {}, {}, made=True)


# Looking


def test_plain_files_are_seen_and_nothing_else(filled: Path) -> None:
    (filled / partial_name()).touch()
    os.mkfifo(filled / "pipe.model")
    assert sorted(look(filled)) == ["0100.model", "0200.model", "config.json", "corresp.txt"]
    assert look(filled / "missing") == {}


def compared(folder: Path, *, thoroughly: bool = True, **known: bytes) -> Comparison:
    contents = {name.replace("__", "."): digest(content) for name, content in known.items()}
    return compare(folder, contents, lambda name: name.endswith(".model"), thoroughly=thoroughly)


def test_an_exported_folder_is_unchanged_without_reading_its_files(
    folder: Path, exported: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(a__model=b"1", b__model=b"2", notes__txt=b"n")
    monkeypatch.setattr(repository_folder, "sha256_in", lambda folder, name: pytest.fail(f"{name} was read"))
    found = compared(folder, a__model=b"1", b__model=b"2", notes__txt=b"n")
    assert (sorted(found.present), found.changed, found.removed) == (["a.model", "b.model"], frozenset(), frozenset())


def test_new_changed_and_removed_files_are_told_apart(folder: Path, exported: Exporter) -> None:
    exported(a__model=b"1", b__model=b"2", c__model=b"3")
    (folder / "a.model").write_bytes(b"other")
    (folder / "b.model").unlink()
    (folder / "d.model").write_bytes(b"4")
    (folder / "notes.txt").write_bytes(b"no model")
    found = compared(folder, a__model=b"1", b__model=b"2", c__model=b"3")
    assert found.changed == {"a.model", "d.model"}
    assert found.removed == {"b.model"}


def test_a_touched_file_is_unchanged_when_it_is_read(folder: Path, exported: Exporter) -> None:
    exported(a__model=b"1")
    os.utime(folder / "a.model", (1, 1))
    assert compared(folder, thoroughly=False, a__model=b"1").changed == {"a.model"}
    assert compared(folder, a__model=b"1").changed == frozenset()


def test_what_no_export_wrote_is_not_missed(folder: Path) -> None:
    assert compared(folder, a__model=b"1") == Comparison({}, frozenset(), frozenset())


def test_a_file_that_an_export_wrote_for_another_version_is_changed(folder: Path, exported: Exporter) -> None:
    exported(a__model=b"1")
    assert compared(folder, thoroughly=False, a__model=b"2").changed == {"a.model"}


@pytest.mark.parametrize("files", [[], None, {"a.model": 5}, {"a.model": {"sha256": "x"}}])
def test_marker_of_another_form_vouches_for_nothing(folder: Path, files: Any) -> None:
    (folder / ".modelyard.json").write_text(json.dumps({"version": 1, "files": files}))
    assert exported_files(folder) == {}


def test_files_are_copied_out_with_their_times_and_links_are_not(filled: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    os.utime(filled / "0100.model", (7, 7))
    os.mkfifo(filled / "pipe.model")
    wanted = ["0100.model", "corresp.txt", "link.model", "pipe.model", "names.bin", "missing"]
    assert copy_out(filled, wanted, target) == ["0100.model", "corresp.txt"]
    assert names(target) == ["0100.model", "corresp.txt"]
    assert (target / "0100.model").stat().st_mtime == 7


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000, b" " * (2**20 + 2)])
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


def test_index_removes_what_matches_and_nothing_else(filled: Path) -> None:
    assert clear(filled, "index", ["names.bin", "index.*"]) == ["names.bin"]


@pytest.mark.parametrize("mode", ["lib", "index", "full", "dir"])
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
