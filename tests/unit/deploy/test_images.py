"""The images and the composed fleet fit the program: commands, settings, folders, times."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from api.ending import ENDING_S
from cli.services import api_argv, stopping_s
from ml.options.catalog import engines
from settings import Settings
from tests.unit.deploy.files import OF_S3, ROOT, VARIABLES, check_command, queues_of

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
TARGETS = ("api", "flower", "worker-cpu", "worker-cuda")
PREDICTING = tuple(f"predict-{engine}" for engine in engines())
WORKING = ("train", *PREDICTING, "batch", "control")
ON_GPU = ("train-gpu", *(f"{name}-gpu" for name in PREDICTING), "batch-gpu")
OURS = ("api", *WORKING, *ON_GPU, "flower", "migrate")
OTHERS = ("postgres", "redis", "objects")
TRAINING = {"worker", "xgboost", "torch", "tensorflow", "local"}

Instructions = list[tuple[str, str]]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def stages() -> dict[str, tuple[str, Instructions]]:
    """What each stage is made from, and its own instructions."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()
    found: dict[str, tuple[str, Instructions]] = {}
    name = ""
    for word, _, rest in (line.partition(" ") for line in lines if line.strip()):
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            found[name] = source, []
        else:
            found[name][1].append((word, rest.strip()))
    return found


def instructions_of(target: str) -> Instructions:
    """Every instruction that a target consists of, those of the stages below it first."""
    source, own = stages()[target]
    return [*(instructions_of(source) if source in stages() else []), *own]


def last(target: str, word: str) -> str:
    return [rest for each, rest in instructions_of(target) if each == word][-1]


def seconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text.removesuffix("s"))


def image_of(target: str) -> str:
    return f"modelyard-{target}:0.1.0"


def settings_of(service: dict[str, Any]) -> Settings:
    return Settings.from_env(
        {
            name: re.sub(r"\$\{\w+:\?[^}]*\}", 48 * "a", value)
            for name, value in service["environment"].items()
            if name.startswith("MODELYARD_")
        }
    )


@pytest.mark.parametrize("target", TARGETS)
def test_target_runs_as_a_user_without_rights_and_is_asked_to_end(target: str):
    assert int(last(target, "USER")) > 0
    assert f"--uid {last(target, 'USER')} " in DOCKERFILE
    assert last(target, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("target", TARGETS)
def test_command_and_health_check_of_a_target_exist(target: str):
    command = json.loads(last(target, "CMD"))
    check_command(command)
    check = last(target, "HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    if words[0] == "modelyard":
        check_command(words)
        assert words[-1] == command[command.index("--name") + 1]
    else:
        assert words[:2] == ["python", "-c"]
        compile(words[2], "health check", "exec")


def installed(target: str) -> tuple[set[str], str]:
    """The extras that a target's environment is made with, and all that is said while it is made."""
    [copied] = re.findall(r"--from=(\S+) /opt/venv /opt/venv", "\n".join(rest for _, rest in instructions_of(target)))
    told = "\n".join(rest for _, rest in instructions_of(copied))
    [extras] = re.findall(r"pip install -c constraints\.txt '\.\[(.*?)\]'", told)
    return set(extras.split(",")), told


def test_extras_exist_and_the_api_gets_no_library_that_trains():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert all(installed(target)[0] <= set(known) for target in TARGETS)
    assert not installed("api")[0] & TRAINING
    assert not installed("flower")[0] & (TRAINING - {"worker"})
    for target in ("worker-cpu", "worker-cuda"):
        assert {"worker", "torch", "s3", "postgres"} <= installed(target)[0]
    assert "xgboost" in installed("worker-cpu")[0]


def test_libraries_are_those_that_were_tried_and_never_both_builds_of_one():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"[\w.-]+==", line)
    )
    assert f"TORCH_SPEC=torch=={pins['torch']}\n" in DOCKERFILE
    extras, told = installed("worker-cuda")
    assert f"XGBOOST_SPEC=xgboost=={pins['xgboost-cpu']}" in told
    assert "xgboost" not in extras, "that extra is the build for CPUs"
    # torch first: what comes later must find the chosen build, and its layer outlives changes of the sources.
    for target in ("worker-cpu", "worker-cuda"):
        _, told = installed(target)
        assert told.index('pip install "$TORCH_SPEC"') < told.index("--from=sources")


def test_image_copies_files_that_exist_and_that_the_build_context_lets_through():
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for _, own in stages().values():
        for word, rest in own:
            if word == "COPY" and "--from=" not in rest:
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert {f"!{source}", f"!{source.split('/')[0]}"} & set(let_through), source
            elif word == "COPY":
                assert re.findall(r"--from=(\S+)", rest)[0] in stages()


def test_every_setting_in_the_image_is_known_and_none_is_a_secret():
    assert set(re.findall(r"MODELYARD_\w+", DOCKERFILE)) <= VARIABLES
    assert not re.findall(r"(?i)password|secret|token|_key\b", DOCKERFILE)


def test_images_have_versions():
    froms = [source for source, _ in stages().values() if source not in stages()]
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]*", source) for source in froms), froms


# The composed fleet


def test_fleet_has_every_part(composed: dict[str, Any]):
    assert set(composed["services"]) == {*OURS, *OTHERS}


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
    service = composed["services"][name]
    assert set(service["environment"]) <= VARIABLES | OF_S3
    settings_of(service)


@pytest.mark.parametrize("name", OURS)
def test_composed_image_is_built_from_a_target_that_exists(composed: dict[str, Any], name: str):
    service = composed["services"][name]
    assert (ROOT / service["build"]["dockerfile"]).exists()
    assert service["build"]["target"] in TARGETS
    assert service["image"] == image_of(service["build"]["target"])
    on_gpu = name in ON_GPU
    assert (service["build"]["target"] == "worker-cuda") is on_gpu
    assert service.get("profiles", []) == (["gpu"] if on_gpu else [])


@pytest.mark.parametrize("name", OURS)
def test_composed_part_has_no_rights_and_writes_only_where_it_must(composed: dict[str, Any], name: str):
    service = composed["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert "/var/lib/modelyard" in service["volumes"]
    assert "user" not in service
    assert "privileged" not in service


def test_every_part_but_the_migration_tells_its_health(composed: dict[str, Any]):
    without = {name for name, service in composed["services"].items() if "healthcheck" not in service}
    assert without == {"migrate"}


def test_parts_start_once_those_they_need_are_there(composed: dict[str, Any]):
    services = composed["services"]
    for name in ("api", *WORKING, *ON_GPU):
        needed = {each: how["condition"] for each, how in services[name]["depends_on"].items()}
        assert needed == {
            "migrate": "service_completed_successfully",
            "redis": "service_healthy",
            "objects": "service_healthy",
        }
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert (services["migrate"]["command"], services["migrate"]["restart"]) == (["modelyard", "db", "upgrade"], "no")


def test_worker_gets_longer_to_stop_than_it_may_need(composed: dict[str, Any]):
    for name in (*WORKING, *ON_GPU):
        service = composed["services"][name]
        settings = settings_of(service)
        assert seconds(service["stop_grace_period"]) > stopping_s(settings) > settings.shutdown_s


def test_api_gets_longer_to_stop_than_calls_under_way_may_take(composed: dict[str, Any]):
    words = api_argv(settings_of(composed["services"]["api"]))
    killed_s = float(words[words.index("--workers-kill-timeout") + 1])
    assert seconds(composed["services"]["api"]["stop_grace_period"]) > killed_s > ENDING_S


def test_parts_that_share_files_mount_the_same_roots(composed: dict[str, Any]):
    for name in ("api", *WORKING, *ON_GPU):
        service = composed["services"][name]
        assert "data:/data" in service["volumes"]
        assert service["environment"]["MODELYARD_DATA_ROOTS"] == "/data"


def test_every_queue_has_one_kind_of_worker(composed: dict[str, Any]):
    def served(names: tuple[str, ...]) -> list[str]:
        return sorted(queue for name in names for queue in composed["services"][name]["command"][3].split(","))

    assert served(WORKING) == sorted({"control", *queues_of("cpu")})
    assert served(ON_GPU) == sorted(queues_of("gpu"))


def test_only_the_api_is_open_to_the_network(composed: dict[str, Any]):
    published = {(name, port) for name, service in composed["services"].items() for port in service.get("ports", [])}
    assert {name for name, port in published if not port.startswith("127.0.0.1:")} == {"api"}


def test_stores_and_flower_ask_for_passwords(composed: dict[str, Any]):
    services = composed["services"]
    assert "--requirepass" in services["redis"]["command"][-1]
    assert "RCLONE_AUTH_KEY" in services["objects"]["environment"]
    assert "FLOWER_PASSWORD" in services["flower"]["environment"]["MODELYARD_FLOWER_LOGIN"]
    # A password in `environment` of all would reach every part.
    assert {name for name in services if "FLOWER_PASSWORD" in str(services[name])} == {"flower"}


def test_volumes_are_declared(composed: dict[str, Any]):
    volumes = [volume for service in composed["services"].values() for volume in service.get("volumes", [])]
    assert {volume.split(":")[0] for volume in volumes if ":" in volume} == set(composed["volumes"])


def test_images_of_others_have_a_version(composed: dict[str, Any]):
    for name in OTHERS:
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
    assert set(re.findall(r"--target (\S+)", DOCKERFILE)) == set(TARGETS)
