"""Attacks by way of an archive: out of the folder, through links, and on the disk, the memory and the time.

Each case is refused, or does no harm; and each does its harm where the lock that it meets is taken away: the limit
raised, the check left out, or the archive given to `extractall` as it is. What could hurt the machine is done by the
program itself, in a process with limits.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workers import archives, unpack

LIMIT = 1_000_000
MEMORY = 2**31


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "outer" / "unpacked"
    path.mkdir(parents=True)
    return path


def unpacked(folder: Path, packed: bytes, limit: int = LIMIT, members: int = 1000) -> Any:
    return unpack.unpack(io.BytesIO(packed), str(folder), limit, members, is_tree=True)


def refused(folder: Path, packed: bytes, **limits: int) -> str:
    found = unpacked(folder, packed, **limits)
    assert list(found) == ["error"], found
    assert os.listdir(folder) == []
    return str(found["error"])


def naively(folder: Path, packed: bytes) -> None:
    """Without any lock: as a program does that trusts whom it has the archive from."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive, contextlib.suppress(tarfile.TarError):
        archive.extractall(folder, filter="fully_trusted")


def member(name: str, content: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for field, value in changes.items():
        setattr(made, field, value)
    return made, content


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for each, content in members:
            archive.addfile(each, io.BytesIO(content))
    return buffer.getvalue()


def zipped(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def block(kind: bytes, content: bytes, name: str = "a", size: int | None = None) -> bytes:
    """A block of a tar, with a content that tarfile itself would not write."""
    made, _ = member(name, type=kind, size=len(content) if size is None else size)
    return made.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def program(archive: Path, folder: Path, *, limit: int = 2**26, memory: int = MEMORY, cpu_s: int = 20) -> Any:
    """What the program says; None when it came to its end."""
    code = (
        f"import sys, resource; sys.path.insert(0, {str(Path(unpack.__file__).parent)!r}); import unpack; "
        f"unpack.CPU_S = {cpu_s}; unpack.main(sys.argv[1:])"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(archive), str(folder), str(limit), "1000", str(memory)]
    done = subprocess.run(command, env={}, capture_output=True, check=False, timeout=60)
    return json.loads(done.stdout) if done.stdout else None


# Out of the folder

OUT = ["../out", "a/../../out", "./../out", "a/b/../../../out", "{outer}/out"]


@pytest.mark.parametrize("pack", [zipped, lambda file: tarred(member(*file))], ids=["zip", "tar"])
@pytest.mark.parametrize("name", OUT)
def test_names_lead_out_only_when_they_are_not_looked_at(
    name: str, pack: Callable[[tuple[str, bytes]], bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack((name.format(outer=folder.parent), b"planted"))
    assert "leads out of the archive" in refused(folder, packed)
    assert not (folder.parent / "out").exists()
    if name.startswith("."):
        return  # hidden ones are left out, which is a lock of its own
    # The lock open:
    (folder / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(unpack.Unpacking, "check_path", lambda self, path: [path])
    unpacked(folder, packed)
    assert (folder.parent / "out").read_bytes() == b"planted"


@pytest.mark.parametrize("name", ["..\\out", "C:\\out", "\\out", "a\\..\\..\\out"])
def test_separators_of_another_system_are_separators(name: str, folder: Path) -> None:
    assert "leads out of the archive" in refused(folder, zipped((name, b"planted")))


@pytest.mark.parametrize("name", ["\uff0e\uff0e/out", "a\u2215..\u2215out", "\u2025/out", "%2e%2e/out", "a%2f..%2fout"])
def test_what_looks_like_a_way_out_is_a_name_like_any_other(name: str, folder: Path) -> None:
    # Nothing here folds characters or takes escapes for what they stand for, so none of them can become a way out.
    assert unpacked(folder, zipped((name, b"x")))["files"] == [name]
    assert os.listdir(folder.parent) == [folder.name]


# Links, devices and rights


def links() -> Iterator[tuple[str, bytes, Callable[[Path], bool]]]:
    yield (
        "a link to a folder outside, and a file through it",
        tarred(member("way", type=tarfile.SYMTYPE, linkname=".."), member("way/out", b"planted")),
        lambda folder: (folder.parent / "out").exists(),
    )
    yield (
        "a link to a file outside",
        tarred(member("a.csv", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        lambda folder: b"root" in (folder / "a.csv").read_bytes(),
    )
    yield (
        "a link to a link",
        tarred(
            member("one", type=tarfile.SYMTYPE, linkname="two"),
            member("two", type=tarfile.SYMTYPE, linkname="../"),
            member("one/out", b"planted"),
        ),
        lambda folder: (folder.parent / "out").exists(),
    )
    yield (
        "a file that takes the place of its link",
        tarred(member("a", type=tarfile.SYMTYPE, linkname="../out"), member("a", b"planted")),
        lambda folder: (folder / "a").read_bytes() == b"planted",
    )
    yield (
        "a second name of a file outside",
        tarred(member("a.csv", type=tarfile.LNKTYPE, linkname="../secret")),
        lambda folder: (folder / "a.csv").read_bytes() == b"secret",
    )
    yield (
        "a pipe, which a reader would wait at",
        tarred(member("a.csv", type=tarfile.FIFOTYPE)),
        lambda folder: stat.S_ISFIFO((folder / "a.csv").stat().st_mode),
    )


@pytest.mark.parametrize(("packed", "is_done"), [case[1:] for case in links()], ids=[case[0] for case in links()])
def test_links_and_pipes_are_made_only_by_who_takes_all(
    packed: bytes, is_done: Callable[[Path], bool], folder: Path
) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    assert "is a link or a device" in refused(folder, packed)
    # The lock open:
    naively(folder, packed)
    assert is_done(folder)


def test_rights_of_a_member_are_those_that_we_give(folder: Path) -> None:
    packed = tarred(member("program", b"x", mode=0o6777))
    unpacked(folder, packed)
    assert (folder / "program").stat().st_mode & 0o7111 == 0
    # The lock open:
    (folder / "program").unlink()
    naively(folder, packed)
    assert (folder / "program").stat().st_mode & 0o6000 == 0o6000


# Names that clash


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
@pytest.mark.parametrize("is_zip", [True, False])
def test_file_and_folder_of_one_name_are_refused(names: tuple[str, str], is_zip: bool, folder: Path) -> None:
    files = [(name, b"x") for name in names]
    assert refused(folder, zipped(*files) if is_zip else tarred(*(member(*file) for file in files)))


def test_upper_and_lower_case_are_two_files(folder: Path) -> None:
    assert unpacked(folder, zipped(("A.csv", b"upper"), ("a.csv", b"lower")))["files"] == ["A.csv", "a.csv"]
    assert (folder / "A.csv").read_bytes() == b"upper"


def test_name_as_our_own_of_a_file_under_way_takes_nothing(folder: Path) -> None:
    found = unpacked(folder, zipped((".1", b"x"), (".2", b"y"), ("a.csv", b"z")))
    assert found == {"files": ["a.csv"], "skipped": [".1", ".2"]}
    assert (folder / "a.csv").read_bytes() == b"z"


# The disk


def overlapping(copies: int, size: int) -> bytes:
    """A zip whose members are all the same bytes of it: small, and with a large content."""
    one = zipped(("a", bytes(size)))
    start = one.index(b"PK\1\2")
    end = one.index(b"PK\5\6")
    entry = one[start:end]
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, copies, copies, len(entry) * copies, start, 0)
    return one[:start] + entry * copies + ending


def sparse(size: int) -> bytes:
    """A tar with a file that is one hole of that size."""
    made, _ = member("hole", type=tarfile.GNUTYPE_SPARSE)
    header = bytearray(made.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (size, 0)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


BOMBS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zipped(("a", bytes(5 * LIMIT))),
    "zip with members on top of each other": lambda: overlapping(50, LIMIT // 10),
    "tar.gz": lambda: gzip.compress(tarred(member("a", bytes(5 * LIMIT)))),
    "tar.gz in two pieces": lambda: gzip.compress(tarred(member("a", b"x"))) + gzip.compress(bytes(5 * LIMIT)),
    "tar.xz": lambda: lzma.compress(tarred(member("a", bytes(5 * LIMIT)))),
    "tar with a hole": lambda: sparse(5 * LIMIT),
    "tar.gz that goes on behind its end": lambda: gzip.compress(tarred(member("a", b"x")) + bytes(5 * LIMIT)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_stop_at_the_limit_and_only_there(kind: str, folder: Path) -> None:
    packed = BOMBS[kind]()
    assert f"larger than {LIMIT} bytes" in refused(folder, packed)
    # The lock open:
    assert "files" in unpacked(folder, packed, limit=10 * LIMIT)


def test_archive_in_an_archive_is_left_as_it_is(folder: Path) -> None:
    inner = zipped(("bomb", bytes(5 * LIMIT)))
    assert unpacked(folder, zipped(("inner.zip", inner)))["files"] == ["inner.zip"]
    assert (folder / "inner.zip").read_bytes() == inner


def test_sizes_below_zero_gain_nothing(folder: Path) -> None:
    before, content = member("a", bytes(10)), bytes(2 * LIMIT)
    packed = tarred(before) + tarred(member("b", content))
    header, _ = member("a")
    header.size = -(2**40)
    assert refused(folder, header.tobuf(tarfile.GNU_FORMAT) + packed)


def test_many_members_stop_at_the_limit_and_only_there(folder: Path) -> None:
    packed = tarred(*(member(f"{number}", b"") for number in range(2000)))
    assert "more than 1000 members" in refused(folder, packed)
    # The lock open:
    assert len(unpacked(folder, packed, members=10_000)["files"]) == 2000


def test_names_of_what_is_left_out_do_not_fill_the_memory_of_who_reads_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zipped(*((f".{number}" + "n" * 60_000, b"") for number in range(200)))
    assert len(packed) < 30_000_000
    assert "longer than 4095 characters" in refused(folder, packed)
    packed = zipped(*((f".{number}" + "n" * 4000, b"") for number in range(200)), ("a", b""))
    assert len(json.dumps(unpacked(folder, packed))) < 60_000
    # The lock open:
    (folder / "a").unlink()
    monkeypatch.setattr(unpack, "SHOWN", 10**6)
    assert len(json.dumps(unpacked(folder, packed))) > 800_000


# The memory and the time


def greedy() -> bytes:
    """A tar.xz whose first bytes want 4 GiB for its dictionary."""
    packed = bytearray(lzma.compress(tarred(member("a", b"x")), preset=0))
    length = (packed[12] + 1) * 4
    packed[12 + 4] = 40  # the size of the dictionary in the header of the first block
    packed[12 + length - 4 : 12 + length] = struct.pack("<L", zlib.crc32(bytes(packed[12 : 12 + length - 4])))
    return bytes(packed)


def test_archive_that_wants_all_memory_gets_some_and_no_more(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.xz"
    archive.write_bytes(greedy())
    assert "memory" in program(archive, folder)["error"]
    # The lock open: what it asks for is never written to, so that it costs this machine nothing.
    assert program(archive, folder, memory=2**33)["files"] == ["a"]


def slow() -> bytes:
    """A tar with a header of digits, in which tarfile looks for an end from each of them on."""
    return block(tarfile.XHDTYPE, b"1" * 200_000) + tarred(member("a", b"x"))


def test_header_that_takes_ages_to_read_is_refused_unread(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more than 8192 bytes of a member" in refused(folder, slow())
    # The lock open, and the one behind it, on the time, nearly so:
    archive = tmp_path / "a.tar"
    archive.write_bytes(slow())
    code = (
        f"import sys; sys.path.insert(0, {str(Path(unpack.__file__).parent)!r}); import unpack; "
        "unpack.EXTENDED_BYTES = 10**6; unpack.CPU_S = 1; unpack.main(sys.argv[1:])"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(archive), str(folder), "1000000", "10", str(MEMORY)]
    done = subprocess.run(command, env={}, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_time_grows_with_the_archive_and_has_an_end() -> None:
    asked = "import resource, sys; print(resource.getrlimit(resource.RLIMIT_CPU)[0])"

    def limit(work_bytes: int) -> int:
        code = f"import sys; sys.path.insert(0, {str(Path(unpack.__file__).parent)!r}); import unpack; "
        code += f"unpack.confine(2**20, 2**30, {work_bytes}); {asked}"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], env={}, capture_output=True, check=True)
        return int(done.stdout)

    assert [limit(0), limit(2**30), limit(2**50)] == [60, 60 + 256, 1800]


@pytest.mark.parametrize(
    "packed",
    [
        block(tarfile.XHDTYPE, b"12 path=abc\n") * 2000 + tarred(member("a", b"x")),
        block(tarfile.XGLTYPE, b"12 path=abc\n") * 2000 + tarred(member("a", b"x")),
        block(tarfile.GNUTYPE_LONGNAME, b"n" * 300) * 2000 + tarred(member("a", b"x")),
        block(tarfile.XHDTYPE, b"9" * 5000 + b" path=a\n") + tarred(member("a", b"x")),
        block(tarfile.XHDTYPE, b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + tarred(member("a", b"9" * 4000)),
        block(tarfile.XHDTYPE, b"30 GNU.sparse.map=1,2,x,4,5\n\n") + tarred(member("a", b"x")),
    ],
    ids=["deep pax", "deep global pax", "deep names", "long number", "map without an end", "map of words"],
)
def test_headers_that_lead_on_and_on_are_a_broken_archive(packed: bytes, folder: Path) -> None:
    found = unpacked(folder, packed)
    assert set(found) in ({"error"}, {"files", "skipped"})
    assert "memory" not in found.get("error", "")


def test_map_of_holes_that_is_cut_off_is_a_broken_archive(folder: Path) -> None:
    header = bytearray(sparse(10)[:512])
    header[482] = 1  # it goes on in the next block, which is not there
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "broken" in refused(folder, bytes(header))


# A program of its own


def test_crash_of_the_program_is_a_broken_archive(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("a", b"x")))
    crash = tmp_path / "crash.py"
    crash.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(archives.unpack, "__file__", str(crash))
    with pytest.raises(archives.Unpackable, match="ended the unpacking process"):
        archives.unpacked(tmp_path / "a.zip", folder, LIMIT)


def test_link_that_took_the_place_of_an_archive_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.zip").write_bytes(zipped(("a", b"x")))
    (tmp_path / "a.zip").symlink_to(tmp_path / "elsewhere.zip")
    with pytest.raises(archives.Unpackable, match="cannot be read"):
        archives.unpacked(tmp_path / "a.zip", folder, LIMIT, is_resolved=True)
    # The lock open:
    assert archives.unpacked(tmp_path / "a.zip", folder, LIMIT)["files"] == ["a"]


def test_pipe_in_the_place_of_an_archive_is_not_waited_at(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(archives.Unpackable):
        archives.unpacked(tmp_path / "a.zip", folder, LIMIT, is_resolved=True)
