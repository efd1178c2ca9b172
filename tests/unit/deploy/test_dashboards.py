"""What Grafana, the alerts and the scaling ask Prometheus for is what /metrics tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.figures import ApiFigures
from api.fleet_figures import FleetFigures
from storage.live import Batch, Depth, Ending, Heartbeat, Live, Taken
from storage.records import Kind, OpenTasks, Records, State, WaitingDeliveries
from tests.unit.deploy.files import ROOT
from workers.figures import PARTS, PredictionFigures, WebhookFigures

Json = dict[str, Any]
BOARD = json.loads((ROOT / "deploy" / "grafana" / "modelyard.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "modelyard-rules.yml").read_text())
SCRAPED = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
# Added by Prometheus, the first of them as a figure.
OF_PROMETHEUS = {"up": {"job", "instance"}}


class Told:
    """Records and Redis of a fleet that has something of everything."""

    tasks = deliveries = heartbeats = figures = lane = endings = property(lambda self: self)

    def open_tasks(self) -> list[OpenTasks]:
        return [OpenTasks(Kind.TRAIN, "train.cpu", state, 1, 1.0, 0, 1) for state in (State.QUEUED, State.RUNNING)]

    def waiting(self) -> WaitingDeliveries:
        return WaitingDeliveries(1, 1.0)

    def all(self) -> Any:
        return self._all.pop(0)

    def __init__(self) -> None:
        worker = PredictionFigures()
        lane = worker.of("predict.toy.cpu")
        lane.note_request(dict.fromkeys(PARTS, 1.0))
        lane.note_batch(Batch("toy", [Taken(b"1", 0.0, b"")], 0, "empty"))
        lane.note_failure("bad_input")
        lane.note_eviction()
        for was_loaded in (True, False):
            lane.note_model(was_loaded=was_loaded)
        ending = Ending(1)
        ending.timed[0] = 1
        # In the order in which they are asked for.
        self._all: list[Any] = [
            {"worker": worker.told().decode(), "sender": WebhookFigures().told().decode()},
            [Heartbeat("train1@here", ("train.cpu", "predict.toy.cpu"))],
            {("train", "finished"): ending},
        ]

    def waiting_by_queue(self, queues: list[str]) -> dict[str, int]:
        return dict.fromkeys(queues, 1)

    def depth(self, lane: str) -> Depth:
        return Depth(1, 1, 1.0)

    def sweep_age_s(self) -> float:
        return 1.0


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """Every figure of /metrics by name, with its labels."""
    fleet = Told()
    figures = ApiFigures(cast(Live, fleet), FleetFigures(cast(Records, fleet), cast(Live, fleet)))
    figures.note("POST", "/predict", 200, 0.1)
    found: dict[str, set[str]] = dict(OF_PROMETHEUS)
    for metric in text_string_to_metric_families(figures.of_all().decode()):
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def targets() -> list[Json]:
    return [target for panel in BOARD["panels"] for target in panel.get("targets", [])]


def queries() -> Iterator[tuple[str, str]]:
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for path in sorted((ROOT / "deploy" / "kubernetes").rglob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            for trigger in each.get("spec", {}).get("triggers", []):
                yield f"{each['kind']} {each['metadata']['name']}", trigger["metadata"]["query"]


def figures_in(query: str) -> list[tuple[str, set[str]]]:
    """The figures of a query, each with the labels that it is chosen by."""
    found = []
    for name, chosen in re.findall(r"\b(modelyard_\w+|up)\b(?:\{([^}]*)\})?", query):
        found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))))
    return found


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda value: str(value)[:40])
def test_query_asks_for_figures_and_labels_that_there_are(told: dict[str, set[str]], where: str, query: str):
    asked = figures_in(query)
    assert asked, where
    for name, labels in asked:
        assert name in told, f"{name} in {where}"
        assert labels <= told[name], f"{labels - told[name]} of {name} in {where}"
    grouped = {label for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in labels.split(", ")}
    assert grouped <= {label for name, _ in asked for label in told[name]} | {"le"}, where
    assert all(query.count(one) == query.count(other) for one, other in ("()", "[]", "{}"))
    assert ("rate(" in query or "increase(" in query) == bool(re.search(r"_(total|bucket|sum|count)\b", query)), where


def test_every_figure_is_on_the_dashboard(told: dict[str, set[str]]):
    shown = {name for target in targets() for name, _ in figures_in(target["expr"])}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told if name.startswith("modelyard_")}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}


def test_every_figure_is_described(told: dict[str, set[str]]):
    described = (ROOT / "docs" / "operations.md").read_text()
    for name in told:
        if name.startswith("modelyard_"):
            assert f"`{re.sub(r'_(bucket|sum|count)$', '', name)}`" in described, name


def test_dashboard_is_whole():
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for other in BOARD["panels"]:
            there = other["gridPos"]
            beside = at["x"] + at["w"] <= there["x"] or there["x"] + there["w"] <= at["x"]
            above = at["y"] + at["h"] <= there["y"] or there["y"] + there["h"] <= at["y"]
            assert panel is other or beside or above, (panel["title"], other["title"])
    assert {target["datasource"]["uid"] for target in targets()} == {"${datasource}"}
    assert [each["name"] for each in BOARD["templating"]["list"]] == ["datasource"]


def test_legends_name_labels_that_the_query_keeps():
    for target in targets():
        kept = {label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, target["expr"]


def test_alerts_say_what_is_wrong_and_how_bad_it_is():
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} == set(rule["annotations"])


def test_prometheus_asks_one_address_with_a_key_and_loads_the_rules():
    [job] = SCRAPED["scrape_configs"]
    assert [each["targets"] for each in job["static_configs"]] == [["api:8080"]]
    assert "authorization" in job
    assert all((ROOT / "deploy" / "prometheus" / name).exists() for name in SCRAPED["rule_files"])
    assert Path(job.get("metrics_path", "/metrics")) == Path("/metrics")
