"""The Kubernetes files fit the program and each other, and nothing in them ends a training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml
from flask import Flask

from api.blueprints import health
from cli.services import api_argv, stopping_s
from settings import Settings
from tests.unit.deploy.files import OF_S3, ROOT, VARIABLES, check_command, queues_of

Json = dict[str, Any]
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
IMAGES = {"modelyard-api", "modelyard-flower", "modelyard-worker-cpu", "modelyard-worker-cuda"}


@cache
def objects() -> list[Json]:
    return [each for path in FILES for each in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> list[Json]:
    return [each for each in objects() if each["kind"] == kind]


def template_of(owner: Json) -> Json:
    found: Json = (owner["spec"].get("jobTargetRef") or owner["spec"])["template"]
    return found


OWNERS = [each for each in objects() if each["kind"] in ("Deployment", "ScaledJob")]
WORKERS = [each for each in OWNERS if "component" in str(template_of(each)["metadata"]["labels"])]
ONCE = [each for each in OWNERS if each["kind"] == "ScaledJob"]


def named(owners: list[Json]) -> Any:
    return pytest.mark.parametrize("owner", owners, ids=[each["metadata"]["name"] for each in owners])


def containers(owner: Json) -> list[Json]:
    spec = template_of(owner)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def given() -> Json:
    """The settings and secrets that every part is given."""
    [config] = of_kind("ConfigMap")
    [secret] = [each for each in of_kind("Secret") if each["metadata"]["name"] == "modelyard"]
    return {**config["data"], **secret["stringData"]}


def settings_of(container: Json) -> Settings:
    values = {**given(), **{each["name"]: each["value"] for each in container.get("env", [])}}
    return Settings.from_env({name: value for name, value in values.items() if name.startswith("MODELYARD_")})


def words_of(owner: Json) -> list[str]:
    words: list[str] = containers(owner)[-1]["command"]
    return words


def test_kustomizations_name_every_file_but_the_example():
    for folder in (FOLDER, FOLDER / "gpu"):
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        assert {name for name in listed if name != ".."} == {
            path.name
            for path in folder.glob("*.yaml")
            if path.name not in ("kustomization.yaml", "secret.example.yaml")
        }


def test_every_object_has_a_kind_and_a_name_of_its_own():
    known = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in objects()]
    assert len(set(known)) == len(known)


@named(OWNERS)
def test_commands_settings_and_images_exist(owner: Json):
    for container in containers(owner):
        name, _, version = container["image"].partition(":")
        assert version not in ("", "latest")
        if name != "redis":
            assert name in IMAGES
            check_command(container["command"])
            settings_of(container)
    [config], secrets = of_kind("ConfigMap"), of_kind("Secret")
    held = {"modelyard": {*config["data"]}, **{each["metadata"]["name"]: {*each["stringData"]} for each in secrets}}
    for container in containers(owner):
        for source in container["envFrom"]:
            [reference] = source.values()
            assert reference["name"] in held
    assert set(given()) <= VARIABLES | OF_S3
    assert held["flower"] <= VARIABLES


def test_example_of_secrets_holds_none():
    for secret in of_kind("Secret"):
        for value in secret["stringData"].values():
            assert value == "modelyard" or "PASSWORD" in value or value == "SECRET"


@named(OWNERS)
def test_pod_has_no_rights(owner: Json):
    spec = template_of(owner)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(owner):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        mounted = {each["name"] for each in container.get("volumeMounts", [])}
        assert mounted <= {each["name"] for each in spec.get("volumes", [])}


@named(OWNERS)
def test_selectors_find_their_pods(owner: Json):
    labels = template_of(owner)["metadata"]["labels"]
    if owner["kind"] == "Deployment":
        assert owner["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_services_budgets_and_policies_select_pods_that_exist():
    pods = [template_of(each)["metadata"]["labels"] for each in OWNERS]
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "Service"):
        for each in of_kind(kind):
            spec = each["spec"]
            selector = spec["podSelector"] if kind == "NetworkPolicy" else spec["selector"]
            wanted = selector if kind == "Service" else selector.get("matchLabels", {})
            assert any(wanted.items() <= labels.items() for labels in pods), each["metadata"]["name"]
            for port in spec.get("ports", []):
                assert port["targetPort"] in {
                    named["name"] for owner in OWNERS for one in containers(owner) for named in one.get("ports", [])
                }


def test_probes_ask_for_places_that_exist():
    app = Flask("probed")
    app.register_blueprint(health.blueprint)
    places = {str(rule) for rule in app.url_map.iter_rules()}
    found = {}
    for owner in OWNERS:
        for name, probe in probes(owner):
            if "httpGet" in probe:
                found[owner["metadata"]["name"], name] = probe["httpGet"]["path"]
            elif probe["exec"]["command"][0] == "modelyard":
                assert check_command(probe["exec"]["command"])["name"] == check_command(words_of(owner))["name"]
    assert {path for (owner, _), path in found.items() if owner == "api"} <= places
    assert {path for (owner, _), path in found.items() if owner == "flower"} == {"/healthcheck"}
    assert ("api", "livenessProbe") in found
    assert "/readyz" not in found.values(), "a missing worker is no reason to restart the API"


def probes(owner: Json) -> Iterator[tuple[str, Json]]:
    for container in containers(owner):
        yield from ((name, container[name]) for name in container if name.endswith("Probe"))


def test_every_queue_has_one_kind_of_worker():
    served = [queue for owner in WORKERS for queue in str(check_command(words_of(owner))["queues"]).split(",")]
    assert sorted(served) == sorted({"control", *queues_of("cpu"), *queues_of("gpu")})


@named(WORKERS)
def test_worker_gets_longer_to_stop_than_it_may_need(owner: Json):
    [container] = containers(owner)
    assert template_of(owner)["spec"]["terminationGracePeriodSeconds"] > stopping_s(settings_of(container))


def test_api_gets_longer_to_stop_than_calls_under_way_may_take():
    [owner] = [each for each in OWNERS if each["metadata"]["name"] == "api"]
    [container] = template_of(owner)["spec"]["containers"]
    words = api_argv(settings_of(container))
    killed_s = float(words[words.index("--workers-kill-timeout") + 1])
    before_s = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert template_of(owner)["spec"]["terminationGracePeriodSeconds"] > before_s + killed_s


@named(WORKERS)
def test_worker_on_a_gpu_asks_for_one(owner: Json):
    [container] = containers(owner)
    on_gpu = ".gpu" in words_of(owner)[3]
    assert container["image"].startswith("modelyard-worker-cuda:" if on_gpu else "modelyard-worker-cpu:")
    assert container["resources"]["limits"].get("nvidia.com/gpu", 0) == (1 if on_gpu else 0)


def test_trainings_run_in_pods_of_their_own_that_nothing_scales_down():
    training = [each for each in WORKERS if words_of(each)[3].startswith(("train.", "batch."))]
    assert training == ONCE
    scaled = {each["spec"]["scaleTargetRef"]["name"] for kind in SCALERS for each in of_kind(kind)}
    assert not scaled & {each["metadata"]["name"] for each in ONCE}
    assert scaled <= {each["metadata"]["name"] for each in OWNERS if each["kind"] == "Deployment"}


SCALERS = ("ScaledObject", "HorizontalPodAutoscaler")


@named(ONCE)
def test_pod_that_trains_ends_by_itself_and_is_neither_deleted_nor_evicted(owner: Json):
    spec, template = owner["spec"], template_of(owner)
    assert check_command(words_of(owner))["once_s"] is not None
    assert spec["rollout"]["strategy"] == "gradual"
    assert "activeDeadlineSeconds" not in {**spec["jobTargetRef"], **template["spec"]}
    # A probe that fails would restart it; a worker that no longer hears ends itself, and only while it is idle.
    assert not list(probes(owner))
    assert template["spec"]["restartPolicy"] == "Never"
    assert spec["jobTargetRef"]["backoffLimit"] == 0
    assert template["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    budgets = [
        each["spec"]["minAvailable"]
        for each in of_kind("PodDisruptionBudget")
        if each["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ]
    assert budgets == [spec["maxReplicaCount"]]


@named(ONCE)
def test_pods_are_as_many_as_tasks_that_wait_and_run(owner: Json):
    [trigger] = owner["spec"]["triggers"]
    assert owner["spec"]["scalingStrategy"] == {"strategy": "default"}
    assert trigger["metadata"]["threshold"] == "1"
    query = trigger["metadata"]["query"]
    for figure in ("modelyard_tasks_startable", "modelyard_tasks_running"):
        [asked] = query.split(figure)[1:]
        queues = asked.partition('"')[2].partition('"')[0].split("|")
        assert queues == words_of(owner)[3].split(",")


def test_pods_that_predict_follow_what_waits_and_what_is_computed():
    for each in of_kind("ScaledObject"):
        [owner] = [one for one in OWNERS if one["metadata"]["name"] == each["spec"]["scaleTargetRef"]["name"]]
        query = each["spec"]["triggers"][0]["metadata"]["query"]
        for figure in ("modelyard_requests_waiting", "modelyard_requests_in_flight"):
            assert f'{figure}{{lane="{words_of(owner)[3]}"}}' in query


def test_workers_do_not_reach_the_credentials_of_their_machine():
    [policy] = [each for each in of_kind("NetworkPolicy") if each["metadata"]["name"] == "workers"]
    [block] = [one["ipBlock"] for one in policy["spec"]["egress"][0]["to"] if one["ipBlock"]["cidr"] == "0.0.0.0/0"]
    assert ip_address("169.254.169.254") in ip_network(block["except"][0])


def test_nobody_but_the_fleet_reaches_redis():
    [closed] = [each for each in of_kind("NetworkPolicy") if each["metadata"]["name"] == "closed"]
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    [policy] = [each for each in of_kind("NetworkPolicy") if each["metadata"]["name"] == "redis"]
    [rule] = policy["spec"]["ingress"]
    assert all("podSelector" in each and "namespaceSelector" not in each for each in rule["from"])
