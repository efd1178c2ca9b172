"""Archives from elsewhere: what is taken from them, and what makes them be refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers import unpack

LIMIT = 1_000_000
FILES = {"0005.model": b"a model", "corresp.txt": b"0 a\n", "config.json": b"{}"}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6)), content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], **changes: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_500_000_000
            for field, value in changes.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda files: gzip.compress(tarred(files)),
    "tar.bz2": lambda files: bz2.compress(tarred(files)),
    "tar.xz": lambda files: lzma.compress(tarred(files)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "unpacked"
    path.mkdir()
    return path


def unpacked(folder: Path, packed: bytes, limit: int = LIMIT, members: int = 100) -> Any:
    return unpack.unpack(io.BytesIO(packed), str(folder), limit, members)


def refused(folder: Path, packed: bytes, **limits: int) -> str:
    found = unpacked(folder, packed, **limits)
    assert list(found) == ["error"]
    assert os.listdir(folder) == []
    return str(found["error"])


@pytest.mark.parametrize("kind", PACKED)
def test_files_are_unpacked_with_their_content_and_times(folder: Path, kind: str) -> None:
    assert unpacked(folder, PACKED[kind](FILES)) == {"files": sorted(FILES), "skipped": []}
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == FILES
    assert all(1.4e9 < each.stat().st_mtime < 1.6e9 for each in folder.iterdir())


@pytest.mark.parametrize("kind", PACKED)
def test_folders_around_all_files_are_left_out(folder: Path, kind: str) -> None:
    files = {f"./models/iris/{name}": content for name, content in FILES.items()}
    assert unpacked(folder, PACKED[kind](files))["files"] == sorted(FILES)


@pytest.mark.parametrize("kind", PACKED)
def test_files_in_other_folders_and_hidden_ones_are_skipped_and_named(folder: Path, kind: str) -> None:
    more = {**FILES, "names.bin/0": b"x", ".modelyard.json": b"{}", "__MACOSX/a": b"x"}
    found = unpacked(folder, PACKED[kind](more))
    assert found == {"files": sorted(FILES), "skipped": [".modelyard.json", "__MACOSX/a", "names.bin/0"]}
    assert sorted(os.listdir(folder)) == sorted(FILES)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:\\out"])
def test_names_that_lead_out_are_refused(folder: Path, kind: str, name: str) -> None:
    assert "leads out of the archive" in refused(folder, PACKED[kind]({**FILES, name: b"x"}))
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["bell\a.model", "n" * 201])
def test_names_that_no_repository_takes_are_refused(folder: Path, kind: str, name: str) -> None:
    assert "cannot be used" in refused(folder, PACKED[kind]({name: b"x"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(folder: Path, kind: bytes) -> None:
    packed = tarred({"0001.model": b""}, type=kind, linkname="/etc/passwd")
    assert "is a link or a device" in refused(folder, packed)


def test_link_in_a_zip_is_refused(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("0001.model")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    assert "is a link or a device" in refused(folder, buffer.getvalue())


@pytest.mark.parametrize("kind", PACKED)
def test_more_bytes_than_the_limit_are_refused_however_well_they_are_packed(folder: Path, kind: str) -> None:
    assert "larger than 1000000 bytes" in refused(folder, PACKED[kind]({"bomb.model": bytes(LIMIT + 1)}))
    halves = {"a.model": bytes(600_000), "b.model": bytes(600_000)}
    assert "larger than 1000000 bytes" in refused(folder, PACKED[kind](halves))


def test_size_in_a_header_that_lies_does_not_help(folder: Path) -> None:
    packed = zipped({"bomb.model": bytes(LIMIT * 2)})
    lying = packed.replace((LIMIT * 2).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != packed
    assert refused(folder, lying)


@pytest.mark.parametrize("kind", PACKED)
def test_more_members_than_the_limit_are_refused(folder: Path, kind: str) -> None:
    files = {f"{number:04d}.model": b"" for number in range(11)}
    assert "more than 10 members" in refused(folder, PACKED[kind](files), members=10)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no archive at all",
        b"PK\3\4broken",
        gzip.compress(b"no tar", mtime=0),
        lzma.compress(b"x" * 2000),
        bytes(2048),
    ],
)
def test_what_is_no_archive_or_holds_nothing_is_refused(folder: Path, packed: bytes) -> None:
    assert refused(folder, packed)


@pytest.mark.parametrize("kind", PACKED)
def test_archive_that_was_cut_off_is_refused(folder: Path, kind: str) -> None:
    packed = PACKED[kind]({"a.model": os.urandom(50_000), "b.model": os.urandom(50_000)})
    for share in (0.3, 0.5, 0.7):
        assert refused(folder, packed[: int(len(packed) * share)])
    if kind not in ("zip", "tar"):
        assert refused(folder, packed[:-5]), "the checksum at the end is missing"


def test_encrypted_zip_is_refused(folder: Path) -> None:
    packed = bytearray(zipped({"a.model": b"x"}))
    packed[6] |= 1
    packed[packed.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in refused(folder, bytes(packed))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_a_name_that_comes_twice_the_last_one_counts(folder: Path, kind: str) -> None:
    if kind == "tar":
        one, two = tarred({"a.model": b"1", "b.model": b"2"}), tarred({"a.model": b"3", "c.model": b"4"})
        packed = one[: 4 * 512] + two  # without the zeros that end an archive
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.model", b"1")
            archive.writestr("b.model", b"2")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a.model", b"3")
            archive.writestr("c.model", b"4")
        packed = buffer.getvalue()
    assert unpacked(folder, packed)["files"] == ["a.model", "b.model", "c.model"]
    assert (folder / "a.model").read_bytes() == b"3"


def run(archive: Path, folder: Path, memory_bytes: int) -> Any:
    """What the program prints."""
    limits = (str(LIMIT), "100", str(memory_bytes))
    command = [sys.executable, "-I", "-S", unpack.__file__, str(archive), str(folder), *limits]
    return json.loads(subprocess.run(command, env={}, capture_output=True, check=True, timeout=60).stdout)


def test_program_needs_the_standard_library_only(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(PACKED["tar.gz"](FILES))
    assert run(archive, folder, 2**31)["files"] == sorted(FILES)
    assert sorted(os.listdir(folder)) == sorted(FILES)


@pytest.mark.parametrize("kind", PACKED)
def test_tree_keeps_its_folders(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    given = {"top/a.csv": b"a", "top/deep/b.csv": b"b", "top/.hidden/c.csv": b"c", "__MACOSX/d": b"d"}
    made = unpack.unpack(io.BytesIO(PACKED[kind](given)), str(folder), LIMIT, 10, is_tree=True)
    assert made == {"files": ["top/a.csv", "top/deep/b.csv"], "skipped": ["__MACOSX/d", "top/.hidden/c.csv"]}
    assert (folder / "top" / "deep" / "b.csv").read_bytes() == b"b"


def test_tree_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    packed = tarred({"a/b/c": b"x", "a/b": b"x"})
    assert "error" in unpack.unpack(io.BytesIO(packed), str(folder), LIMIT, 10, is_tree=True)
    assert list(folder.iterdir()) == []
