"""The cache of artifacts, between threads and real processes: whole, bounded, and without leftovers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from storage.errors import ArtifactNotFound, ChecksumMismatch, StorageFull
from storage.objects.base import Stored
from storage.objects.cache import Cache
from storage.objects.folder import FolderObjects
from storage.objects.manifest import Manifest, upload_folder

ROOT = Path(__file__).parents[2]
MB = 2**20


class CountingObjects(FolderObjects):
    """A store that remembers what was read from it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[str] = []
        self.full_once = False

    def _read(self, key: str, target: BinaryIO, limit_bytes: int | None) -> Stored:
        self.read.append(key)
        if self.full_once:
            self.full_once = False
            raise StorageFull("No space left on device")
        return super()._read(key, target, limit_bytes)


@pytest.fixture
def objects(tmp_path: Path) -> CountingObjects:
    return CountingObjects(tmp_path / "objects")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10 * MB)


def put(objects: FolderObjects, key: str, size: int = 1000) -> Stored:
    return objects.put_bytes(key, key.encode().ljust(size, b"."))


def fetched(cache: Cache, objects: FolderObjects, stored: Stored) -> bytes:
    with cache.fetch(objects, stored.key, stored.sha256, stored.size) as path:
        return path.read_bytes()


def entry(cache: Cache, stored: Stored) -> Path:
    return cache._folder / "entries" / stored.sha256


def uses(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache._folder / "uses").iterdir())


@contextlib.contextmanager
def process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the project's folder, ended with KILL."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def test_an_artifact_is_read_from_the_store_once(cache: Cache, objects: CountingObjects) -> None:
    stored = put(objects, "a/weights.bin")
    with cache.fetch(objects, stored.key, stored.sha256, stored.size) as path:
        assert path.name == "weights.bin"
        assert path.read_bytes() == objects.get_bytes("a/weights.bin")
        assert path.stat().st_mode & 0o777 == 0o444
    objects.read.clear()
    assert len(fetched(cache, objects, stored)) == 1000
    assert objects.read == []
    assert cache.used_bytes() == 1000
    assert uses(cache) == []


def test_a_folder_has_the_files_of_its_manifest(cache: Cache, objects: CountingObjects, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    for name in ["0100.model", "sub/a", "sub/same as a"]:
        (model / name).write_text("tree" if name == "0100.model" else "same")
    manifest = upload_folder(objects, "attempts/1", model)
    with cache.folder(objects, manifest) as folder:
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == {"0100.model", "sub/a", "sub/same as a"}
        assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in names)
        assert len(objects.read) == 2  # two files have the same content
    assert not folder.exists()


def test_one_download_serves_many_threads(cache: Cache, objects: CountingObjects) -> None:
    stored = put(objects, "a", MB)
    with ThreadPoolExecutor(8) as pool:
        contents = set(pool.map(lambda _: fetched(cache, objects, stored), range(16)))
    assert contents == {objects.get_bytes("a")}
    assert objects.read == ["a", "a"]  # the second is that of the line above


def test_the_longest_unused_go_first(tmp_path: Path, objects: CountingObjects) -> None:
    cache = Cache(tmp_path / "cache", 2500)
    a, b, c = (put(objects, key) for key in "abc")
    fetched(cache, objects, a)
    fetched(cache, objects, b)
    fetched(cache, objects, a)
    fetched(cache, objects, c)
    assert entry(cache, a).exists()
    assert not entry(cache, b).exists()
    assert entry(cache, c).exists()
    assert cache.used_bytes() == 2000


def test_what_is_in_use_stays_under_a_tiny_limit(tmp_path: Path, objects: CountingObjects) -> None:
    cache = Cache(tmp_path / "cache", 1)
    a, b = put(objects, "a"), put(objects, "b")
    with cache.fetch(objects, "a", a.sha256, a.size) as used:
        for _ in range(3):
            fetched(cache, objects, b)
        cache.trim()
        assert entry(cache, a).exists()
        assert not entry(cache, b).exists()
        assert used.read_bytes() == objects.get_bytes("a")
        objects.read.clear()
        fetched(cache, objects, a)
        assert objects.read == []
    assert cache.used_bytes() == 0


@pytest.mark.parametrize("damage", ["other content", "shorter", "empty", "gone"])
def test_a_damaged_entry_is_fetched_again(cache: Cache, objects: CountingObjects, damage: str) -> None:
    stored = put(objects, "a")
    good = fetched(cache, objects, stored)
    path = entry(cache, stored)
    if damage == "gone":
        path.unlink()
    else:
        path.chmod(0o644)
        path.write_bytes({"other content": b"x" * 1000, "shorter": good[:-1], "empty": b""}[damage])
    objects.read.clear()
    assert fetched(cache, objects, stored) == good
    assert objects.read == ["a"]
    assert path.read_bytes() == good


def test_an_entry_that_was_only_touched_is_verified_and_kept(cache: Cache, objects: CountingObjects) -> None:
    stored = put(objects, "a")
    fetched(cache, objects, stored)
    os.utime(entry(cache, stored))
    objects.read.clear()
    fetched(cache, objects, stored)
    assert objects.read == []


def test_what_the_store_lacks_or_has_damaged_is_an_error(cache: Cache, objects: CountingObjects) -> None:
    stored = put(objects, "a")
    (objects.root / "a").write_bytes(b"x" * 1000)
    with pytest.raises(ChecksumMismatch):
        fetched(cache, objects, stored)
    with pytest.raises(ChecksumMismatch, match="999"):
        fetched(cache, objects, Stored("b", 999, put(objects, "b").sha256))
    with pytest.raises(ArtifactNotFound):
        fetched(cache, objects, Stored("nothing", 1000, stored.sha256))
    with pytest.raises(ChecksumMismatch, match="no SHA-256"):
        fetched(cache, objects, Stored("b", 1000, "../../b"))
    assert uses(cache) == []
    assert cache.used_bytes() == 0


def test_a_full_disk_costs_the_unused_entries_first(cache: Cache, objects: CountingObjects) -> None:
    a, b = put(objects, "a"), put(objects, "b")
    fetched(cache, objects, a)
    objects.full_once = True
    assert len(fetched(cache, objects, b)) == 1000
    assert not entry(cache, a).exists()
    assert entry(cache, b).exists()


def test_without_hard_links_files_are_copied(
    cache: Cache, objects: CountingObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(objects, "a")

    def no_links(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    good = fetched(cache, objects, stored)
    objects.read.clear()
    assert fetched(cache, objects, stored) == good
    assert objects.read == []


def test_the_error_of_the_user_is_not_hidden(cache: Cache, objects: CountingObjects) -> None:
    stored = put(objects, "a")

    def fail() -> None:
        with cache.fetch(objects, stored.key, stored.sha256, stored.size):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert uses(cache) == []


# Several processes

READERS = """
import random, sys, hashlib
from pathlib import Path
from storage.objects import connect
from storage.objects.cache import Cache
from storage.objects.manifest import read_manifest
url, folder, seed = sys.argv[1:]
objects, choose = connect(url), random.Random(int(seed))
cache = Cache(Path(folder), 250_000)
manifests = [read_manifest(objects, f"model/{number}") for number in range(4)]
for _ in range(60):
    manifest = choose.choice(manifests)
    with cache.folder(objects, manifest) as used:
        for file in choose.sample(manifest.files, len(manifest.files)):
            content = (used / file.name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.sha256, "a reader saw a wrong file"
print("done", flush=True)
"""


@pytest.fixture
def models(objects: CountingObjects, tmp_path: Path) -> list[Manifest]:
    manifests = []
    for number in range(4):
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        for part in range(3):
            (folder / f"{part}.bin").write_bytes(bytes([number, part]) * 20_000)
        manifests.append(upload_folder(objects, f"model/{number}", folder))
    return manifests


def test_readers_of_several_processes_see_whole_files_under_a_tiny_limit(
    objects: CountingObjects, models: list[Manifest], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        arguments = [f"file://{objects.root}", tmp_path / "cache"]
        running = [stack.enter_context(process(READERS, *arguments, seed)) for seed in range(4)]
        assert [said(each) for each in running] == ["done"] * 4
        assert [each.wait(10) for each in running] == [0] * 4
    cache = Cache(tmp_path / "cache", 250_000)
    assert uses(cache) == []
    assert 0 < cache.used_bytes() <= 250_000
    for path in (tmp_path / "cache" / "entries").iterdir():
        assert path.stat().st_nlink == 1


HALF_WAY = """
import sys, time
from pathlib import Path
from storage.objects.cache import Cache
from storage.objects.folder import FolderObjects
root, folder, key, sha256, size = sys.argv[1:]
class Stuck(FolderObjects):
    def _read(self, key, target, limit_bytes):
        target.write(b"half")
        target.flush()
        print("half", flush=True)
        time.sleep(600)
with Cache(Path(folder), 10**6).fetch(Stuck(Path(root)), key, sha256, int(size)):
    pass
"""


def test_a_killed_fetcher_leaves_neither_lock_nor_file(objects: CountingObjects, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10 * MB, wait_s=60)
    stored = put(objects, "a")
    arguments = [objects.root, tmp_path / "cache", stored.key, stored.sha256, stored.size]
    with process(HALF_WAY, *arguments) as fetcher:
        assert said(fetcher) == "half"
        fetcher.kill()
        fetcher.wait()
    start = time.monotonic()
    assert len(fetched(cache, objects, stored)) == 1000
    assert time.monotonic() - start < 30
    assert uses(cache) == []


def test_a_stopped_fetcher_holds_nobody_up_for_long(objects: CountingObjects, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10 * MB, wait_s=0.2)
    stored = put(objects, "a")
    arguments = [objects.root, tmp_path / "cache", stored.key, stored.sha256, stored.size]
    with process(HALF_WAY, *arguments) as fetcher:
        assert said(fetcher) == "half"
        fetcher.send_signal(signal.SIGSTOP)
        assert len(fetched(cache, objects, stored)) == 1000
        assert len(uses(cache)) == 2  # the stopped one is alive: its folder and lock stay
        fetcher.kill()
        fetcher.wait()
    cache.trim()
    assert uses(cache) == []


HOLDS = """
import sys, time
from pathlib import Path
from storage.objects import connect
from storage.objects.cache import Cache
url, folder, key, sha256, size = sys.argv[1:]
with Cache(Path(folder), 10**6).fetch(connect(url), key, sha256, int(size)):
    print("holds", flush=True)
    time.sleep(600)
"""


def test_what_another_process_uses_is_kept_until_it_dies(objects: CountingObjects, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 0)
    stored = put(objects, "a")
    arguments = [f"file://{objects.root}", tmp_path / "cache", stored.key, stored.sha256, stored.size]
    with process(HOLDS, *arguments) as user:
        assert said(user) == "holds"
        cache.trim()
        assert entry(cache, stored).exists()
        user.kill()
        user.wait()
    cache.trim()
    assert not entry(cache, stored).exists()
    assert uses(cache) == []
