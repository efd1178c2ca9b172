"""The images and the composed fleet fit the program: commands, settings, folders, times."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import settings
from cli.main import main
from cli.services import stopping_s
from ml.options.catalog import engines
from settings import Settings

ROOT = Path(settings.__file__).parent
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PREDICTING = tuple(f"predict-{engine}" for engine in engines())
OURS = ("api", "train", *PREDICTING, "control", "flower", "migrate")
VARIABLES = {each.metadata["variable"] for each in fields(Settings)}


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def check_command(words: list[str]) -> None:
    """Raises click.UsageError unless the command line has this command with these options."""
    assert words[0] == "modelyard"
    command: click.Command = main
    context = click.Context(main)
    rest = words[1:]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None
        assert found is not None
        command = found
    command.make_context(words[1], rest)


def seconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text.removesuffix("s"))


def test_image_has_both_targets_and_no_target_runs_as_root():
    froms = [rest for word, rest in instructions() if word == "FROM"]
    assert froms[1:] == ["base AS api", "base AS worker"]
    assert [rest for word, rest in instructions() if word == "USER"] == ["modelyard", "modelyard"]


def test_image_installs_extras_that_exist_and_the_api_no_library_that_trains():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installs = re.findall(r"pip install -c constraints\.txt '\.\[(.*?)\]'", DOCKERFILE)
    assert len(installs) == 2
    chosen = [set(names.split(",")) for names in installs]
    assert chosen[0] | chosen[1] <= set(extras)
    assert not chosen[0] & {"worker", "xgboost", "torch", "tensorflow", "local"}
    assert {"xgboost", "worker"} <= chosen[1]


def test_image_copies_files_that_exist_and_that_the_build_context_lets_through():
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in instructions():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source.split('/')[0]}" in let_through, source


def test_image_commands_and_health_checks_exist():
    commands = [json.loads(rest) for word, rest in instructions() if word == "CMD"]
    checks = [json.loads(rest[rest.index("[") :]) for word, rest in instructions() if word == "HEALTHCHECK"]
    assert [words[:2] for words in commands] == [["modelyard", "api"], ["modelyard", "worker"]]
    for words in [*commands, *(words for words in checks if words[0] == "modelyard")]:
        check_command(words)


def test_every_setting_in_the_image_is_known():
    assert set(re.findall(r"MODELYARD_\w+", DOCKERFILE)) <= VARIABLES


def test_fleet_has_every_part(composed: dict[str, Any]):
    assert set(composed["services"]) == {*OURS, "postgres", "redis", "objects"}


@pytest.mark.parametrize("name", OURS)
def test_composed_command_and_health_check_exist(composed: dict[str, Any], name: str):
    service = composed["services"][name]
    check_command(service["command"])
    test = service.get("healthcheck", {}).get("test", [])
    if test[1:2] == ["modelyard"]:
        check_command(test[1:])
        # The name that the check looks for is the name that the worker gives itself.
        assert test[-1] == service["command"][service["command"].index("--name") + 1] == name


@pytest.mark.parametrize("name", OURS)
def test_composed_settings_are_known_and_can_be_read(composed: dict[str, Any], name: str):
    environment = composed["services"][name]["environment"]
    given = {variable: value for variable, value in environment.items() if variable.startswith("MODELYARD_")}
    assert set(given) <= VARIABLES
    Settings.from_env(given)


@pytest.mark.parametrize("name", OURS)
def test_composed_image_is_built_from_a_target_that_exists(composed: dict[str, Any], name: str):
    build = composed["services"][name]["build"]
    assert (ROOT / build["dockerfile"]).exists()
    assert f" AS {build['target']}" in DOCKERFILE
    assert composed["services"][name]["image"] == f"modelyard-{build['target']}:0.1.0"


def test_every_part_but_the_migration_tells_its_health(composed: dict[str, Any]):
    without = {name for name, service in composed["services"].items() if "healthcheck" not in service}
    assert without == {"migrate"}


def test_worker_gets_longer_to_stop_than_it_may_need(composed: dict[str, Any]):
    for name in ("train", *PREDICTING, "control"):
        service = composed["services"][name]
        environment = {key: value for key, value in service["environment"].items() if key.startswith("MODELYARD_")}
        assert seconds(service["stop_grace_period"]) > stopping_s(Settings.from_env(environment))


def test_parts_that_share_files_mount_the_same_roots(composed: dict[str, Any]):
    for name in ("api", "train", *PREDICTING, "control"):
        service = composed["services"][name]
        assert "data:/data" in service["volumes"]
        assert service["environment"]["MODELYARD_DATA_ROOTS"] == "/data"


def test_every_queue_of_one_machine_has_a_worker(composed: dict[str, Any]):
    served = {
        queue
        for name in ("train", *PREDICTING, "control")
        for queue in composed["services"][name]["command"][3].split(",")
    }
    assert served == {
        "train.cpu",
        "control",
        *(f"{kind}.{each}.cpu" for each in engines() for kind in ("predict", "batch")),
    }


def test_only_the_api_is_open_to_the_network(composed: dict[str, Any]):
    published = {(name, port) for name, service in composed["services"].items() for port in service.get("ports", [])}
    assert {name for name, port in published if not port.startswith("127.0.0.1:")} == {"api"}


def test_volumes_are_declared(composed: dict[str, Any]):
    used = {volume.split(":")[0] for service in composed["services"].values() for volume in service.get("volumes", [])}
    assert used == set(composed["volumes"])


def test_images_of_others_have_a_version(composed: dict[str, Any]):
    for name in ("postgres", "redis", "objects"):
        assert re.search(r":\d", composed["services"][name]["image"])


def test_secrets_are_asked_for_and_made(composed: dict[str, Any]):
    text = (ROOT / "docker-compose.yml").read_text()
    asked = set(re.findall(r"(?<!\$)\$\{(\w+):\?", text))
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) == asked
    made = subprocess.run(["sh", ROOT / "deploy" / "secrets.sh"], capture_output=True, text=True, check=True)
    lines = dict(line.split("=") for line in made.stdout.splitlines())
    assert set(lines) == asked
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in lines.values())
    assert len(set(lines.values())) == len(lines)


def test_commands_in_the_comments_exist():
    text = (ROOT / "docker-compose.yml").read_text()
    (line,) = re.findall(r"docker compose run --rm migrate (modelyard .*)", text)
    check_command(shlex.split(line))
