"""Repositories from both sides: what lies in folders, and what the records make of it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xgboost

from ml import isolation
from settings import Settings
from storage.errors import RepositoryUnusable, Superseded
from storage.records import Attempt, Kind, State, Task
from tests.integration.host import wait_until
from tests.integration.yard import Yard, names, read, running_yard
from tests.receiver import answer, receiving
from workers.cleaning import clean
from workers.export import export_newest
from workers.folders import writing
from workers.lease import LeaseKeeper
from workers.metrics import TellingFolder
from workers.parts import Parts
from workers.previous import previous_of
from workers.sweep import Sweep

pytestmark = pytest.mark.servers

FLOWERS = ["setosa", "versicolor", "virginica"]
OURS = [".modelyard.json", "modelyard.json", "training.json"]
REPORTS = ["config.json", "metrics.json", "model.json"]


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    with running_yard(settings, redis_url) as made:
        yield made


@pytest.fixture
def folder(yard: Yard) -> Path:
    return yard.data / "model"


def model(yard: Yard, rounds: int, classes: int = 3) -> bytes:
    """A model that was made without Modelyard."""
    rows = [line.split(",") for line in (yard.data / "iris.csv").read_text().splitlines()[1:]]
    labels = [FLOWERS.index(row[4]) % classes for row in rows]
    data = xgboost.DMatrix([[float(cell) for cell in row[:4]] for row in rows], labels)
    options = {"objective": "multi:softprob", "num_class": classes, "nthread": 1}
    return bytes(xgboost.train(options, data, rounds).save_raw("ubj"))


def put(folder: Path, name: str, content: bytes, age_s: float = 0.0) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    at = time.time() - age_s
    os.utime(folder / name, (at, at))


# What trainings leave there


def test_folder_of_a_trained_service_holds_the_files_of_deepdetect(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    trained = yard.train("iris", 5)
    assert names(folder) == sorted(["0005.model", "corresp.txt", "model.fmap", *OURS, *REPORTS])
    assert read(folder / "config.json") == yard.body(folder)
    assert read(folder / "model.json")["parameters"]["mllib"] == {"iterations": 5}
    assert (folder / "corresp.txt").read_text() == "0 setosa\n1 versicolor\n2 virginica\n"
    metrics = read(folder / "metrics.json")
    assert metrics["body"] == trained["body"]
    assert metrics["head"] == trained["head"] | {"time": metrics["head"]["time"]}
    assert metrics["body"]["measure_hist"]["acc_hist"]
    assert yard.prediction("iris") == FLOWERS


def test_a_later_training_takes_the_files_of_the_one_before_with_it(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 9, save_period=4)
    assert {"0004.model", "0008.model", "0009.model"} <= set(names(folder))
    put(folder, "notes.txt", b"mine")
    (folder / "0004.model").write_bytes(model(yard, 4))
    yard.train("iris", 6)
    assert sorted(each for each in names(folder) if each.endswith((".model", ".txt"))) == [
        "0004.model",  # changed by hand
        "0006.model",
        "corresp.txt",
        "notes.txt",
    ]


def test_copy_that_was_cut_off_is_made_again_by_the_sweep(
    yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise RepositoryUnusable("the disk of the folder went away")

    yard.create("iris", folder)
    with monkeypatch.context() as patched:
        patched.setattr("workers.export.repository_folder.export", fail)
        yard.train("iris", 5)
    assert "0005.model" not in names(folder)
    assert Sweep(yard.parts)().exported == 1
    assert "0005.model" in names(folder)
    assert Sweep(yard.parts)().exported == 0


def test_only_one_writes_a_folder_at_a_time(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    [version] = yard.versions(folder)
    repositories = yard.parts.records.repositories
    held = repositories.lock_export(version.repository_id, 60)
    assert held is not None
    (folder / "0005.model").unlink()
    assert not export_newest(yard.parts, version.repository_id)
    repositories.unlock_export(version.repository_id, held)
    assert export_newest(yard.parts, version.repository_id)
    assert (folder / "0005.model").exists()


def test_metrics_are_written_while_the_training_runs(yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = TellingFolder._write

    def write(telling: TellingFolder, *given: Any) -> None:
        real(telling, *given)
        seen.append(read(folder / "metrics.json"))

    monkeypatch.setattr(TellingFolder, "_write", write)
    yard.create("iris", folder)
    trained = yard.train("iris", 5)
    assert seen, "there was a test, and so a file"
    assert (seen[0]["head"]["status"], seen[0]["head"]["job"]) == ("running", 1)
    assert seen[0]["body"]["sname"] == "iris"
    length = len(seen[0]["body"]["measure_hist"]["acc_hist"])
    assert seen[0]["body"]["measure_hist"]["acc_hist"] == trained["body"]["measure_hist"]["acc_hist"][:length]
    assert read(folder / "metrics.json")["head"]["status"] == "finished"


def test_metrics_of_a_training_that_failed_say_so(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    # Broken so far behind that it is accepted.
    lines = (yard.data / "iris.csv").read_text().splitlines()
    broken = yard.data / "broken.csv"
    broken.write_text("\n".join([lines[0], *lines[1:] * 1000, "1,2", ""]))
    failed = yard.train("iris", 5, data=[str(broken)])
    assert failed["head"]["status"] == "error"
    written = read(folder / "metrics.json")
    assert (written["head"]["status"], written["head"]["job"]) == ("error", 2)
    assert "broken.csv" in written["body"]["Error"]["msg"]


# What people put there


def test_model_of_another_server_is_served_at_once(yard: Yard, folder: Path) -> None:
    put(folder, "0007.model", model(yard, 7))
    put(folder, "0003.model", model(yard, 3), age_s=100)
    put(folder, "corresp.txt", b"0 setosa\n1 versicolor\n2 virginica\n")
    put(folder, "train.csv", b"a,b\n")
    answer = yard.create("iris", folder)
    assert "warnings" not in answer["head"]
    assert yard.prediction("iris") == FLOWERS
    [version] = yard.versions(folder)
    assert [each.name for each in version.artifacts] == ["0007.model", "corresp.txt", "modelyard.json"]
    assert {"0003.model", "train.csv"} <= set(names(folder)), "what is no part of the newest model stays as it is"
    assert yard.describe("iris")["labels"] == FLOWERS


def test_weights_that_lie_there_when_a_training_starts_become_a_version_first(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    put(folder, "0050.model", model(yard, 50))
    assert len(yard.versions(folder)) == 1
    yard.train("iris", 6)
    newest, found, first = yard.versions(folder)
    assert [each.description["file"] for each in (newest, found, first)] == ["0006.model", "0050.model", "0005.model"]
    adopted = yard.parts.records.tasks.get(found.task_id)
    assert (adopted.kind, adopted.state) == (Kind.IMPORT, State.FINISHED)
    assert found.task_id != newest.task_id
    assert yard.call("GET", f"/tasks/{adopted.id}")["version"] == 2


def test_folder_that_nobody_touched_gives_no_version(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    for rounds in (5, 6, 6):
        yard.train("iris", rounds)
    assert len(yard.versions(folder)) == 3
    yard.create("twin", folder)
    assert yard.tasks(Kind.IMPORT) == []


def test_files_that_cannot_be_used_are_named_and_do_not_stop_a_training(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    put(folder, "0009.model", b"no model at all")
    trained = yard.train("iris", 5)
    assert trained["head"]["status"] == "finished"
    [warning] = [each for each in trained["head"]["warnings"] if each["parameter"] == "model.repository"]
    assert "0009.model" in warning["message"]
    assert [each.description["file"] for each in yard.versions(folder)] == ["0005.model"]


def test_model_from_elsewhere_is_refused_where_isolation_is_required_and_cannot_be_had(
    settings: Settings, redis_url: str, sealed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_required", False)  # of this whole process, and given back afterwards
    with running_yard(dataclasses.replace(settings, isolation="required"), redis_url) as yard:
        put(yard.data / "foreign", "0007.model", model(yard, 7))
        [warning] = yard.create("foreign", yard.data / "foreign")["head"]["warnings"]
        assert "was not taken over" in warning["message"]
        assert "MODELYARD_ISOLATION requires it" in warning["message"]
        assert yard.versions(yard.data / "foreign") == []
        packed = yard.data / "model.tar.gz"
        with tarfile.open(packed, "w:gz") as archive:
            archive.add(yard.data / "foreign" / "0007.model", "0007.model")
        init = {"repository": str(yard.data / "init"), "create_repository": True, "init": str(packed)}
        refused = yard.create("packed", yard.data / "init", code=500, model=init)
        assert refused["status"]["dd_code"] == 1007
        assert "MODELYARD_ISOLATION requires it" in refused["status"]["dd_msg"]
        yard.create("own", yard.data / "own")
        assert yard.train("own", 5)["head"]["status"] == "finished"
        assert yard.prediction("own") == FLOWERS
        goes_on = yard.train("own", 6, resume=True)
        assert goes_on["head"]["status"] == "error"
        assert "MODELYARD_ISOLATION requires it" in str(goes_on["body"]["Error"])


def test_folder_that_cannot_be_read_does_not_stop_a_training(
    yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise RepositoryUnusable("the disk of the folder went away")

    yard.create("iris", folder)
    yard.train("iris", 5)
    monkeypatch.setattr("workers.importing.repository_folder.compare", fail)
    trained = yard.train("iris", 6)
    assert trained["head"]["status"] == "finished"
    assert "the disk of the folder went away" in trained["head"]["warnings"][0]["message"]
    assert len(yard.versions(folder)) == 2


def test_change_beside_the_model_counts_too(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    (folder / "corresp.txt").write_text("0 red\n1 green\n2 blue\n")
    (folder / "modelyard.json").unlink()
    (folder / "metrics.json").unlink()
    yard.create("twin", folder)
    assert yard.prediction("twin") == ["red", "green", "blue"]
    newest, _ = yard.versions(folder)
    kept = [each.name for each in newest.artifacts]
    assert "training.json" not in kept, "nobody knows whether it is about this model"


def test_who_removes_every_model_begins_anew_and_predictions_go_on(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    for each in folder.iterdir():
        each.unlink()
    assert yard.prediction("iris") == FLOWERS
    told: list[Any] = []
    yard.before = lambda task: told.append(len(yard.versions(folder)))
    yard.train("iris", 6)
    assert told == [1]
    assert [each.description["file"] for each in yard.versions(folder)] == ["0006.model", "0005.model"]
    assert "0006.model" in names(folder)


def test_copied_folder_of_another_yard_knows_everything(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    copy = yard.data / "copy"
    copy.mkdir()
    for name in names(folder):
        if not name.startswith("."):
            put(copy, name, (folder / name).read_bytes())
    yard.create("twin", copy)
    [version], [original] = yard.versions(copy), yard.versions(folder)
    assert {**version.description} == {**original.description, **version.description}
    assert version.description["fitted"] == original.description["fitted"]
    assert (copy / "training.json").read_bytes() == (folder / "training.json").read_bytes()
    assert yard.prediction("twin") == FLOWERS


def test_curves_of_a_model_from_elsewhere_are_kept_for_a_resumed_training(yard: Yard, folder: Path) -> None:
    put(folder, "0004.model", model(yard, 4))
    put(folder, "corresp.txt", b"0 setosa\n1 versicolor\n2 virginica\n")
    history = {"iteration_hist": [1, 2, 3], "acc_hist": [0.5, 0.6, 0.7]}
    put(folder, "metrics.json", json.dumps({"body": {"measure_hist": history}}).encode())
    yard.create("iris", folder)
    [version] = yard.versions(folder)
    key = next(each.key for each in version.artifacts if each.name == "training.json")
    assert json.loads(yard.parts.objects.get_bytes(key))["history"] == history
    assert read(folder / "metrics.json")["body"]["measure_hist"] == history, "an import is no training"
    resumed = yard.train("iris", 8, resume=True)
    assert resumed["head"]["status"] == "finished", resumed
    curves = resumed["body"]["measure_hist"]
    assert curves["iteration_hist"][:3] == [1, 2, 3]
    assert curves["acc_hist"][:3] == [0.5, 0.6, 0.7]
    assert curves["iteration_hist"][-1] == 7


def test_link_in_place_of_a_repository_is_not_followed(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    other = yard.data / "other"
    folder.rename(other)
    folder.symlink_to(other)
    refused = yard.train("iris", 6)
    assert "is a link by now" in refused["body"]["Error"]["dd_msg"]


# Weights


def test_weights_from_elsewhere_are_a_version_of_a_repository_without_a_folder(yard: Yard) -> None:
    put(yard.data / "weights", "0012.model", model(yard, 12))
    answer = yard.create("iris", "flowers", model={"weights": str(yard.data / "weights" / "0012.model")})
    assert "warnings" not in answer["head"]
    [version] = yard.versions("flowers")
    assert version.description["file"] == "0012.model"
    yard.train("iris", 5)
    again = yard.create("twin", "flowers", model={"weights": str(yard.data / "weights" / "0012.model")})
    assert "holds a version already" in again["head"]["warnings"][0]["message"]
    assert len(yard.versions("flowers")) == 2


def test_weights_name_an_older_file_of_the_repository(yard: Yard, folder: Path) -> None:
    put(folder, "0007.model", model(yard, 7))
    put(folder, "0003.model", model(yard, 3), age_s=1000)
    yard.create("iris", folder, model={"weights": "0003.model"})
    [version] = yard.versions(folder)
    assert version.description["file"] == "0003.model"
    yard.create("twin", folder)
    assert len(yard.versions(folder)) == 1, "the copy in the folder is the newest file there"


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ("0001.model", "is no file of the repository"),
        ("/data/none/0001.model", "outside of the data roots"),
        ("./none/0001.model", "is no file that lies there"),
        ("model.npt", "model files of xgboost end with .model"),
    ],
)
def test_weights_that_are_not_there_are_refused(yard: Yard, folder: Path, weights: str, why: str) -> None:
    answer = yard.create("iris", folder, code=400, model={"weights": weights})
    assert answer["status"]["dd_code"] == 1006
    assert why in answer["status"]["dd_msg"]
    yard.call("GET", "/services/iris", code=404)


# Clearing


def filled(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    for name in ("best_model.txt", "vocab.dat", "bounds.dat", "mlp.prototxt", "index.ann", "train.csv"):
        put(folder, name, b"x")
    (folder / "names.bin").mkdir()
    put(folder / "names.bin", "0", b"x")


def test_clear_lib_leaves_what_deepdetect_leaves_and_allows_to_begin_anew(yard: Yard, folder: Path) -> None:
    filled(yard, folder)
    yard.call("DELETE", "/services/iris?clear=lib")
    kept = ["best_model.txt", "bounds.dat", "corresp.txt", "mlp.prototxt", "model.fmap", "train.csv", "vocab.dat"]
    assert names(folder) == sorted([*kept, *REPORTS])
    assert yard.versions(folder) == []
    answer = yard.create("iris", folder)
    assert answer == {"status": {"code": 201, "msg": "Created"}}
    assert yard.describe("iris")["predict"] is False
    yard.train("iris", 6)
    assert yard.prediction("iris") == FLOWERS


def test_clear_index_takes_the_index_only(yard: Yard, folder: Path) -> None:
    filled(yard, folder)
    before = names(folder)
    yard.call("DELETE", "/services/iris?clear=index")
    assert names(folder) == [name for name in before if name not in ("index.ann", "names.bin")]
    assert len(yard.versions(folder)) == 1


@pytest.mark.parametrize("mode", ["full", "dir"])
def test_clear_full_empties_and_dir_removes_the_folder(yard: Yard, folder: Path, mode: str) -> None:
    filled(yard, folder)
    yard.call("DELETE", f"/services/iris?clear={mode}")
    assert folder.exists() == (mode == "full")
    assert not folder.exists() or names(folder) == []
    assert yard.versions(folder) == []
    assert Sweep(yard.parts)().exported == 0


def test_clear_mem_keeps_all(yard: Yard, folder: Path) -> None:
    filled(yard, folder)
    before = names(folder)
    yard.call("DELETE", "/services/iris?clear=mem")
    assert names(folder) == before
    yard.create("iris", folder)
    assert yard.prediction("iris") == FLOWERS


def test_clear_of_a_repository_without_a_folder_removes_its_versions(yard: Yard) -> None:
    yard.create("iris", "flowers")
    yard.train("iris", 5)
    yard.call("DELETE", "/services/iris?clear=lib")
    assert yard.versions("flowers") == []


# Publishing


def test_target_repository_gets_a_copy_that_a_service_can_serve(yard: Yard, folder: Path) -> None:
    target = yard.data / "published" / "iris"
    yard.create("iris", folder, parameters={"input": {"connector": "csv", "label": "species", "db": False}})
    parameters = {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}}
    yard.create("source", yard.data / "source", parameters=parameters)
    trained = yard.train("source", 7, output={"target_repository": str(target)})
    [warning] = trained["head"]["warnings"]
    assert warning["parameter"] == "parameters.output.target_repository"
    assert "keeps no best model" in warning["message"]
    assert sorted(set(names(target)) - set(REPORTS)) == [
        ".modelyard.json",
        "0007.model",
        "corresp.txt",
        "model.fmap",
        "modelyard.json",
    ]
    assert read(target / "config.json") == {
        "mllib": "xgboost",
        "type": "supervised",
        "description": "iris",
        "model": {"repository": str(target)},
        "parameters": {**parameters, "output": {}},
    }
    assert read(target / "metrics.json")["body"]["measure"] == trained["body"]["measure"]
    assert read(target / "model.json")["parameters"]["mllib"] == {"iterations": 7}
    [version] = yard.versions(target)
    yard.create("published", target)
    assert yard.prediction("published") == FLOWERS
    assert len(yard.versions(target)) == 1
    assert version.description["labels"] == FLOWERS


def test_target_repository_may_be_a_name(yard: Yard) -> None:
    yard.create("iris", "flowers")
    yard.train("iris", 7, output={"target_repository": "published/flowers"})
    yard.create("published", "published/flowers")
    assert yard.prediction("published") == FLOWERS


def test_training_into_its_own_target_is_refused(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    refused = yard.train("iris", 5, output={"target_repository": str(folder)})
    assert refused["body"]["Error"]["dd_code"] == 1006
    assert "the repository of the service itself" in refused["body"]["Error"]["dd_msg"]


def test_copy_to_the_target_waits_for_its_worker_and_is_never_lost(yard: Yard) -> None:
    yard.create("iris", "flowers")
    asked: list[Task] = []

    def stop_after_the_training(task: Task) -> None:
        asked.append(task)
        yard.is_idle = True  # the message about the copy finds nobody

    yard.before = stop_after_the_training
    yard.train("iris", 5, output={"target_repository": "published"})
    [copying] = yard.tasks(Kind.IMPORT)
    assert (copying.state, copying.queue) == (State.QUEUED, "control")
    yard.is_idle = False
    yard.before = lambda task: None
    yard.send_task(copying)
    assert len(yard.versions("published")) == 1
    yard.send_task(copying)
    assert len(yard.versions("published")) == 1


@pytest.mark.parametrize("kind", ["folder", "name"])
def test_service_from_a_repository_predicts_with_its_copy(yard: Yard, folder: Path, kind: str) -> None:
    source = folder if kind == "folder" else Path("flowers")
    target = yard.data / "public" if kind == "folder" else Path("public")
    yard.create("private", source)
    yard.train("private", 7)
    # As DeepDetect's platform sends it: nothing that the training knows already.
    answer = yard.call(
        "PUT",
        "/services/public",
        {
            "mllib": "xgboost",
            "model": {"repository": str(target), "create_repository": True},
            "parameters": {"input": {"connector": "csv"}, "mllib": {"from_repository": str(source)}, "output": {}},
        },
        code=201,
    )
    assert "warnings" not in answer["head"], answer
    assert yard.prediction("public") == FLOWERS
    described = yard.describe("public")
    assert described["parameters"]["mllib"]["nclasses"] == 3
    assert "from_repository" not in described["parameters"]["mllib"]
    assert described["parameters"]["input"]["label"] == "species"
    if kind == "folder":
        config = read(target / "config.json")
        assert config["model"]["repository"] == str(target)
        assert "from_repository" not in config["parameters"]["mllib"]
        assert read(target / "metrics.json")["body"]["measure_hist"]
        assert "training.json" not in names(target)
    yard.train("private", 9)
    assert [each.description["file"] for each in yard.versions(target)] == ["0007.model"]


def test_service_from_a_folder_that_nobody_registered(yard: Yard, folder: Path) -> None:
    put(folder, "0007.model", model(yard, 7))
    put(folder, "0008.model", model(yard, 8), age_s=50)
    put(folder, "corresp.txt", b"0 setosa\n1 versicolor\n2 virginica\n")
    sections = {"input": [{"connector": "csv"}], "mllib": [{"nclasses": 3, "db": True}]}
    config = {"mllib": "xgboost", "parameters": sections}
    put(folder, "config.json", json.dumps(config).encode())
    yard.call(
        "PUT",
        "/services/public",
        {
            "mllib": "xgboost",
            "model": {"repository": "public"},
            "parameters": {"input": {"connector": "csv"}, "mllib": {"from_repository": str(folder)}},
        },
        code=201,
    )
    assert yard.prediction("public") == FLOWERS
    [version] = yard.versions("public")
    assert version.description["file"] == "0007.model"
    assert yard.parts.records.repositories.found_at(version.repository_id, str(folder)) is None
    assert yard.describe("public")["parameters"]["mllib"] == {"nclasses": 3, "db": False}


def test_publishing_takes_what_somebody_put_there_by_hand(yard: Yard, folder: Path) -> None:
    yard.create("private", folder)
    yard.train("private", 7)
    put(folder, "0050.model", model(yard, 50))
    yard.create(
        "public",
        "public",
        parameters={"mllib": {"nclasses": 3, "from_repository": str(folder)}, "input": {"connector": "csv"}},
    )
    assert yard.versions("public")[0].description["file"] == "0050.model"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("nothing/here", "holds no model of xgboost"),
        ("/etc", "outside of the data roots"),
        ("{data}/missing", "holds no model of xgboost"),
        ("{data}/public", "is the repository of the service itself"),
        ("bad name!", "cannot be used"),
    ],
)
def test_nothing_to_publish_is_refused_and_leaves_no_service(yard: Yard, source: str, why: str) -> None:
    mllib = {"nclasses": 3, "from_repository": source.format(data=yard.data)}
    answer = yard.create(
        "public", yard.data / "public", code=400, parameters={"mllib": mllib, "input": {"connector": "csv"}}
    )
    assert answer["status"]["dd_code"] == 1006
    assert why in answer["status"]["dd_msg"]
    yard.call("GET", "/services/public", code=404)


def test_broken_model_to_publish_is_refused_and_leaves_no_service(yard: Yard, folder: Path) -> None:
    put(folder, "0001.model", b"broken")
    mllib = {"nclasses": 3, "from_repository": str(folder)}
    answer = yard.create("public", "public", code=400, parameters={"mllib": mllib, "input": {"connector": "csv"}})
    assert answer["status"]["dd_code"] == 1006
    assert "0001.model" in answer["status"]["dd_msg"]
    yard.call("GET", "/services/public", code=404)
    yard.create("public", "public")


# Who may use a folder


def test_folder_of_another_account_can_be_neither_parent_nor_child_nor_source(yard: Yard, folder: Path) -> None:
    keys = yard.parts.records.keys
    _, ann = keys.create("ann", "")
    _, bob = keys.create("bob", "")
    time.sleep(1.1)  # the app believes for a second that there are no keys
    yard.call("PUT", "/services/iris", yard.body(folder), code=201, key=ann)
    for place in (folder, folder / "inside", yard.data):
        answer = yard.call("PUT", "/services/iris", yard.body(place), code=400, key=bob)
        assert "is not writable or does not exist" in answer["status"]["dd_msg"]
    assert not (folder / "inside").exists()
    stealing = yard.body("mine", parameters={"input": {"connector": "csv"}, "mllib": {"from_repository": str(folder)}})
    answer = yard.call("PUT", "/services/iris", stealing, code=400, key=bob)
    assert "from_repository cannot be used" in answer["status"]["dd_msg"]
    put(folder, "0001.model", model(yard, 1))
    for taking in ({"weights": str(folder / "0001.model")}, {"init": str(folder / "0001.model")}):
        stealing = yard.body("mine", model={"repository": "mine", **taking})
        answer = yard.call("PUT", "/services/iris", stealing, code=400, key=bob)
        assert "cannot be used by this account" in answer["status"]["dd_msg"]
    yard.call("PUT", "/services/inner", yard.body(folder / "inside"), code=201, key=ann)


def test_repository_of_one_engine_is_not_for_another(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    [version] = yard.versions(folder)
    with yard.parts.records.database.write() as connection:
        description = json.dumps({**version.description, "backend": "other"})
        connection.exec_driver_sql("UPDATE versions SET description = ?", (description,))
    answer = yard.create("twin", folder, code=400)
    assert "holds a model of other" in answer["status"]["dd_msg"]


def test_size_of_the_model_is_told(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    assert yard.describe("iris")["model_stats"] == {
        "params": 0,
        "frozen_params": 0,
        "data_mem_train": 0,
        "data_mem_test": 0,
    }
    yard.train("iris", 5)
    [version] = yard.versions(folder)
    with yard.parts.records.database.write() as connection:
        description = json.dumps({**version.description, "params": 1203, "frozen_params": 7})
        connection.exec_driver_sql("UPDATE versions SET description = ?", (description,))
    stats = yard.describe("iris")["model_stats"]
    assert (stats["params"], stats["frozen_params"], stats["size_bytes"]) == (1203, 7, version.size_bytes)
    [listed] = yard.call("GET", "/info")["head"]["services"]
    assert listed["model_stats"] == stats


# Archives


@pytest.fixture
def archive(yard: Yard) -> Path:
    """What a training elsewhere left, packed: its config.json knows more than the requests below."""
    parts = {
        "config.json": json.dumps(
            {
                "mllib": "xgboost",
                "model": {"repository": "/somewhere/else"},
                "parameters": {
                    "input": {"connector": "csv", "label": "species"},
                    "mllib": {"nclasses": 3},
                    "output": {},
                },
            }
        ).encode(),
        "0006.model": model(yard, 6),
        "corresp.txt": b"0 setosa\n1 versicolor\n2 virginica\n",
        "README.md": b"about the model",
    }
    path = yard.data / "iris.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name, content in parts.items():
            member = tarfile.TarInfo(f"iris/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def installing(repository: Path | str, init: Path | str, **more: Any) -> dict[str, Any]:
    return {
        "mllib": "xgboost",
        "model": {"repository": str(repository), "create_repository": True, "init": str(init)},
        "parameters": {"input": {"connector": "csv"}},
        **more,
    }


def test_archive_is_installed_with_the_parameters_of_its_config(yard: Yard, folder: Path, archive: Path) -> None:
    answer = yard.call("PUT", "/services/iris", installing(folder, archive), code=201)
    assert "warnings" not in answer["head"], answer
    assert yard.prediction("iris") == FLOWERS
    described = yard.describe("iris")
    assert described["mltype"] == "classification"
    assert described["parameters"]["mllib"] == {"nclasses": 3}
    assert {"0006.model", "README.md", "config.json", "corresp.txt", "modelyard.json"} <= set(names(folder))
    config = read(folder / "config.json")
    assert config["model"]["repository"] == str(folder)
    assert config["parameters"]["mllib"]["nclasses"] == 3
    yard.train("iris", 4)
    assert "0006.model" in names(folder), "no training made it, so no training takes it away"
    assert yard.versions(folder)[0].description["file"] == "0004.model"
    assert len(yard.versions(folder)) == 2


def test_archive_is_installed_where_there_is_no_folder(yard: Yard, archive: Path) -> None:
    yard.call("PUT", "/services/iris", installing("flowers", archive), code=201)
    assert yard.prediction("iris") == FLOWERS
    yard.call("PUT", "/services/twin", installing("flowers", archive), code=201)
    assert len(yard.versions("flowers")) == 1, "the same files are the same version"


def test_archive_is_fetched_from_a_host_that_the_operator_allows(
    settings: Settings, redis_url: str, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with running_yard(dataclasses.replace(settings, fetch_allow=("127.0.0.1",)), redis_url) as yard:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("0006.model", model(yard, 6))
        parameters = {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}}
        with receiving(answer("200 OK", packed.getvalue())) as server:
            url = f"{server.url}/models/iris.zip?token=secret"
            yard.call("PUT", "/services/iris", installing("flowers", url, parameters=parameters), code=201)
        assert yard.versions("flowers")[0].description["file"] == "0006.model"
        with receiving(answer("404 Not Found")) as server:
            url = f"{server.url}/models/iris.zip?token=secret"
            refused = yard.call("PUT", "/services/twin", installing("other", url, parameters=parameters), code=400)
        assert "status 404" in refused["status"]["dd_msg"]
        assert "secret" not in refused["status"]["dd_msg"]


@pytest.mark.parametrize(
    ("init", "why"),
    [
        ("/etc/passwd", "outside of the data roots"),
        ("{data}/missing.zip", "is no file that lies there"),
        ("{data}", "is no file that lies there"),
        ("{data}/iris.csv", "it is no zip or tar archive"),
        ("http://127.0.0.1:9/a.zip", "MODELYARD_FETCH_ALLOW"),
        ("http://localhost:9/a.zip", "MODELYARD_FETCH_ALLOW"),
    ],
)
def test_archive_that_cannot_be_had_leaves_no_service(yard: Yard, folder: Path, init: str, why: str) -> None:
    answer = yard.call("PUT", "/services/iris", installing(folder, init.format(data=yard.data)), code=400)
    assert answer["status"]["dd_code"] in (1005, 1006)
    assert why in answer["status"]["dd_msg"]
    yard.call("GET", "/services/iris", code=404)
    yard.create("iris", folder)


def test_archive_of_another_library_or_without_a_model_is_refused(yard: Yard, folder: Path) -> None:
    for config, why in (
        ({"mllib": "torch", "parameters": {}}, "holds a model of torch"),
        ({"mllib": "xgboost", "parameters": {"mllib": {"nclasses": 3}}}, "holds no model of xgboost"),
        ({"mllib": "xgboost", "parameters": {"mllib": {"nclasses": 1}}}, "must be at least 2"),
        ({}, "number of classes is unknown"),
    ):
        path = yard.data / "other.zip"
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("config.json", json.dumps(config))
        answer = yard.call("PUT", "/services/iris", installing(folder, path), code=400)
        assert why in answer["status"]["dd_msg"]
        assert answer["status"]["dd_code"] == 1006


def test_archive_and_repository_exclude_each_other(yard: Yard, folder: Path, archive: Path) -> None:
    both = installing(folder, archive)
    both["parameters"]["mllib"] = {"from_repository": "flowers"}
    answer = yard.call("PUT", "/services/iris", both, code=400)
    assert "give one" in answer["status"]["dd_msg"]


# Races and leftovers


def test_second_attempt_finds_nothing_new_after_the_first_took_files_over(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    put(folder, "0009.model", model(yard, 9))
    yard.is_idle = True
    asked = {"service": "iris", "parameters": {"mllib": {"iterations": 5}}, "data": ["iris.csv"]}
    yard.call("POST", "/train", asked, code=201)
    [task] = yard.tasks(Kind.TRAIN)
    parts = yard.parts
    for number in (1, 2):
        attempt = parts.records.tasks.claim(task.id, "worker", 60.0)
        assert attempt is not None
        scratch = yard.data.parent / f"attempt {number}"
        scratch.mkdir()
        with LeaseKeeper(parts.records, parts.live, attempt, 60.0, 5.0) as lease:
            previous = previous_of(parts, attempt, scratch, lease, lambda: False)
        assert previous.told is not None
        assert "0009.model" in previous.told["files"]
        with parts.records.database.write() as connection:  # as if the worker had vanished
            connection.exec_driver_sql("UPDATE tasks SET lease_until = 0")
    assert len(yard.versions(folder)) == 1


def test_training_that_was_taken_over_meanwhile_publishes_nothing_it_found(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    put(folder, "0009.model", model(yard, 9))
    yard.is_idle = True
    asked = {"service": "iris", "parameters": {"mllib": {"iterations": 5}}, "data": ["iris.csv"]}
    yard.call("POST", "/train", asked, code=201)
    [task] = yard.tasks(Kind.TRAIN)
    parts = yard.parts
    attempt = parts.records.tasks.claim(task.id, "worker", 60.0)
    assert attempt is not None
    with parts.records.database.write() as connection:
        connection.exec_driver_sql("UPDATE tasks SET lease_until = 0")
    assert parts.records.tasks.claim(task.id, "another", 60.0) is not None
    with LeaseKeeper(parts.records, parts.live, attempt, 60.0, 5.0) as lease, pytest.raises(Superseded):
        previous_of(parts, attempt, yard.data.parent, lease, lambda: False)
    assert yard.versions(folder) == []


def test_cleaning_keeps_the_files_that_a_training_took_over(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    put(folder, "0009.model", model(yard, 9))
    yard.train("iris", 5, output={"target_repository": "public"})
    time.sleep(0.02)
    settings = dataclasses.replace(yard.parts.settings, attempts_kept_s=0.0)
    clean(dataclasses.replace(yard.parts, settings=settings), grace_s=0.0)
    for version in [*yard.versions(folder), *yard.versions("public")]:
        for artifact in version.artifacts:
            assert yard.parts.objects.exists(artifact.key), artifact.name
    assert len(yard.versions(folder)) == 2


def test_import_that_was_cancelled_publishes_nothing(yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import importing

    real = importing.published

    def cancel_meanwhile(parts: Parts, attempt: Attempt, lease: LeaseKeeper, *found: Any) -> Any:
        yard.call("DELETE", f"/tasks/{attempt.task.id}", code=202)
        wait_until(lambda: lease.is_cancel_requested)
        return real(parts, attempt, lease, *found)

    monkeypatch.setattr(importing, "published", cancel_meanwhile)
    put(folder, "0007.model", model(yard, 7))
    yard.create("iris", folder)
    [task] = yard.tasks(Kind.IMPORT)
    assert task.state is State.CANCELLED
    assert yard.versions(folder) == []


def test_clearing_waits_for_a_copy_that_is_being_written(yard: Yard, folder: Path) -> None:
    yard.create("iris", folder)
    yard.train("iris", 5)
    [version] = yard.versions(folder)
    repositories = yard.parts.records.repositories
    held = repositories.lock_export(version.repository_id, 60)
    assert held is not None

    def end_of_the_copy() -> None:
        time.sleep(0.5)
        put(folder, "0005.model", b"written late")
        repositories.unlock_export(version.repository_id, held)

    writer = threading.Thread(target=end_of_the_copy)
    writer.start()
    yard.call("DELETE", "/services/iris?clear=full")
    writer.join()
    assert names(folder) == []


def test_right_to_write_a_folder_is_kept_up_while_it_is_held(
    yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.folders.LEASE_S", 3.0)
    monkeypatch.setattr("workers.folders._RENEW_S", 0.2)
    yard.create("iris", folder)
    repository = yard.parts.records.repositories.named("local", str(folder))
    with writing(yard.parts, repository.id) as turn:
        assert turn is not None
        time.sleep(3.5)
        with writing(yard.parts, repository.id) as other:
            assert other is None
    with writing(yard.parts, repository.id) as other:
        assert other is not None
