"""Command lines and environments of the services; nothing is started here."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from granian.cli import cli as granian_cli

from cli import services
from cli.environment import local_url
from cli.services import (
    BadQueues,
    api_argv,
    flower_argv,
    flower_environment,
    role_of,
    services_of,
    steps_of,
    worker_argv,
    worker_environment,
)
from cli.stack import StackError
from settings import Settings


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    return Settings(home=Path("/srv/yard"), data_roots=(tmp_path,), threads=3, train_workers=2)


def by_name(settings: Settings) -> dict[str, services.Service]:
    return {service.name: service for service in services_of(settings)}


def test_one_machine_runs_every_part_in_order(local: Settings):
    found = by_name(local)
    engines = {"predict-xgboost", "predict-torch"}
    assert set(found) == {"redis", "train1", "train2", *engines, "control", "flower", "api"}
    stages = {name: service.stage for name, service in found.items()}
    assert stages["redis"] < stages["train1"] == stages["control"] < stages["api"]


def test_redis_elsewhere_is_not_started_here(local: Settings):
    assert "redis" not in by_name(replace(local, redis_url="redis://elsewhere:6379/0"))


def test_flower_is_left_out_when_its_port_is_zero(local: Settings):
    assert "flower" not in by_name(replace(local, flower_port=0))


def test_login_of_flower_is_made_once_for_its_owner_alone(local: Settings, tmp_path: Path):
    here = replace(local, home=tmp_path / "home")
    services_of(here)
    assert not here.home.exists(), "naming the services writes nothing"
    login = flower_environment(here)["FLOWER_BASIC_AUTH"]
    user, _, password = login.partition(":")
    assert (user, len(password) >= 32) == ("modelyard", True)
    assert stat.S_IMODE(here.flower_login_file.stat().st_mode) == 0o600
    assert flower_environment(here)["FLOWER_BASIC_AUTH"] == login
    assert not any(password in word for word in flower_argv(here))


def test_login_of_flower_that_is_set_is_the_one(local: Settings):
    assert (
        flower_environment(replace(local, flower_login="ada:lovelace1815"))["FLOWER_BASIC_AUTH"] == "ada:lovelace1815"
    )


def test_file_without_a_login_of_flower_says_what_to_do(local: Settings, tmp_path: Path):
    (tmp_path / "flower-login").touch()
    with pytest.raises(StackError, match=r"flower-login holds no login.*remove it"):
        flower_environment(replace(local, home=tmp_path))


@pytest.mark.parametrize("queues", [["control"], ["predict.xgboost.cpu"], ["batch.torch.cpu", "control"]])
def test_only_workers_with_tasks_of_their_own_end_after_one(local: Settings, queues: list[str]):
    with pytest.raises(BadQueues, match="only workers of train and batch queues"):
        worker_environment(local, queues, 60.0)


def test_worker_of_one_task_is_told_how_long_to_wait_for_it(local: Settings):
    assert worker_environment(local, ["train.cpu"], 60.0)["MODELYARD_WORKER_ONCE"] == "60.0"
    # Said in any case, or a variable of the one who starts it would reach the worker.
    assert worker_environment(local, ["train.cpu"])["MODELYARD_WORKER_ONCE"] == ""


def test_redis_listens_on_a_socket_only_and_evicts_nothing(local: Settings):
    argv = by_name(local)["redis"].argv
    options = dict(zip(argv[1::2], argv[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--unixsocket"] == "/srv/yard/redis/redis.sock"
    assert options["--unixsocketperm"] == "700"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"


def test_too_long_home_is_refused_with_the_variable_that_cures_it(local: Settings):
    with pytest.raises(StackError, match="MODELYARD_HOME"):
        services_of(replace(local, home=Path("/srv/" + "long" * 30)))


def test_missing_redis_server_names_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(services.shutil, "which", lambda name: None)
    with pytest.raises(StackError, match="apt-get install redis-server"):
        services.redis_server()


def test_missing_library_names_the_extra_to_install(local: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda name: None if name == "flower" else True)
    with pytest.raises(StackError, match=r"flower.*modelyard\[local\].*MODELYARD_FLOWER_PORT=0"):
        services_of(local)


def test_api_command_uses_options_that_granian_knows(local: Settings):
    context = granian_cli.make_context("granian", api_argv(replace(local, api_workers=2))[3:])
    given = context.params
    assert given["app"] == "api.serve:app"
    assert given["interface"].value == "rsgi"
    assert (given["port"], given["workers"]) == (8080, 2)
    assert given["respawn_failed_workers"] is True
    # Streams must never fill the connections of a process.
    assert given["backpressure"] == local.event_streams + 1024


def test_worker_command_serves_its_queues_one_task_at_a_time():
    argv = worker_argv("train1", ["train.cpu"])
    assert argv[:7] == [sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "worker"]
    assert argv[argv.index("-Q") + 1] == "train.cpu"
    assert argv[argv.index("-n") + 1] == "train1@%h"
    assert argv[argv.index("--pool") + 1] == "prefork"
    assert argv[argv.index("-c") + 1] == "1"


def test_control_worker_has_threads():
    argv = worker_argv("control", ["control"])
    assert argv[argv.index("--pool") + 1] == "threads"
    assert argv[argv.index("-c") + 1] == "20"


def test_worker_environment_gives_settings_back_and_bounds_every_thread_pool(local: Settings):
    environment = worker_environment(local, ["train.cpu"])
    assert Settings.from_env(environment) == local
    assert environment["MODELYARD_WORKER_QUEUES"] == "train.cpu"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "3"


def test_control_work_uses_one_thread(local: Settings):
    assert worker_environment(local, ["control"])["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("queues", "role"),
    [
        (["train.cpu"], "train"),
        (["train.cpu", "train.gpu"], "train"),
        (["predict.xgboost.cpu"], "predict"),
        (["control"], "control"),
        (["control", "batch.xgboost.cpu"], "control"),
        (["batch.torch.gpu"], "control"),
    ],
)
def test_role_follows_from_the_queues(queues: list[str], role: str):
    assert role_of(queues) == role


@pytest.mark.parametrize("queues", [[], ["train.cpu", "control"], ["celery"]])
def test_queues_of_no_or_several_kinds_are_refused(queues: list[str]):
    with pytest.raises(BadQueues):
        role_of(queues)


def test_training_workers_get_the_time_to_hand_their_task_back(local: Settings):
    assert by_name(replace(local, shutdown_s=42.0))["train1"].stop_s > 42.0


def test_records_are_brought_up_to_date_after_redis_and_before_workers(local: Settings):
    (step,) = steps_of(local)
    found = by_name(local)
    assert found["redis"].stage < step.stage <= found["train1"].stage


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_local_url_can_be_opened_on_this_machine(local: Settings, host: str, url: str):
    assert local_url(replace(local, host=host)) == url


def test_name_of_this_machine_becomes_an_address(local: Settings):
    assert services.listen_address(replace(local, host="localhost")) == "127.0.0.1"
    assert services.listen_address(replace(local, host="::1")) == "::1"


def test_name_that_is_no_address_is_told(local: Settings, monkeypatch: pytest.MonkeyPatch):
    def unknown(*args: object, **options: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(services.socket, "getaddrinfo", unknown)
    with pytest.raises(StackError, match="MODELYARD_HOST=nowhere is no address: Name or service not known"):
        services.api_argv(replace(local, host="nowhere"))
