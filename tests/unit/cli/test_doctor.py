"""The doctor: that no check can hold up the others, and what is said of each machine."""

from __future__ import annotations

import collections
import json
import resource
import threading
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main as command
from cli import services
from cli.doctor import libraries, machine, stores
from cli.doctor.findings import Check, Finding, Status, ok, run, warn
from settings import Settings


def test_check_that_hangs_or_breaks_fails_alone_and_the_others_are_told_in_order():
    never = threading.Event()

    def hangs():
        never.wait()
        yield ok("never")

    def breaks():
        raise RuntimeError("of\nitself")

    checks = [
        Check("hangs", hangs, limit_s=0.05),
        Check("breaks", breaks),
        Check("fine", lambda: [ok("well"), warn("less so", "do this")]),
    ]
    found = list(run(checks))
    never.set()
    assert [(each.check, each.status) for each in found] == [
        ("hangs", Status.FAIL),
        ("breaks", Status.FAIL),
        ("fine", Status.OK),
        ("fine", Status.WARN),
    ]
    assert found[0].text == "no answer within 0.05 s"
    assert found[1].text == "RuntimeError: of itself"
    assert all(each.cure for each in found if each.status is not Status.OK)


def test_setting_that_cannot_be_used_is_the_finding(tmp_path: Path):
    environment = {"MODELYARD_HOME": str(tmp_path), "MODELYARD_PORT": "eighty"}
    result = CliRunner().invoke(command.main, ["doctor", "--json"], env=environment)
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["healthy"] is False
    assert [each["check"] for each in answer["findings"]] == ["settings"]
    plain = CliRunner().invoke(command.main, ["doctor"], env=environment)
    assert plain.stdout.startswith("fail  settings: MODELYARD_PORT='eighty'")
    assert plain.stdout.endswith("0 ok, 0 to look at, 1 wrong\n")


def test_home_that_cannot_be_written_fails():
    # /proc cannot be written, not even by root.
    found = list(machine.home(Settings(home=Path("/proc"), redis_url="redis://h")))
    assert found[0][0] is Status.FAIL
    assert "MODELYARD_HOME" in found[0][2]
    missing = list(machine.home(Settings(home=Path("/proc/none"), redis_url="redis://h")))
    assert missing[0][0] is not Status.OK


def test_home_that_anybody_gets_into_is_told_and_so_is_one_too_deep_for_a_socket(tmp_path: Path):
    for mode in (0o777, 0o755, 0o711):
        tmp_path.chmod(mode)
        assert any("chmod o= " in cure for _, _, cure in machine.home(Settings(home=tmp_path)))
    tmp_path.chmod(0o750)
    assert not any("chmod" in cure for _, _, cure in machine.home(Settings(home=tmp_path)))
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    assert any(status is Status.FAIL and "socket" in text for status, text, _ in machine.home(Settings(home=deep)))


@pytest.mark.parametrize(("setting", "status"), [("where_possible", Status.WARN), ("required", Status.FAIL)])
def test_kernel_that_keeps_processes_in_the_network_is_told(sealed: None, setting: str, status: Status):
    [(found, _, cure)] = machine.isolation(Settings(isolation=setting))
    assert found is status
    assert "user namespaces" in cure
    assert ("MODELYARD_ISOLATION" in cure) == (status is Status.FAIL)


@pytest.mark.parametrize("setting", ["where_possible", "required"])
def test_kernel_that_lets_processes_leave_the_network_is_fine(monkeypatch: pytest.MonkeyPatch, setting: str):
    monkeypatch.setattr(machine, "is_possible", lambda: True)
    assert [found for found, _, _ in machine.isolation(Settings(isolation=setting))] == [Status.OK]


@pytest.mark.parametrize(("free", "status"), [(2**28, Status.FAIL), (2**31, Status.WARN), (2**36, Status.OK)])
def test_space_on_the_disk_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: Status):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage(2**40, 0, free))
    assert [found for found, text, _ in machine.home(Settings(home=tmp_path)) if "of disk are free" in text] == [status]


@pytest.mark.parametrize(
    ("soft", "status"),
    [(256, Status.FAIL), (1024, Status.WARN), (65536, Status.OK), (resource.RLIM_INFINITY, Status.OK)],
)
def test_limit_of_open_files_is_judged(monkeypatch: pytest.MonkeyPatch, soft: int, status: Status):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (soft, soft))
    ((found, _, cure),) = machine.open_files()
    assert found is status
    assert ("ulimit -n" in cure) == (status is not Status.OK)


@pytest.mark.parametrize(("free", "status"), [(2**27, Status.FAIL), (2**29, Status.WARN), (2**33, Status.OK)])
def test_memory_of_a_control_group_counts(monkeypatch: pytest.MonkeyPatch, free: int, status: Status):
    monkeypatch.setattr(machine, "_machine_memory", lambda: 2**36)
    monkeypatch.setattr(machine, "_group_memory", lambda: [free])
    ((found, _, _),) = machine.memory()
    assert found is status


def test_data_root_that_is_no_folder_fails_unless_it_is_the_default_one(tmp_path: Path):
    ((status, _, _),) = machine.data_roots(Settings(home=tmp_path))
    assert status is Status.WARN
    fleet = Settings(home=tmp_path, redis_url="redis://h")
    assert [found for found, _, _ in machine.data_roots(fleet)] == [Status.OK], "its machines need not share a folder"
    ((status, _, cure),) = machine.data_roots(Settings(home=tmp_path, data_roots=(tmp_path / "none",)))
    assert status is Status.FAIL
    assert "MODELYARD_DATA_ROOTS" in cure


@pytest.mark.parametrize(
    ("ahead_s", "unsure_s", "status"),
    [(0.02, 0.01, Status.OK), (-2.0, 0.1, Status.WARN), (30.0, 0.1, Status.FAIL), (3.0, 2.9, Status.OK)],
)
def test_clocks_that_are_apart_are_told_but_not_what_the_way_there_takes(
    ahead_s: float, unsure_s: float, status: Status
):
    ((found, text, _),) = stores._skew("Redis", lambda: (ahead_s, unsure_s))
    assert found is status
    assert f"{abs(ahead_s):.2f} s apart" in text


HEALTHY = {
    "redis_version": "7.2.1",
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "used_memory": 10,
    "role": "master",
    "rdb_last_bgsave_status": "ok",
    "aof_enabled": 0,
}


@pytest.mark.parametrize(
    ("facts", "status", "told"),
    [
        ({}, Status.OK, "7.2.1"),
        ({"redis_version": "5.0.14"}, Status.FAIL, "5.0.14"),
        ({"maxmemory_policy": "allkeys-lru"}, Status.FAIL, "allkeys-lru"),
        ({"maxmemory": 100, "used_memory": 95}, Status.WARN, "95%"),
        ({"role": "slave"}, Status.FAIL, "takes no writes"),
        ({"rdb_last_bgsave_status": "err"}, Status.FAIL, "cannot save"),
        ({"aof_enabled": 1}, Status.OK, "appendonly"),
    ],
)
def test_what_redis_tells_of_itself_is_judged(facts: dict[str, object], status: Status, told: str):
    of_it = {**HEALTHY, **facts}
    found = [*stores._redis_version("here", of_it), *stores._redis_keeps(of_it), *stores._redis_writes(of_it)]
    assert any(each is status and told in text for each, text, _ in found)
    assert (status is Status.FAIL) == any(each is Status.FAIL for each, _, _ in found)


def test_redis_beyond_this_machine_without_a_password_is_told():
    open_to_all = Settings(redis_url="redis://queues.example:6379/0")
    assert [status for status, _, _ in stores._redis_door(open_to_all, "it")] == [Status.WARN]
    for url in ("redis://:secret@queues.example:6379/0", "redis://127.0.0.1:6379/0", "unix:///run/redis.sock"):
        assert list(stores._redis_door(Settings(redis_url=url), "it")) == []


def test_library_that_is_missing_or_of_another_version_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch):
    wanted = ['no-such-package>=1; extra == "worker"', 'click>=99; extra == "api"', 'click>=8; extra == "s3"']
    monkeypatch.setattr(libraries.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(libraries, "_import_problem", lambda modules: None)
    ((status, text, cure),) = libraries.extra("worker")
    assert (status, text) == (Status.FAIL, "no-such-package is not installed")
    assert "modelyard[worker]" in cure
    ((status, text, _),) = libraries.extra("api")
    assert status is Status.FAIL
    assert "is none of >=99" in text
    monkeypatch.setattr(libraries, "_tested", lambda: {"click": "8.0.1"})
    assert [status for status, _, _ in libraries.extra("s3")] == [Status.WARN, Status.OK]


def test_library_that_cannot_be_imported_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_one.py").write_text("raise ImportError('libmissing.so: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert libraries._import_problem(["broken_one"]) == "ImportError: libmissing.so: cannot open"
    assert libraries._import_problem(["json"]) is None


def test_import_that_does_not_end_in_time_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(libraries.metadata, "requires", lambda name: ["click>=8"])
    monkeypatch.setattr(libraries, "IMPORT_S", 0.001)
    ((status, text, _),) = libraries.extra("")
    assert status is Status.WARN
    assert "not imported within 0.001 s" in text


def test_installation_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch):
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(libraries.metadata, "requires", requires)
    ((status, _, cure),) = libraries.extra("")
    assert status is Status.WARN
    assert "pip install" in cure


def test_missing_program_of_the_embedded_redis_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    assert [status for status, _, _ in libraries.embedded_redis()] == [Status.OK]
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(services.shutil, "which", lambda name: None)
    ((status, text, cure),) = libraries.embedded_redis()
    assert (status, text) == (Status.FAIL, "no Redis server found")
    assert "redis-embedded" in cure


def test_drivers_that_the_settings_need_are_looked_at():
    plain = Settings(flower_port=0)
    fleet = Settings(database_url="postgresql+psycopg://h/d", objects_url="s3://bucket", flower_port=0)
    assert {"s3", "postgres"} & set(libraries.extras_of("api", plain)) == set()
    assert {"api", "s3", "postgres"} <= set(libraries.extras_of("api", fleet))
    assert libraries.extras_of("client", fleet) == [""]


@pytest.mark.parametrize(
    ("devices", "printed", "status"),
    [([], "", Status.OK), (["/dev/nvidia0"], '["H200"]', Status.OK), (["/dev/nvidia0"], "[]", Status.WARN)],
)
def test_gpu_that_is_there_and_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, devices: list[str], printed: str, status: Status
):
    monkeypatch.setattr(libraries, "gpu_devices", lambda: devices)
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: object())
    ended = libraries.subprocess.CompletedProcess([], 0, stdout=printed, stderr="")
    monkeypatch.setattr(libraries.subprocess, "run", lambda *words, **options: ended)
    ((found, _, _),) = libraries.gpu()
    assert found is status


def test_finding_is_one_line_whatever_a_driver_writes():
    (found,) = run([Check("a", lambda: [warn("first\nsecond\x1b[0m", "do\nthis")])])
    assert found == Finding("a", Status.WARN, r"first second\x1b[0m", "do this")
