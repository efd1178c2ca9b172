"""Attacks by way of a path, in every field of a request that one can stand in: out of the data roots, and into what
would hold up or mislead whoever opens it.

Each is refused, and nothing of what lies outside is told; and each gets there where the lock that it meets is taken
away, mostly by a data root that takes all in. The attacks go through the API and the workers, on real stores.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import xgboost

from ml import file_bytes
from settings import Settings
from storage.data_roots import DataRoots
from tests.integration.yard import EXAMPLES, Yard, running_yard
from tests.services import RedisServer
from workers import archives
from workers import data as worker_data

pytestmark = pytest.mark.servers

Json = dict[str, Any]
SECRET = "6.25,3.125,1.75,0.5"
"""A row of a table outside, of numbers that no other has."""


def _model() -> bytes:
    rows = [line.split(",") for line in (EXAMPLES / "iris.csv").read_text().splitlines()[1:]]
    data = xgboost.DMatrix([[float(cell) for cell in row[:4]] for row in rows], [int(row[4]) for row in rows])
    options = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    return bytes(xgboost.train(options, data, 2).save_raw("ubj"))


def lay_out(settings: Settings) -> Path:
    """A folder outside of the data root, with a table, a model and an archive; ways to it lead from the root."""
    [root] = settings.data_roots
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text(f"f0,f1,f2,f3\n{SECRET}\n")
    (outside / "train.csv").write_text((EXAMPLES / "iris.csv").read_text())
    (outside / "0002.model").write_bytes(_model())
    with zipfile.ZipFile(outside / "secret.zip", "w") as archive:
        archive.write(outside / "0002.model", "0002.model")
    (root / "sub").mkdir()
    (root / "way").symlink_to(outside)
    (root / "sub" / "way").symlink_to("../way")
    for name in ("secret.csv", "train.csv", "0002.model", "secret.zip"):
        (root / f"link to {name}").symlink_to(outside / name)
    (root / "model").mkdir()
    (root / "model" / "0002.model").write_bytes(_model())
    return outside


def service(yard: Yard, **model: Any) -> Json:
    return {
        "mllib": "xgboost",
        "model": {"repository": str(yard.data / "model"), **model},
        "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {}},
    }


def _settings(folder: Path) -> Settings:
    home, data = folder / "home", folder / "data"
    home.mkdir()
    data.mkdir()
    return Settings(home=home, data_roots=(data,), threads=1)


@contextmanager
def serving(settings: Settings, redis_url: str, root: Path) -> Iterator[Yard]:
    """A server with a service `iris` that has a model, and what lies around."""
    [data] = settings.data_roots
    lay_out(settings)
    with running_yard(dataclasses.replace(settings, data_roots=(root,)), redis_url) as yard:
        yard.data = data
        yard.call("PUT", "/services/iris", service(yard), code=201)
        yield yard


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("locked").resolve()
    with serving(_settings(folder), redis_server.url, folder / "data") as yard:
        yield yard


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Yard]:
    """The same without the lock: its data root takes in what lies outside of that of `locked`."""
    folder = tmp_path_factory.mktemp("unlocked").resolve()
    with serving(_settings(folder), redis_server.url, folder) as yard:
        yield yard


_numbers = itertools.count()


def fresh(name: str) -> str:
    """A name that no test before has used."""
    return f"{name}{next(_numbers)}"


WAYS = [
    "{outside}/{name}",
    "{root}/../outside/{name}",
    "{root}/sub/../../outside/{name}",
    "{root}//..//outside/./{name}",
    "{root}/way/{name}",
    "{root}/sub/way/{name}",
    "{root}/link to {name}",
    "file://{outside}/{name}",
    "file://localhost{outside}/{name}",
    "file://{root}/%2e%2e/outside/{name}",
    "/proc/self/root{outside}/{name}",
]
"""Ways to a file outside, each of which leads there on this machine."""


OUTSIDE = {"0002.model", "secret.csv", "secret.zip", "train.csv"}


def way(pattern: str, yard: Yard, name: str) -> str:
    return pattern.format(root=yard.data, outside=yard.data.parent / "outside", name=name)


# Data


def predict(yard: Yard, data: list[str]) -> Any:
    return yard.client.post("/predict", json={"service": "iris", "parameters": {}, "data": data})


@pytest.mark.parametrize("pattern", WAYS)
def test_predictions_read_nothing_outside(pattern: str, locked: Yard, unlocked: Yard):
    answer = predict(locked, [way(pattern, locked, "secret.csv")])
    assert answer.status_code == 400
    assert "outside of the data roots" in answer.json["status"]["dd_msg"]
    # The lock open:
    assert predict(unlocked, [way(pattern, unlocked, "secret.csv")]).status_code == 200


@pytest.mark.parametrize("place", [0, 1])
def test_trainings_read_nothing_outside_neither_to_learn_nor_to_test(place: int, locked: Yard, unlocked: Yard):
    def train(yard: Yard) -> Any:
        shutil.copy(EXAMPLES / "iris.csv", yard.data / "iris.csv")
        data = [str(yard.data / "iris.csv")] * (place + 1)
        data[place] = way("{root}/way/{name}", yard, "train.csv")
        label = (EXAMPLES / "iris.csv").read_text().split("\n", 1)[0].split(",")[-1]
        parameters = {"input": {"label": label}, "mllib": {"iterations": 2}, "output": {"measure": ["acc"]}}
        body = {"service": "iris", "async": False, "parameters": parameters, "data": data}
        return yard.client.post("/train", json=body)

    assert train(locked).status_code == 400
    # The lock open:
    answer = train(unlocked)
    assert answer.status_code == 201, answer.text


FOREIGN = [
    "\uff0f\uff45tc\uff0fpasswd",
    "\uff0e\uff0e/outside/secret.csv",
    "\u2025/outside/secret.csv",
    "..\u2215outside\u2215secret.csv",
    "%2e%2e/outside/secret.csv",
    "%252e%252e%252foutside%252fsecret.csv",
    "..%2foutside%2fsecret.csv",
    "..\\outside\\secret.csv",
    "../outside/secret.csv",
    "./../outside/secret.csv",
    "way/secret.csv",
    "{root}/way/secret.csv\0.csv",
    "{root}/" + "sub/../" * 2000 + "../outside/secret.csv",
    "{root}/" + "n" * 300,
    "file://elsewhere/etc/passwd",
    "file:///etc/passwd%00.csv",
    "/proc/self/environ",
    "/proc/1/root/etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "dataset://a/../../outside/secret.csv",
    "dataset://../secret.csv",
    "dataset://a/%2e%2e/secret.csv",
]
"""What some reader of paths somewhere takes for a way out, or what must not be opened at all."""


@pytest.mark.parametrize("entry", FOREIGN, ids=ascii)
def test_other_spellings_of_a_way_out_are_none(entry: str, locked: Yard):
    for data in ([entry.format(root=locked.data)], [str(locked.data / "sub"), entry.format(root=locked.data)]):
        answer = predict(locked, data)
        assert 400 <= answer.status_code < 500, answer.text
        assert SECRET not in answer.text
        assert "root:" not in answer.text
        assert "PATH=" not in answer.text


def test_memory_of_a_process_is_no_file_even_where_the_root_is_everything(tmp_path: Path, redis_url: str):
    # No lock is open here but that on the roots: a file whose size the kernel makes up as it is read is still none.
    with serving(_settings(tmp_path), redis_url, Path("/")) as yard:
        for path in ("/proc/self/environ", "/dev/zero", "/dev/null"):
            answer = predict(yard, [path])
            assert answer.status_code == 400
            assert "PATH=" not in answer.text
        assert predict(yard, [str(tmp_path / "outside" / "secret.csv")]).status_code == 200


# What cannot be read, or would be waited at


def test_pipes_and_sockets_and_folders_are_no_files_and_nobody_waits_at_them(locked: Yard):
    os.mkfifo(locked.data / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(locked.data)  # the path of a socket is short
        try:
            server.bind("socket")
        finally:
            os.chdir(before)
        for name in ("pipe", "socket", "sub"):
            answer = predict(locked, [str(locked.data / name)])
            assert answer.status_code == 400
            assert "requires a CSV file" in answer.json["status"]["dd_msg"]


def test_file_of_nothing_but_holes_is_not_read_to_its_end(locked: Yard):
    with (locked.data / "holes.csv").open("wb") as file:
        file.truncate(2**40)
    answer = predict(locked, [str(locked.data / "holes.csv")])
    assert answer.status_code == 400
    assert "it holds NUL bytes" in answer.json["status"]["dd_msg"]


# Links that are put in the place of folders between look and opening


@pytest.fixture
def exchanging(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a folder exchanged for a link as soon as it was looked, for the last time, where a path leads."""

    def exchange(folder: Path, target: Path, looks: int = 1) -> None:
        resolve = DataRoots.resolve
        seen: list[str] = []

        def then(self: DataRoots, path: str) -> Path:
            found = resolve(self, path)
            seen.append(path)
            if len(seen) == looks:
                folder.rename(folder.with_name(fresh("was here")))
                folder.symlink_to(target)
            return found

        monkeypatch.setattr(DataRoots, "resolve", then)

    return exchange


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "the lock open"])
def test_link_in_the_place_of_a_folder_leads_no_prediction_out(
    is_locked: bool, locked: Yard, exchanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    fair = locked.data / fresh("fair")
    fair.mkdir()
    (fair / "secret.csv").write_text("f0,f1,f2,f3\n1,2,3,4\n5,6,7,8\n")
    if not is_locked:
        monkeypatch.setattr(file_bytes, "open_unlinked", lambda path: os.open(path, os.O_RDONLY))
    assert predict(locked, [str(fair / "secret.csv")]).status_code == 200  # kept ready, as by a client
    exchanging(fair, locked.data.parent / "outside", looks=2)  # that of the API and that of the worker
    answer = predict(locked, [str(fair / "secret.csv")])
    if is_locked:
        assert answer.status_code == 400
    else:
        assert len(answer.json["body"]["predictions"]) == 1, "the row outside, not the two inside"


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "the lock open"])
def test_link_in_the_place_of_a_folder_tells_no_names(
    is_locked: bool, tmp_path: Path, exchanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "root"
    (root / "fair").mkdir(parents=True)
    (root / "fair" / "a.csv").write_text("1,2\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_text("1,2\n")
    if not is_locked:
        monkeypatch.setattr(worker_data, "open_unlinked", lambda path: os.open(path, os.O_RDONLY))
    exchanging(root / "fair", tmp_path / "outside")
    try:
        found = worker_data.sources([str(root / "fair")], DataRoots((root,)), with_folders=True)
    except worker_data.BadInput:
        assert is_locked
    else:
        assert not is_locked
        assert [each["name"] for each in found] == [f"{root}/fair/secret.csv"]


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "the lock open"])
def test_link_in_the_place_of_a_folder_has_no_archive_unpacked(
    is_locked: bool, locked: Yard, exchanging: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    fair, name = locked.data / fresh("fair"), fresh("taken")
    fair.mkdir()
    (fair / "secret.zip").write_bytes(b"no archive")
    if not is_locked:
        monkeypatch.setattr(archives, "open_unlinked", lambda path: os.open(path, os.O_RDONLY))
    monkeypatch.setattr(locked, "before", lambda task: exchanging(fair, locked.data.parent / "outside"))
    body = service(locked, repository=name, create_repository=True, init=str(fair / "secret.zip"))
    answer = locked.client.put(f"/services/{name}", json=body)
    assert answer.status_code == (400 if is_locked else 201), answer.text


# Repositories, models and archives


@pytest.mark.parametrize("pattern", WAYS[2:8:2])
def test_no_archive_outside_is_installed(pattern: str, locked: Yard, unlocked: Yard):
    for yard, code in ((locked, 400), (unlocked, 201)):
        name = fresh("taken")
        body = service(yard, repository=name, create_repository=True, init=way(pattern, yard, "secret.zip"))
        answer = yard.client.put(f"/services/{name}", json=body)
        assert answer.status_code == code, answer.text


@pytest.mark.parametrize("pattern", WAYS[1:7:2])
def test_no_weights_outside_are_taken(pattern: str, locked: Yard, unlocked: Yard):
    for yard, code in ((locked, 400), (unlocked, 201)):
        name = fresh("taken")
        body = service(yard, repository=name, create_repository=True, weights=way(pattern, yard, "0002.model"))
        answer = yard.client.put(f"/services/{name}", json=body)
        assert answer.status_code == code, answer.text


@pytest.mark.parametrize("name", ["../outside/0002.model", "..", ".", "0002.model\0", "a\\..\\b", "\uff0e\uff0e"])
def test_names_of_weights_are_names(name: str, locked: Yard):
    answer = locked.client.put("/services/taken", json=service(locked, weights=name))
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    "pattern",
    [
        "{outside}/{name}",
        "{root}/../outside/{name}",
        "{root}/way/{name}",
        "{root}/sub/way/{name}",
        "/proc/self/root{outside}/{name}",
    ],
)
def test_no_repository_is_made_outside(pattern: str, locked: Yard, unlocked: Yard):
    name = fresh("made")
    for yard in (locked, unlocked):
        body = service(yard, repository=way(pattern, yard, name), create_repository=True)
        answer = yard.client.put(f"/services/{name}", json=body)
        is_open = yard is unlocked
        assert answer.status_code == (201 if is_open else 400), answer.text
        assert (yard.data.parent / "outside" / name).is_dir() is is_open


@pytest.mark.parametrize(
    "name",
    [
        "../outside/made",
        "..",
        ".",
        "a/../../b",
        "a//b",
        "a/",
        "\uff0e\uff0e/b",
        "a\\b",
        "a\0b",
        "%2e%2e/b",
        "a" * 200,
        "a/" * 20,
    ],
)
def test_names_of_repositories_in_the_store_are_names(name: str, locked: Yard):
    answer = locked.client.put("/services/other", json=service(locked, repository=name, create_repository=True))
    assert answer.status_code == 400, answer.text
    assert not (locked.data.parent / "outside" / "made").exists()


@pytest.mark.parametrize("field", ["from_repository", "target_repository"])
def test_no_model_is_copied_from_or_to_what_lies_outside(field: str, locked: Yard):
    outside = str(locked.data / "way")
    if field == "from_repository":
        body = service(locked, repository="other", create_repository=True)
        body["parameters"]["mllib"]["from_repository"] = outside
        answer = locked.client.put("/services/other", json=body)
    else:
        parameters = {"input": {}, "mllib": {"iterations": 1}, "output": {field: f"{outside}/made"}}
        body = {"service": "iris", "async": False, "parameters": parameters, "data": [str(locked.data / "iris.csv")]}
        answer = locked.client.post("/train", json=body)
    assert answer.status_code == 400, answer.text
    assert not (locked.data.parent / "outside" / "made").exists()


@pytest.mark.parametrize("clear", ["full", "dir", "lib"])
def test_clearing_through_a_link_clears_nothing_outside(clear: str, locked: Yard):
    """The folder of a repository is exchanged for a link before it is cleared."""
    name = fresh("cleared")
    folder = locked.data / name
    locked.call("PUT", f"/services/{name}", service(locked, repository=str(folder), create_repository=True), code=201)
    folder.rename(locked.data / fresh("was here"))
    folder.symlink_to(locked.data.parent / "outside")
    locked.client.delete(f"/services/{name}", json={"clear": clear})
    assert set(os.listdir(locked.data.parent / "outside")) >= OUTSIDE


# Names in addresses

ODD = [
    "..", ".", "%2e%2e", "%252e%252e", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "a%5c..%5cb", "a%00b",
    "%c0%ae%c0%ae",
    "%ef%bc%8e%ef%bc%8e", "a%0d%0aX-Evil:%201", "n" * 5000, "%f0%9f%92%a3", "%1b%5b31m",
]  # fmt: skip
ROUTES = [
    ("GET", "/services/{}"),
    ("DELETE", "/services/{}"),
    ("GET", "/datasets/{}"),
    ("DELETE", "/datasets/{}"),
    ("DELETE", "/datasets/flowers/files/{}"),
    ("GET", "/datasets/flowers/uploads/{}"),
    ("PUT", "/datasets/flowers/uploads/1/parts/{}"),
    ("GET", "/docs/{}"),
    ("GET", "/tasks/{}"),
    ("GET", "/tasks/{}/result"),
    ("DELETE", "/tasks/{}"),
]


@pytest.mark.parametrize(("verb", "route"), ROUTES, ids=[" ".join(each) for each in ROUTES])
def test_no_name_in_an_address_leads_anywhere(verb: str, route: str, locked: Yard):
    locked.client.put("/datasets/flowers")
    for name in ODD:
        answer = locked.client.open(route.format(name), method=verb)
        if answer.status_code == 308 or name in {"..", "."}:
            continue  # two slashes were made one, or the client itself took it for a way: it is of another route
        assert 400 <= answer.status_code < 500, (name[:50], answer.text)
        assert "Evil" not in answer.headers
        assert "root:" not in answer.text
    assert set(os.listdir(locked.data.parent / "outside")) >= OUTSIDE


@pytest.mark.parametrize(
    "name",
    [
        "../a.csv",
        "/etc/passwd",
        "a/../../b.csv",
        "a\\b.csv",
        "a\0b.csv",
        ".hidden",
        "a/.hidden",
        "a//b",
        "n" * 300,
        "a\nb",
        "\x1b[31m",
        "",
    ],
)
def test_names_of_files_in_a_form_lie_in_the_data_set(name: str, locked: Yard):
    locked.client.put("/datasets/flowers")
    answer = locked.client.post("/datasets/flowers/files", data={"file": (io.BytesIO(b"1,2\n"), name)})
    if answer.status_code == 201:
        [file] = answer.json["files"]
        assert ".." not in file["path"]
        assert file["path"].isprintable()
    else:
        assert answer.status_code == 400, answer.text
    for folder in ("../../out", "/etc", "a/../..", "a\\b", "\uff0e\uff0e\\"):
        answer = locked.client.post(
            f"/datasets/flowers/files?folder={folder}", data={"file": (io.BytesIO(b"1,2\n"), "a.csv")}
        )
        assert answer.status_code == 400, answer.text
        begun = {"path": f"{folder}/a.csv", "bytes": 3}
        assert locked.client.post("/datasets/flowers/uploads", json=begun).status_code == 400


def test_names_of_data_sets_lead_nowhere(locked: Yard):
    for name in ("..%2f..%2fout", "%2e%2e", "a%5cb", "a%00", "%0a", "a%1b%5b31m", "n" * 300):
        assert locked.client.put(f"/datasets/{name}").status_code in (400, 404), name


@pytest.mark.parametrize(
    "name", ["../../outside/x", "/etc/passwd", "..", "mlp\0", "\uff0e\uff0e/x", "os.system", "__init__"]
)
def test_templates_are_names_of_a_list(name: str, locked: Yard):
    body = service(locked, repository="other", create_repository=True, templates=str(locked.data.parent / "outside"))
    body["mllib"] = "torch"
    body["parameters"]["mllib"]["template"] = name
    answer = locked.client.put("/services/other", json=body)
    assert answer.status_code == 400, answer.text
