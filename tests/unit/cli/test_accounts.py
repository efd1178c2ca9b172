"""Roles, quotas and the audit log on the command line of the server."""

from __future__ import annotations

import json
import re

import pytest

from storage.records import NewNote, Quotas, Records, Role
from tests.unit.cli.conftest import Run


def test_key_is_made_with_a_role_and_listed_with_it(run: Run, records: Records):
    made = run("keys", "create", "--account", "ada", "--role", "predict")
    assert "role predict" in made.stderr
    caller = records.keys.account_of(made.stdout.strip())
    assert caller is not None
    assert caller.role is Role.PREDICT
    assert re.search(r"^1 +ada +predict ", run("keys", "list").stdout, re.MULTILINE)
    refused = run("keys", "create", "--role", "root")
    assert refused.exit_code == 2
    assert "'read', 'predict', 'train', 'admin'" in refused.output


def test_quotas_are_set_shown_and_left_to_the_default_again(run: Run, records: Records):
    assert "no accounts" in run("quotas").stdout
    run("keys", "create", "--account", "ada")
    told = run("quotas", "set", "ada", "--trainings", "2", "--stored-bytes", "5G", "--queued-tasks", "0")
    assert told.stdout == "ada: trainings: 2, queued tasks: no limit, stored bytes: 5 GiB, " + (
        "requests per minute: no limit\n"
    )
    ada = records.accounts.ensure("ada")
    assert records.quotas.of(ada.id) == Quotas(2, 0, 5 * 2**30, 0)
    shown = run("quotas", MODELYARD_QUOTA_REQUESTS_PER_MINUTE="90").stdout
    assert re.search(r"^ada +0 of 2 +0, no limit +0 B of 5 GiB +90$", shown, re.MULTILINE), shown
    exact = json.loads(run("quotas", "--json").stdout)
    assert exact == {
        "account": "ada",
        "quotas": {
            "trainings": {"limit": 2, "used": 0},
            "queued_tasks": {"limit": None, "used": 0},
            "stored_bytes": {"limit": 5368709120, "used": 0},
            "requests_per_minute": {"limit": None, "used": None},
        },
    }
    assert "--json is for the list" in run("quotas", "--json", "set", "ada", "--trainings", "1").output
    run("quotas", "set", "ada", "--trainings", "default")
    assert records.quotas.of(ada.id).trainings == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ada",), "name a quota to change"),
        (("ada", "--trainings", "-1"), "'-1' is no limit"),
        (("ada", "--trainings", "many"), "'many' is no limit"),
        (("ada", "--stored-bytes", "99999999T"), "is no limit"),
        (("nobody", "--trainings", "1"), "there is no account 'nobody'"),
    ],
)
def test_wrong_quota_is_told(run: Run, words: tuple[str, ...], said: str):
    run("keys", "create", "--account", "ada")
    answer = run("quotas", "set", *words)
    assert answer.exit_code != 0
    assert said in answer.output


def test_audit_log_is_printed_filtered_and_never_steers_a_terminal(run: Run, records: Records):
    secret = run("keys", "create", "--account", "ada").stdout.strip()
    run("quotas", "set", "ada", "--trainings", "1")
    records.audit.add(NewNote("refused.key_needed", "route", "\x1b[31m", outcome="refused", count=3, address="::1"))
    shown = run("audit").stdout
    assert secret not in shown
    assert "\x1b" not in shown
    found = [re.search(r"(\S+\.\S+)  ", line) for line in shown.splitlines()[1:]]
    assert [each and each[1] for each in found] == ["refused.key_needed", "quota.set", "key.create"]
    filtered = run("audit", "--account", "ada", "--action", "key.", "--since", "2026-01-01", "--json").stdout
    [note] = [json.loads(line) for line in filtered.splitlines()]
    assert (note["action"], note["name"], note["account"], note["role"]) == (
        "key.create",
        "1 (train)",
        "ada",
        "operator",
    )
    assert len(run("audit", "--limit", "2", "--json").stdout.splitlines()) == 2
    assert run("audit", "--since", "soon").exit_code == 2
    assert run("audit", "--account", "nobody").exit_code == 1
