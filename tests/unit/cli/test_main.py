"""The command line, on a real database in a temporary folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.access import OpenDoor, check_bind
from cli import main as command
from settings import Settings
from storage.records import Kind, NewVersion, Records, State
from tests.unit.cli.conftest import Run


def test_created_key_opens_its_account_and_is_shown_once(run: Run, records: Records):
    created = run("keys", "create", "--account", "ada", "--label", "laptop")
    assert created.exit_code == 0, created.output
    secret = created.stdout.strip()
    account = records.keys.account_of(secret)
    assert account is not None
    assert account.name == "ada"
    listed = run("keys", "list").output
    assert "ada" in listed
    assert "laptop" in listed
    assert secret not in listed


def test_revoked_key_opens_nothing_and_is_listed_so(run: Run, records: Records):
    secret = run("keys", "create").stdout.strip()
    assert run("keys", "revoke", "1").exit_code == 0
    assert records.keys.account_of(secret) is None
    assert re.search(r"\d{4}-\d\d-\d\d.*\d{4}-\d\d-\d\d", run("keys", "list").output)


def test_pinned_version_is_listed_so_and_can_be_let_go(run: Run, records: Records):
    records.upgrade()
    account = records.accounts.ensure("local")
    repository = records.repositories.ensure(account.id, f"objects:{account.id}/iris")
    task, _ = records.tasks.add(account.id, Kind.TRAIN, "train.cpu", {}, repository_id=repository.id)
    attempt = records.tasks.claim(task.id, "worker", 60)
    assert attempt is not None
    records.tasks.end(attempt, State.FINISHED, phases={}, version=NewVersion("p", {}, []))
    assert run("versions", "pin", "iris", "1").output == "version 1 of iris is pinned\n"
    assert records.versions.newest(repository.id).pinned_at is not None
    assert re.search(r"1 +1 +\d{4}-\S+ \S+ UTC +0 +\d{4}-", run("versions", "list", "iris").output)
    assert run("versions", "unpin", "iris", "1").exit_code == 0
    assert records.versions.newest(repository.id).pinned_at is None


@pytest.mark.parametrize("words", [("pin", "wine", "1"), ("list", "wine"), ("pin", "wine", "1", "--account", "eve")])
def test_versions_of_an_unknown_repository_are_refused(run: Run, records: Records, words: tuple[str, ...]):
    records.upgrade()
    result = run("versions", *words)
    assert result.exit_code == 1
    assert "has no repository 'wine'" in result.output


def test_revoking_a_key_that_is_not_there_says_how_to_find_one(run: Run):
    result = run("keys", "revoke", "7")
    assert result.exit_code == 1
    assert "keys list" in result.output


def test_empty_list_of_keys_says_how_to_create_one(run: Run):
    assert "keys create" in run("keys", "list").output


def test_database_can_be_upgraded_again_and_again(run: Run, records: Records):
    assert run("db", "upgrade").exit_code == 0
    assert run("db", "upgrade").exit_code == 0
    records.check()


def test_wrong_setting_names_its_variable_without_a_traceback(run: Run):
    result = run("db", "upgrade", MODELYARD_PORT="eighty")
    assert result.exit_code == 1
    assert "MODELYARD_PORT='eighty'" in result.output
    assert isinstance(result.exception, SystemExit)


def test_database_that_cannot_be_opened_is_said_without_a_traceback(run: Run):
    result = run("keys", "list", MODELYARD_DATABASE_URL="nonsense")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


def test_worker_of_mixed_queues_is_refused(run: Run):
    result = run("worker", "--queues", "train.cpu,control")
    assert result.exit_code == 2
    assert "one kind" in result.output


def test_worker_becomes_celery_with_its_queues(run: Run, monkeypatch: pytest.MonkeyPatch):
    became = []
    monkeypatch.setattr(command, "_become", lambda argv, environment: became.append((argv, environment)))
    assert run("worker", "--queues", "predict.xgboost.cpu").exit_code == 0
    ((argv, environment),) = became
    assert argv[argv.index("-n") + 1] == "predict-xgboost-cpu@%h"
    assert environment["MODELYARD_WORKER_QUEUES"] == "predict.xgboost.cpu"


@pytest.mark.parametrize("words", [("keys", "create"), ("db", "upgrade"), ("api",), ("worker", "--queues", "control")])
def test_home_is_made_for_its_owner_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    monkeypatch.setattr(command, "_become", lambda argv, environment: None)
    home, database = tmp_path / "home", ""
    if words[0] in ("api", "worker"):  # whose records lie elsewhere, as those of a fleet do
        run("db", "upgrade")
        database = f"sqlite:///{tmp_path / 'records.db'}"
    result = run(*words, MODELYARD_HOME=str(home), MODELYARD_DATABASE_URL=database)
    assert result.exit_code == 0, result.output
    assert home.stat().st_mode & 0o777 == 0o700


def test_home_that_cannot_be_made_is_said_before_a_part_starts(run: Run, tmp_path: Path):
    run("db", "upgrade")
    database = f"sqlite:///{tmp_path / 'records.db'}"
    result = run("worker", "--queues", "control", MODELYARD_HOME="/proc/none", MODELYARD_DATABASE_URL=database)
    assert result.exit_code == 1
    assert "MODELYARD_HOME=/proc/none cannot be written" in result.output


def test_api_is_not_opened_to_others_without_a_key(run: Run, monkeypatch: pytest.MonkeyPatch):
    became = []
    monkeypatch.setattr(command, "_become", lambda argv, environment: became.append(argv))
    run("db", "upgrade")
    refused = run("api", MODELYARD_HOST="0.0.0.0")
    assert refused.exit_code == 1
    assert "modelyard keys create" in refused.output
    assert became == []
    run("keys", "create")
    assert run("api", MODELYARD_HOST="0.0.0.0").exit_code == 0
    assert len(became) == 1


def test_api_without_tables_says_how_to_make_them(run: Run):
    result = run("api")
    assert result.exit_code == 1
    assert "modelyard db upgrade" in result.output


def test_revoking_the_last_key_closes_the_door_again(tmp_path: Path, records: Records):
    records.upgrade()
    settings = Settings(home=tmp_path, host="0.0.0.0")
    key, _ = records.keys.create("ada")
    check_bind(settings, records)
    records.keys.revoke(key.id)
    with pytest.raises(OpenDoor):
        check_bind(settings, records)


def test_help_brings_nothing_heavy():
    heavy = ["sqlalchemy", "celery", "flask", "xgboost", "redis", "alembic"]
    imports = "import sys, cli.main, cli.stack, cli.services"
    code = f"{imports}; sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stderr.strip() == "[]"
