"""xgboost on sparse tables and on tables that are read from disk: the numbers of xgboost itself, and exact resume."""

import errno
import importlib
import os
import types

import numpy as np
import pytest
import xgboost
from sklearn import datasets

from ml.backends import xgboost as backend
from ml.backends import xgboost_matrices as matrices
from ml.connectors import columnar, csr_file
from ml.connectors.columnar import ColumnarWriter
from ml.connectors.csr_file import CsrWriter
from ml.errors import BadInput, BadParameter
from ml.options import load_training
from ml.options.target import Target
from ml.tables import TrainingData
from tests.unit.ml.backends.boosting import begin, bytes_of, options, run, state_of, tables

SETS = {
    "digits": (datasets.load_digits, {"nclasses": 10, "iterations": 8}),
    "breast cancer": (datasets.load_breast_cancer, {"nclasses": 2, "objective": "binary:logistic", "iterations": 16}),
    "diabetes": (datasets.load_diabetes, {"ntargets": 1, "iterations": 16}),
}
WAYS = {
    "plain": {},
    "rows": {"subsample": 0.6},
    "columns": {"colsample": 0.5, "colsample_bynode": 0.7, "subsample": 0.7},
    "leaves": {"grow_policy": "lossguide", "max_leaves": 8},
    "gradients": {"sampling_method": "gradient_based", "subsample": 0.5},
    "few bins": {"max_bin": 16},
}


def data_of(name, sparse=False):
    loader, mllib = SETS[name]
    features, labels = loader(return_X_y=True)
    return tables(features, labels, options(mllib).mllib.target, sparse=sparse), mllib


def on_disk(data, folder, monkeypatch, chunks=4):
    """The same tables in files, in some chunks."""
    is_dense = isinstance(data.train.features, np.ndarray)
    size = (data.train.features.nbytes if is_dense else data.train.features.nnz * 8) // chunks
    monkeypatch.setattr(columnar, "BATCH_BYTES", size)
    monkeypatch.setattr(csr_file, "CHUNK_BYTES", size)
    made = []
    for table in (data.train, *data.tests):
        place = folder / f"table {len(made)}"
        if is_dense:
            writer = ColumnarWriter(place, table.width)
            writer.append(table.features, table.labels)
            made.append(writer.finish(table.name))
        else:
            writer = CsrWriter(place)
            writer.append(table.features, table.labels)
            made.append(writer.finish(table.name, table.width))
    assert len(list(made[0].chunks())) > 1
    return TrainingData(made[0], made[1:], data.fitted, {}, [])


def plain_parameters(mllib, **more):
    if "ntargets" in mllib:
        kind = {"objective": "reg:squarederror"}
    elif "objective" in mllib:
        kind = {"objective": mllib["objective"]}
    else:
        kind = {"objective": "multi:softprob", "num_class": mllib["nclasses"]}
    return {**kind, "nthread": 1, "disable_default_eval_metric": True, **more}


# Sparse


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_a_sparse_table_gives_the_bytes_of_xgboost_itself(tmp_path, name, booster):
    data, mllib = data_of(name, sparse=True)
    rounds = mllib["iterations"]
    trainer = begin(options(mllib, booster=booster), data)
    last = run(trainer, rounds)[-1]
    more = {"booster": booster, **({"updater": "coord_descent"} if booster == "gblinear" else {})}
    train = xgboost.DMatrix(data.train.features, label=data.train.labels)
    expected = xgboost.train(plain_parameters(mllib, **more), train, rounds)
    assert bytes_of(trainer, tmp_path, rounds) == bytes(expected.save_raw("ubj"))
    direct = expected.predict(xgboost.DMatrix(data.tests[0].features))
    assert np.array_equal(last[:, 1] if name == "breast cancer" else last.reshape(direct.shape), direct)


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_what_a_sparse_row_does_not_hold_is_missing_in_predictions_too(tmp_path, booster):
    data, mllib = data_of("digits", sparse=True)
    trainer = begin(options(mllib, booster=booster), data)
    expected = run(trainer, 8)[-1]
    file = trainer.save_model(tmp_path, 8)
    description = {"file": file, "target": trainer._options.target.as_json()}
    engine = backend.load(tmp_path, description, device="cpu", threads=1)
    features = data.tests[0].features
    assert np.array_equal(engine.predict(features), expected)
    dense = features.toarray()
    dense[dense == 0] = np.nan
    if booster == "gbtree":
        assert np.array_equal(engine.predict(dense), expected)
        assert not np.array_equal(engine.predict(features.toarray()), expected)
    with pytest.raises(BadInput, match="the data has 63 features, the model was trained with 64"):
        engine.predict(features[:, :63])


@pytest.mark.parametrize("way", ["plain", "columns"])
def test_a_sparse_training_resumes_exactly(tmp_path, way):
    data, mllib = data_of("digits", sparse=True)
    wanted = options({**mllib, "iterations": 20}, booster_params=WAYS[way])
    whole, first = begin(wanted, data), begin(wanted, data)
    run(whole)
    run(first, 16)
    second = begin(wanted, data, resume=state_of(first, tmp_path / "state"))
    run(second)
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


# On disk


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_a_table_on_disk_gives_the_model_and_the_tests_that_it_gives_in_memory(tmp_path, monkeypatch, name, sparse):
    data, mllib = data_of(name, sparse)
    rounds = mllib["iterations"]
    memory = begin(options(mllib), data)
    disk = begin(options(mllib), on_disk(data, tmp_path, monkeypatch), scratch=tmp_path)
    for one, other in zip(run(memory, rounds), run(disk, rounds), strict=True):
        assert np.array_equal(one, other)
    assert bytes_of(disk, tmp_path / "disk") == bytes_of(memory, tmp_path / "memory")


@pytest.mark.parametrize(
    ("way", "sparse", "booster"),
    [
        *((way, False, "gbtree") for way in WAYS),
        ("columns", True, "gbtree"),
        ("plain", False, "dart"),
        ("rows", True, "dart"),
    ],
)
def test_a_training_on_disk_resumes_exactly(tmp_path, monkeypatch, way, sparse, booster):
    data, mllib = data_of("breast cancer", sparse)
    parameters = {**WAYS[way], **({"rate_drop": 0.3, "skip_drop": 0.2} if booster == "dart" else {})}
    wanted = options(mllib, booster=booster, booster_params=parameters, seed=3)
    places = iter(range(9))

    def fresh(**more):
        place = next(places)
        tables = on_disk(data, tmp_path / str(place), monkeypatch)
        return begin(wanted, tables, threads=2, scratch=tmp_path / str(place), **more)

    whole, first = fresh(), fresh()
    outputs = run(whole, 16)
    run(first, 8)
    second = fresh(resume=state_of(first, tmp_path / "state"))
    assert all(np.array_equal(one, other) for one, other in zip(outputs[8:], run(second, 16), strict=True))
    assert bytes_of(second, tmp_path / "second") == bytes_of(whole, tmp_path / "whole")


def test_pages_that_find_no_room_are_told_and_leave_nothing(tmp_path, monkeypatch):
    """xgboost itself would end the process."""
    data, mllib = data_of("diabetes")

    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tables = on_disk(data, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        BadInput, match=r"the disk is full: parameters\.input\.db keeps the table on disk, and 0\.0 MiB"
    ):
        begin(options(mllib), tables, scratch=tmp_path)
    assert list((tmp_path / "pages").iterdir()) == []


def test_room_for_pages_is_room_for_what_is_written(tmp_path, monkeypatch):
    asked = []
    real = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *where: (asked.append(where[2]), real(*where)))
    for name in SETS:
        for sparse in (False, True):
            data, mllib = data_of(name, sparse)
            place = tmp_path / f"{name} {sparse}"
            tables = on_disk(data, place, monkeypatch)
            asked.clear()
            trainer = begin(options(mllib), tables, scratch=place)
            first_pass = asked[: len(list(tables.train.chunks()))]
            [pages] = [path for path in (place / "pages").iterdir() if path.name.startswith("train")]
            assert pages.stat().st_size <= sum(first_pass) / 2  # room is asked for two pages at a time
            del trainer  # which takes its pages away


def test_pages_are_removed_with_the_training(tmp_path, monkeypatch):
    data, mllib = data_of("diabetes")
    trainer = begin(options(mllib), on_disk(data, tmp_path, monkeypatch), scratch=tmp_path)
    trainer.step()
    assert list((tmp_path / "pages").iterdir())
    del trainer
    assert not list((tmp_path / "pages").iterdir())


def test_metrics_of_xgboost_are_computed_on_disk_too(tmp_path, monkeypatch):
    data, mllib = data_of("diabetes")
    wanted = options(mllib, eval_metric=["mae", "rmse"])
    memory = begin(wanted, data)
    disk = begin(wanted, on_disk(data, tmp_path, monkeypatch), scratch=tmp_path)
    for trainer in (memory, disk):
        run(trainer, 5)
    outputs, own = disk.test(0)
    assert own == memory.test(0)[1]
    assert own["mae"] == pytest.approx(np.abs(outputs - data.tests[0].labels).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["several targets", "multi label", "weights", "ignored", "vectors"])
def test_all_kinds_of_labels_can_be_read_from_disk(tmp_path, monkeypatch, kind):
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 4))
    several = np.stack([features[:, 0], -features[:, 1]], axis=1)
    classes = (features[:, 0] > 0.5).astype(int) + (features[:, 1] > 0)
    labels, mllib = {
        "several targets": (several, {"ntargets": 2}),
        "vectors": (several, {"ntargets": 2, "booster_params": {"multi_strategy": "multi_output_tree"}}),
        "multi label": (several > 0, {"nclasses": 2, "multi_label": True}),
        "weights": (classes, {"nclasses": 3, "class_weights": [1, 5, 0.2]}),
        "ignored": (np.where(random.uniform(size=300) < 0.2, -1, classes), {"nclasses": 3, "ignore_label": -1}),
    }[kind]
    wanted = options({"iterations": 6, **mllib}, label=["y0", "y1"] if labels.ndim == 2 else ["y0"])
    data = tables(features, labels, wanted.mllib.target)
    memory = begin(wanted, data)
    disk = begin(wanted, on_disk(data, tmp_path, monkeypatch), scratch=tmp_path)
    assert all(np.array_equal(one, other) for one, other in zip(run(memory, 6), run(disk, 6), strict=True))
    assert bytes_of(disk, tmp_path / "disk") == bytes_of(memory, tmp_path / "memory")


def test_a_chunk_whose_rows_all_do_not_count_is_passed_over(tmp_path, monkeypatch):
    features = np.arange(600, dtype=np.float32).reshape(-1, 2)
    labels = np.where(np.arange(300) < 150, 7, np.arange(300) % 2).astype(np.int32)
    wanted = options({"iterations": 3, "nclasses": 2, "ignore_label": 7})
    data = tables(features, labels, wanted.mllib.target)
    order = np.argsort(data.train.features[:, 0])  # the rows that do not count come first
    data.train.features, data.train.labels = data.train.features[order], data.train.labels[order]
    disk = begin(wanted, on_disk(data, tmp_path, monkeypatch), scratch=tmp_path)
    memory = begin(wanted, data)
    assert np.array_equal(run(disk, 3)[-1], run(memory, 3)[-1])


@pytest.mark.parametrize(
    ("mllib", "text"),
    [
        ({"booster": "gblinear"}, "the booster gblinear needs its table in memory"),
        ({"booster_params": {"tree_method": "exact"}}, "is 'exact', which needs its table in memory; use 'hist'"),
        ({"booster_params": {"tree_method": "approx"}}, "is 'approx', which needs its table in memory"),
    ],
)
@pytest.mark.parametrize("where", ["input", "mllib"])
def test_what_cannot_read_from_disk_is_refused_before_anything_is_read(mllib, text, where):
    sections = {"input": {"label": "y"}, "mllib": {"nclasses": 2, "iterations": 1, **mllib}}
    sections[where]["db"] = True
    with pytest.raises(BadParameter, match=text):
        load_training("xgboost", "csv", sections)


def test_labels_that_the_objective_is_not_made_for_are_found_on_disk(tmp_path, monkeypatch):
    data, mllib = data_of("diabetes")
    labels = np.array(data.train.labels)
    labels[-1] = -1
    data.train.labels = labels
    wanted = options({**mllib, "objective": "count:poisson"})
    with pytest.raises(BadInput, match="objective count:poisson needs labels at least 0; train has -1"):
        begin(wanted, on_disk(data, tmp_path, monkeypatch), scratch=tmp_path)


def test_blocks_follow_what_a_table_holds(tmp_path, monkeypatch):
    data, _ = data_of("digits", sparse=True)
    drawing = options({"nclasses": 10}, booster_params={"subsample": 0.5}).mllib
    monkeypatch.setattr(backend, "SMALL_WORK", data.train.features.nnz * 10)
    assert backend.block_size(drawing, data) == 1
    assert backend.block_size(drawing, on_disk(data, tmp_path, monkeypatch)) == 1
    monkeypatch.setattr(backend, "SMALL_WORK", data.train.features.nnz * 10 + 1)
    assert backend.block_size(drawing, data) == backend.SMALL_BLOCK
    assert backend.block_size(drawing, on_disk(data, tmp_path, monkeypatch)) == backend.SMALL_BLOCK


# A GPU


class WithGpu:
    """The library, built for a GPU."""

    @staticmethod
    def build_info():
        return {"USE_CUDA": True}


def device_for(monkeypatch, data, modules=(), **mllib):
    real = importlib.import_module

    def imported(name, *rest):
        if name in ("cupy", "torch"):
            found = dict(modules).get(name)
            if found is None:
                raise ImportError(name)
            return found
        return real(name, *rest)

    monkeypatch.setattr(matrices.importlib, "import_module", imported)
    device, warnings = backend._device(WithGpu, options({"nclasses": 2, **mllib}).mllib, data, "cuda:1")
    return device, [message for _, message in warnings]


def test_a_gpu_is_used_when_there_is_one(monkeypatch):
    data, _ = data_of("breast cancer")
    assert device_for(monkeypatch, data) == ("cuda:1", [])
    sparse, _ = data_of("breast cancer", sparse=True)
    assert device_for(monkeypatch, sparse) == ("cuda:1", [])


@pytest.mark.parametrize(
    ("mllib", "text"),
    [
        ({"booster": "gblinear"}, "no GPU is used, but the CPU: the booster gblinear does not know it"),
        ({"booster_params": {"tree_method": "exact"}}, "the tree_method exact does not know it"),
    ],
)
def test_what_a_gpu_cannot_do_is_done_without_and_told(monkeypatch, mllib, text):
    data, _ = data_of("breast cancer")
    device, (message,) = device_for(monkeypatch, data, **mllib)
    assert device == "cpu"
    assert text in message


def test_tables_on_disk_go_to_a_gpu_by_cupy_or_torch(tmp_path, monkeypatch):
    data, _ = data_of("breast cancer")
    disk = on_disk(data, tmp_path / "dense", monkeypatch)
    device, (message,) = device_for(monkeypatch, disk)
    assert device == "cpu"
    assert "needs cupy, or torch with GPU support" in message
    devices = []

    class Device:
        def __init__(self, number):
            devices.append(number)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(Device=Device), asarray=lambda array: ("moved", array))
    assert device_for(monkeypatch, disk, [("cupy", cupy)]) == ("cuda:1", [])
    assert matrices.mover("cuda:1")("rows") == ("moved", "rows")
    assert devices == [1]

    class Tensor:
        def __init__(self, array):
            self.array = array

        def to(self, device):
            return device, self.array.tolist()

    torch = types.SimpleNamespace(from_numpy=Tensor, cuda=types.SimpleNamespace(is_available=lambda: True))
    assert device_for(monkeypatch, disk, [("torch", torch)]) == ("cuda:1", [])
    assert matrices.mover("cuda")(np.ones(2)) == ("cuda:0", [1, 1])
    torch.cuda.is_available = lambda: False
    assert device_for(monkeypatch, disk, [("torch", torch)])[0] == "cpu"
    sparse, _ = data_of("breast cancer", sparse=True)
    device, (message,) = device_for(monkeypatch, on_disk(sparse, tmp_path / "sparse", monkeypatch), [("cupy", cupy)])
    assert device == "cpu"
    assert "cannot take sparse tables from disk" in message


def test_chunks_are_moved_before_xgboost_gets_them(tmp_path, monkeypatch):
    data, _ = data_of("breast cancer")
    disk = on_disk(data, tmp_path, monkeypatch)
    moved = []

    def move(array):
        moved.append(len(array))
        return np.array(array)

    rows = matrices.Rows(Target("classification", classes=2), (), is_training=True)
    made = matrices.on_disk(xgboost, disk.train, rows, tmp_path / "page", threads=1, max_bin=64, move=move)
    assert made.num_row() == len(disk.train)
    assert sum(moved) % len(disk.train) == 0
    assert made.num_col() == data.train.width
