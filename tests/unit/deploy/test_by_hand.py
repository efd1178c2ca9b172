"""The units, the proxy and the page of a fleet that is started by hand fit the program and one another."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from cli.services import role_of, stopping_s
from ml.options.catalog import engines
from settings import Settings
from tests.hand_fleet import PAGE, block, commands
from tests.unit.deploy.files import OF_S3, ROOT, VARIABLES, check_command, queues_of

UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())
NAMES = ("modelyard-api.service", "modelyard-flower.service", "modelyard-worker@.service")


def sections(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The assignments of a unit by section; raises ValueError at a line that systemd would not take."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            found[line[1:-1]] = []
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals or not re.fullmatch("[A-Z][A-Za-z]+", name) or not value:
                raise ValueError(f"{path.name}: {line}")
            found[list(found)[-1]].append((name, value))
    return found


def service(path: Path) -> dict[str, str]:
    """The assignments of a unit's service that come once."""
    return dict(sections(path)["Service"])


def test_each_part_has_a_unit():
    assert tuple(path.name for path in UNITS) == NAMES
    started = re.findall(r"modelyard-[a-z]+@?", block("systemd", "sh"))
    assert {f"{name}.service" for name in started} == set(NAMES)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_unit_runs_a_command_that_exists_as_a_user_without_rights(unit: Path):
    assert list(sections(unit)) == ["Unit", "Service", "Install"]
    told = service(unit)
    assert told["User"] == told["Group"] == told["StateDirectory"] == "modelyard"
    assert told["StateDirectoryMode"] == "0700"
    assert told["NoNewPrivileges"] == "true"
    assert told["Restart"] == "always"
    program, *words = shlex.split(told["ExecStart"].replace("${QUEUES}", "train.cpu").replace("%i", "train"))
    assert program == "/opt/modelyard/bin/modelyard"
    assert "python3.11 -m venv /opt/modelyard\n" in PAGE
    check_command(["modelyard", *words])


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_environment_of_a_unit_is_that_of_the_page(unit: Path):
    files = [value.removeprefix("-") for name, value in sections(unit)["Service"] if name == "EnvironmentFile"]
    assert files[0] == "/etc/modelyard/fleet.env"
    for file in files:
        assert file.replace("%i", "NAME") in PAGE, file
    home = dict(line.split("=", 1) for line in block("Every machine", "ini").splitlines())["MODELYARD_HOME"]
    assert home == f"/var/lib/{service(unit)['StateDirectory']}"


def test_worker_has_the_time_to_save_a_checkpoint():
    told = service(next(path for path in UNITS if "worker@" in path.name))
    assert int(told["TimeoutStopSec"]) > stopping_s(Settings())
    assert told["KillMode"] == "mixed", "its children are its own to stop"


def test_api_has_the_time_that_operations_tells():
    told = service(next(path for path in UNITS if "api" in path.name))
    page = " ".join((ROOT / "docs/operations.md").read_text().split())
    least = int(re.search(r"must leave it (\d+) s", page)[1])  # type: ignore[index]
    assert int(told["TimeoutStopSec"]) >= least
    assert f"the unit of `deploy/systemd` leave it {told['TimeoutStopSec']} s" in page


def test_variables_of_the_page_are_those_of_the_composed_fleet():
    page = dict(line.split("=", 1) for line in block("Every machine", "ini").splitlines())
    assert set(page) <= VARIABLES | OF_S3
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-environment"]
    assert set(page) == {*composed, "MODELYARD_HOME"} - {"MODELYARD_DATA_ROOTS"}
    found = Settings.from_env(page)
    assert found.objects_url.removeprefix("s3://").split("/")[0] in block("S3", "sh").split()
    assert found.broker_url == page["MODELYARD_REDIS_URL"]


def test_workers_of_the_page_serve_every_queue_of_cpus():
    served: set[str] = set()
    names = []
    for line in (*commands("Control"), *commands("Workers")):
        told = check_command(shlex.split(line))
        queues = str(told["queues"]).split(",")
        role_of(queues)
        served |= set(queues)
        names.append(told["name"])
    assert served == queues_of("cpu") | {"control"}
    assert len(set(names)) == len(names) == 2 + len(engines())


def test_redis_of_the_page_evicts_nothing_and_keeps_nothing():
    lines = block("Redis", "").splitlines()
    assert {"maxmemory-policy noeviction", 'save ""', "appendonly no"} <= set(lines)
    [user] = [line.split() for line in lines if line.startswith("user ")]
    assert user[1:3] == ["modelyard", "on"]
    assert "nopass" not in user
    assert f"redis://{user[1]}:{user[3].removeprefix('>')}@" in block("Every machine", "ini")


def test_proxy_hands_everything_through_to_the_api():
    text = re.sub(r"#.*", "", (ROOT / "deploy" / "nginx" / "modelyard.conf").read_text())
    assert text.count("{") == text.count("}")
    assert all(re.fullmatch(r"\s*(?:[a-z_]+ .*[;{]|\})\s*|\s*", line) for line in text.splitlines())
    told = dict(re.findall(r"([a-z_]+) +(.+?);", text))
    assert told["proxy_pass"] == f"http://127.0.0.1:{Settings().port}"
    assert told["proxy_buffering"] == told["proxy_request_buffering"] == "off"
    assert told["client_max_body_size"] == "0"
