"""Repositories of networks: checkpoints, states of solvers and best models, in folders and in copies."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settings import Settings
from tests.integration.yard import Json, Yard, names, read, running_yard

pytestmark = pytest.mark.servers

FLOWERS = ["setosa", "versicolor", "virginica"]
MODEL = {"torch": "checkpoint-{}.npt", "caffe": "model_iter_{}.caffemodel"}
STATE = {"torch": "solver-{}.pt", "caffe": "model_iter_{}.solverstate"}


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    with running_yard(settings, redis_url) as made:
        yield made


@pytest.fixture
def folder(yard: Yard) -> Path:
    return yard.data / "model"


def put_up(yard: Yard, name: str, repository: Path | str, mllib: str = "torch", **more: Any) -> Json:
    return yard.call("PUT", f"/services/{name}", yard.network(repository, mllib, **more), code=201)


def best_of(folder: Path) -> int:
    found = re.match(r"iteration:(\d+)\n\w+:[\d.]+\n$", (folder / "best_model.txt").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("mllib", ["torch", "caffe"])
def test_folder_of_a_network_holds_checkpoints_and_states_by_the_names_of_deepdetect(
    yard: Yard, folder: Path, mllib: str
) -> None:
    put_up(yard, "iris", folder, mllib)
    trained = yard.learn("iris", 20, solver={"snapshot": 8})
    assert trained["head"]["status"] == "finished", trained
    best = best_of(folder)
    for iteration in (8, 16, 20):
        assert MODEL[mllib].format(iteration) in names(folder)
    assert MODEL[mllib].format(best) in names(folder)
    assert STATE[mllib].format(20) in names(folder)
    assert {"corresp.txt", "bounds.dat", "best_model.txt", "training.json", "metrics.json"} <= set(names(folder))
    newest = max(folder.glob("*" + Path(MODEL[mllib]).suffix), key=lambda path: path.stat().st_mtime)
    assert newest.name == MODEL[mllib].format(20), "who takes the newest file takes the final model"
    assert read(folder / "metrics.json")["body"]["measure_hist"]["train_loss_hist"]
    stats = yard.describe("iris")["model_stats"]
    assert (stats["params"], stats["frozen_params"]) == (4 * 8 + 8 + 8 * 3 + 3, 0)
    yard.learn("iris", 25, resume=True)
    assert STATE[mllib].format(25) in names(folder)
    assert STATE[mllib].format(20) not in names(folder), "the newest state is the only one"


@pytest.mark.parametrize(("mllib", "kind"), [("torch", "folder"), ("caffe", "name")])
def test_best_checkpoint_and_not_the_final_one_is_published(yard: Yard, mllib: str, kind: str) -> None:
    source, target = (yard.data / "private", yard.data / "public") if kind == "folder" else ("private", "public")
    put_up(yard, "private", source, mllib)
    # So large a rate that the network gets worse again: the best test is not the last one.
    trained = yard.learn("private", 60, interval=1, solver={"base_lr": 0.5}, output={"target_repository": str(target)})
    assert trained["head"]["status"] == "finished", trained
    [version], [copy] = yard.versions(source), yard.versions(target)
    [text] = [each for each in version.artifacts if each.name == "best_model.txt"]
    best = int(yard.parts.objects.get_bytes(text.key).decode().splitlines()[0].partition(":")[2])
    assert best < 60, "this test needs a training that gets worse"
    assert version.description["file"] == MODEL[mllib].format(60)
    assert copy.description["file"] == MODEL[mllib].format(best)
    kept = {each.name for each in copy.artifacts}
    assert MODEL[mllib].format(60) not in kept
    assert not any("solver-" in name or name.endswith("state") or name == "training.json" for name in kept)
    assert {"corresp.txt", "bounds.dat", "best_model.txt", "modelyard.json", "config.json", "metrics.json"} <= kept
    put_up(yard, "public", target, mllib)
    assert len(yard.versions(target)) == 1
    answer = yard.call(
        "PUT",
        "/services/again",
        {
            "mllib": mllib,
            "model": {"repository": "again"},
            "parameters": {"input": {"connector": "csv"}, "mllib": {"from_repository": str(source)}, "output": {}},
        },
        code=201,
    )
    assert "warnings" not in answer["head"], answer
    assert yard.versions("again")[0].description["file"] == MODEL[mllib].format(best)
    rows = {"data": ["5.1,3.5,1.4,0.2", "6.4,2.9,4.3,1.3", "5.9,3.0,5.1,1.8"]}
    one, two = (
        yard.call("POST", "/predict", {"service": name, **rows})["body"]["predictions"] for name in ("public", "again")
    )
    assert one == two
    yard.learn("again", 5)
    assert yard.versions("again")[0].description["file"] == MODEL[mllib].format(5), "nothing to resume was copied"


def test_nothing_is_copied_where_nothing_was_measured_and_a_service_takes_the_final_model(yard: Yard) -> None:
    put_up(yard, "private", "private")
    yard.call(
        "POST",
        "/train",
        {
            "service": "private",
            "parameters": {
                "mllib": {"solver": {"iterations": 5, "test_interval": 5}, "net": {"batch_size": 32}},
                "output": {"target_repository": "public"},
            },
            "data": ["iris.csv"],
        },
        code=201,
    )
    polled = yard.call("GET", "/train?service=private&job=1")
    assert polled["head"]["status"] == "finished"
    [warning] = [each for each in polled["head"]["warnings"] if "target_repository" in each["parameter"]]
    assert "nothing was copied to public" in warning["message"]
    assert yard.versions("public") == []
    wanted = yard.network("public", from_repository="private")
    yard.call("PUT", "/services/public", wanted, code=201)
    assert yard.versions("public")[0].description["file"] == "checkpoint-5.npt"


@pytest.mark.parametrize("mllib", ["torch", "caffe"])
def test_state_in_the_repository_must_be_resumed_or_cleared(yard: Yard, folder: Path, mllib: str) -> None:
    put_up(yard, "iris", folder, mllib)
    yard.learn("iris", 10)
    refused = yard.learn("iris", 20)
    assert refused["head"]["status"] == "error"
    assert refused["body"]["Error"]["dd_code"] == 1006
    assert "clear=lib" in refused["body"]["Error"]["dd_msg"]
    resumed = yard.learn("iris", 20, resume=True)
    assert resumed["head"]["status"] == "finished", resumed
    assert (
        resumed["body"]["measure_hist"]["iteration_hist"][0]
        < 10
        <= resumed["body"]["measure_hist"]["iteration_hist"][-1]
    )
    yard.call("DELETE", "/services/iris?clear=lib")
    left = names(folder)
    assert "best_model.txt" in left
    assert "corresp.txt" in left
    assert ("bounds.dat" in left) == (mllib == "torch")
    assert not any(name.endswith((".npt", ".pt", ".caffemodel", ".solverstate", ".json")) for name in left)
    assert any(name.endswith(".prototxt") for name in left) == (mllib == "caffe")
    put_up(yard, "iris", folder, mllib)
    assert yard.learn("iris", 5)["head"]["status"] == "finished"


@pytest.mark.parametrize("mllib", ["torch"])
def test_state_that_somebody_removes_by_hand_need_not_be_resumed(yard: Yard, folder: Path, mllib: str) -> None:
    put_up(yard, "iris", folder, mllib)
    yard.learn("iris", 10)
    (folder / STATE[mllib].format(10)).unlink()
    again = yard.learn("iris", 12)
    assert again["head"]["status"] == "finished", again
    assert len(yard.versions(folder)) == 3, "the folder without the state is a version of its own"


@pytest.mark.parametrize("mllib", ["caffe"])
def test_folder_copied_by_hand_is_resumed_like_the_original(yard: Yard, folder: Path, mllib: str) -> None:
    put_up(yard, "iris", folder, mllib)
    yard.learn("iris", 10)
    shutil.copytree(folder, yard.data / "copy", ignore=shutil.ignore_patterns(".modelyard.json"))
    put_up(yard, "original", yard.data / "original", mllib)
    put_up(yard, "twin", yard.data / "copy", mllib)
    assert yard.describe("twin")["predict"]
    resumed, twin = yard.learn("iris", 20, resume=True), yard.learn("twin", 20, resume=True)
    assert twin["head"]["status"] == "finished", twin
    for name in ("acc_hist", "train_loss_hist"):
        assert twin["body"]["measure_hist"][name] == resumed["body"]["measure_hist"][name]


@pytest.mark.parametrize("mllib", ["caffe"])
def test_weights_of_other_classes_are_for_finetuning_only(yard: Yard, folder: Path, mllib: str) -> None:
    put_up(yard, "iris", folder, mllib)
    yard.learn("iris", 10)
    weights = folder / MODEL[mllib].format(10)
    two = yard.data / "two.csv"
    rows = (yard.data / "iris.csv").read_text().replace("virginica", "versicolor")
    two.write_text(rows)
    wanted = yard.network("two", mllib, nclasses=2)
    wanted["model"]["weights"] = str(weights)
    answer = yard.call("PUT", "/services/two", wanted, code=201)
    assert "was not taken over" in answer["head"]["warnings"][0]["message"], answer
    assert yard.versions("two") == []
    tuned = yard.learn("two", 10, finetuning=True, data=[str(two)])
    assert tuned["head"]["status"] == "finished", tuned
    assert yard.describe("two")["labels"] == ["setosa", "versicolor"]
    fresh = yard.learn("two", 5, data=[str(two)])
    assert fresh["body"]["Error"]["dd_code"] == 1006


def test_hand_placed_weights_that_do_not_fit_reach_a_finetuning(yard: Yard, folder: Path) -> None:
    put_up(yard, "iris", folder)
    yard.learn("iris", 10)
    other = yard.data / "other"
    other.mkdir()
    shutil.copy(folder / "checkpoint-10.npt", other / "checkpoint-10.npt")
    (yard.data / "two.csv").write_text((yard.data / "iris.csv").read_text().replace("virginica", "versicolor"))
    answer = put_up(yard, "two", other, nclasses=2)
    assert "was not taken over" in answer["head"]["warnings"][0]["message"]
    tuned = yard.learn("two", 10, finetuning=True, data=[str(yard.data / "two.csv")])
    assert tuned["head"]["status"] == "finished", tuned
    assert [each.description["rounds"] for each in yard.versions(other)] == [10]


def test_archive_of_a_trained_folder_is_a_service_elsewhere(yard: Yard, folder: Path) -> None:
    put_up(yard, "iris", folder)
    yard.learn("iris", 20)
    archive = shutil.make_archive(str(yard.data / "iris"), "gztar", folder)
    yard.call(
        "PUT",
        "/services/installed",
        {
            "mllib": "torch",
            "model": {"repository": str(yard.data / "installed"), "create_repository": True, "init": archive},
            "parameters": {"input": {"connector": "csv"}},
        },
        code=201,
    )
    assert yard.prediction("installed") == yard.prediction("iris") == FLOWERS
    config = read(yard.data / "installed" / "config.json")
    assert config["model"]["repository"] == str(yard.data / "installed")
    resumed = yard.learn("installed", 25, resume=True)
    assert resumed["head"]["status"] == "finished", resumed
    assert json.dumps(resumed["body"]["measure_hist"]["acc_hist"][:4]) == json.dumps(
        read(folder / "metrics.json")["body"]["measure_hist"]["acc_hist"][:4]
    )
