"""The connector svm: features by id, labels, test sets, tables on disk, and what predictions remember."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from ml.connectors import csr_file, svm, svm_ids
from ml.connectors.csr_file import CsrFile, CsrWriter
from ml.connectors.source import FileSource, LinesSource
from ml.errors import BadInput, BadParameter, ModelUnusable
from ml.options import load_training
from ml.options.svm import SvmOptions
from ml.options.target import Target

TWO, THREE = Target("classification", classes=2), Target("classification", classes=3)
NUMBER, SAME = Target("regression", targets=1), Target("autoencoder")


def lines(*given):
    return LinesSource(given)


def read(*sources, target=TWO, scratch=None, threads=1, **options):
    return svm.read_training(sources, SvmOptions(**options), target, threads=threads, scratch=scratch)


def whole(table):
    """Features as a dense array, and labels, of a table in memory or on disk."""
    chunks = list(table.chunks())
    features = np.concatenate([chunk.features.toarray() for chunk in chunks])
    return features, None if table.labels is None else np.asarray(table.labels)


ROWS = ("0 1:1 3:2", "1 2:5", "0 3:7 9:1", "1 1:4 9:2", "0")


# Features


def test_features_are_the_ids_of_the_training_data_in_order():
    data = read(lines(*ROWS))
    features, labels = whole(data.train)
    assert data.fitted.inputs == ["1", "2", "3", "9"]
    assert features.tolist() == [[1, 0, 2, 0], [0, 5, 0, 0], [0, 0, 7, 1], [4, 0, 0, 2], [0, 0, 0, 0]]
    assert data.train.features.dtype == np.float32
    assert labels.tolist() == [0, 1, 0, 1, 0]
    assert labels.dtype == np.int32
    assert data.report == {"connector": "svm"}
    assert data.warnings == []


def test_a_stored_zero_stays_stored():
    data = read(lines("0 1:0 2:1", "1 2:0"))
    assert data.train.features.nnz == 3


@pytest.mark.parametrize("db", [False, True])
def test_a_real_table_is_that_of_scikit_learn(tmp_path, db):
    features, labels = datasets.load_digits(return_X_y=True)
    path = tmp_path / "digits.svm"
    dump_svmlight_file(features, labels, str(path), zero_based=False)
    data = read(
        FileSource(path, "digits.svm"), target=Target("classification", classes=10), db=db, scratch=tmp_path, threads=2
    )
    expected, truth = load_svmlight_file(str(path), dtype=np.float32)
    seen = np.unique(expected.indices)
    found, classes = whole(data.train)
    assert np.array_equal(found, expected.toarray()[:, seen])
    assert np.array_equal(classes, truth)
    assert data.fitted.ids.tolist() == (seen + 1).tolist()


def test_ids_far_apart_cost_nothing():
    data = read(lines(f"0 0:1 {2**62}:2", f"1 {2**33}:3 {2**62}:4"))
    assert data.fitted.ids.tolist() == [0, 2**33, 2**62]
    assert whole(data.train)[0].tolist() == [[1, 0, 2], [0, 3, 4]]


def test_ids_are_gathered_in_any_order_and_found_again():
    random = np.random.default_rng(0)
    few, many = random.integers(0, 3000, 5000), random.integers(0, 2**50, 5000)
    gathering = svm_ids.Gathering("data")
    for piece in np.array_split(random.permutation(np.concatenate([few, many])), 7):
        gathering.add(piece)
    ids = gathering.finish()
    assert ids.tolist() == sorted({*few.tolist(), *many.tolist()})
    columns = svm_ids.Columns(ids)
    asked = np.concatenate([ids, ids + 1, [0, 2**62]])
    places = {each: place for place, each in enumerate(ids.tolist())}
    assert columns.of(asked).tolist() == [places.get(each, -1) for each in asked.tolist()]
    assert columns.of(np.zeros(0, np.int64)).tolist() == []
    few_only = svm_ids.Columns(np.array([3, 5]))
    assert few_only.of(np.array([0, 3, 4, 5, 6, 2**40])).tolist() == [-1, 0, -1, 1, -1, -1]


def test_many_large_ids_are_merged_on_the_way(monkeypatch):
    gathering = svm_ids.Gathering("data")
    for start in range(0, 3 * 2**20, 2**19):
        gathering.add(np.arange(start, start + 2**19) + 2**40)
    assert len(gathering.finish()) == 3 * 2**20
    monkeypatch.setattr(svm_ids, "FEATURES_MOST", 5)
    gathering = svm_ids.Gathering("data")
    gathering.add(np.arange(2**30, 2**30 + 6))
    with pytest.raises(BadInput, match="data holds more than 5 different features"):
        gathering.finish()


@pytest.mark.parametrize(
    "ids", [[0], [5], [0, 1, 2, 3], [7, 2**40, 2**62], list(range(0, 10**6, 7)), [2**63 - 2], [1, 2, 4, 8]]
)
def test_what_is_known_of_features_survives_json(ids):
    fitted = svm.Fitted(np.array(ids, np.int64), label_offset=-1, is_signed=False)
    again = svm.fitted(json.loads(json.dumps(fitted.as_json())))
    assert again.ids.tolist() == ids
    assert (again.label_offset, again.is_signed) == (-1, False)
    assert len(json.dumps(fitted.as_json())) < 100 + len(ids) / 10 + 12 * min(len(ids), 10)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": None},
        {"ids": {}},
        {"ids": {"count": 3, "gaps": "AAAA"}},
        {"ids": {"count": -1, "gaps": ""}},
        {"ids": {"count": 2**60, "gaps": ""}},
        {"ids": {"count": 1, "gaps": 7}},
        {"ids": svm_ids.packed(np.arange(5)) | {"count": 4}},
        {"ids": svm_ids.packed(np.arange(5)) | {"count": 6}},
        {"ids": svm_ids.packed(np.array([3, 2]))},
        {"ids": svm_ids.packed(np.array([-1, 2]))},
        {"label_offset": "1"},
        {"is_signed": 1},
    ],
)
def test_something_else_is_no_knowledge_of_features(change):
    sound = svm.Fitted(np.arange(5)).as_json()
    with pytest.raises(TypeError, match="no features of a training"):
        svm.fitted({**sound, **change})
    with pytest.raises(TypeError):
        svm.fitted({})


# Labels


def test_labels_of_classes_are_their_numbers():
    data = read(lines("2 1:1", "0 1:2", "1.0 1:3"), target=THREE)
    assert data.train.labels.tolist() == [2, 0, 1]
    assert data.fitted.words is None


def test_an_offset_is_added_to_labels():
    assert read(lines("3 1:1", "1 1:2"), target=THREE, label_offset=(-1,)).train.labels.tolist() == [2, 0]
    assert read(lines("3 1:1", "1 1:2"), target=NUMBER, label_offset=(2,)).train.labels.tolist() == [[5], [3]]


def test_minus_one_and_one_are_two_classes_with_these_names(tmp_path):
    data = read(lines("+1 1:1", "-1 1:2", "1 1:3"), lines("-1 1:2", "1 1:3"))
    assert data.train.labels.tolist() == [1, 0, 1]
    assert data.tests[0].labels.tolist() == [0, 1]
    assert data.fitted.words == ["-1", "1"]
    table, _ = svm.read_prediction([lines("+1 1:5")], data.fitted, TWO, labelled=True)
    assert table.labels.tolist() == [1]
    with pytest.raises(BadInput, match="label 0 found in test set but not in train set"):
        svm.read_prediction([lines("0 1:5")], data.fitted, TWO, labelled=True)


def test_a_label_that_does_not_count_is_no_class():
    ignoring = Target("classification", classes=2, ignored=-1)
    data = read(lines("0 1:1", "-1 1:2", "1 1:3"), lines("-1 1:3"), target=ignoring)
    assert data.train.labels.tolist() == [0, -1, 1]
    assert data.tests[0].labels.tolist() == [-1]
    assert data.fitted.words is None
    signed = read(lines("1 1:1", "-1 1:2", "7 1:3"), target=Target("classification", classes=2, ignored=7))
    assert signed.train.labels.tolist() == [1, 0, 7]


def test_numbers_are_learned_as_they_are():
    labels = read(lines("1.25 1:1", "-3e2 1:2"), target=NUMBER).train.labels
    assert labels.tolist() == [[1.25], [-300]]
    assert labels.dtype == np.float64


def test_an_autoencoder_needs_no_labels():
    data = read(lines("1:1 2:2", "7 2:3", "1:3"), target=SAME)
    assert data.train.labels is None
    assert len(data.train) == 3


@pytest.mark.parametrize(
    ("rows", "target", "options", "text"),
    [
        (("0 1:1", "", "2 1:1", "1 1:1"), TWO, {}, r"label 2 in line 3 of in-memory data is outside of 0\.\.1; is"),
        (("1 1:1", "2 1:1"), TWO, {}, r"label 2 in line 2 .* set parameters\.input\.label_offset to -1\?"),
        (("0 1:1", "0.5 1:1"), TWO, {}, r"label 0\.5 in line 2 .* is this a regression\?"),
        (("-1 1:1", "0 1:1"), TWO, {}, r"label -1 in line 1 .* is outside of 0\.\.1"),
        (("-1 1:1", "1 1:1"), THREE, {}, r"label -1 in line 1 .* is outside of 0\.\.2"),
        (("0 1:1", "1 1:1"), TWO, {"label_offset": (-1,)}, r"label 0 in line 1 .*\(with label_offset -1\) is outside"),
        (("nan 1:1",), NUMBER, {}, r"label nan in line 1 of in-memory data is no finite number"),
        (("0 1:1", "inf 1:1"), TWO, {}, r"label inf in line 2 of in-memory data is no finite number"),
        (("0 1:1", "0 1:2"), TWO, {}, r"in-memory data holds labels of one class only"),
        (("0", "1"), TWO, {}, r"in-memory data has no features: no row has a word of the form id:value"),
        (("1:1 2:2",), TWO, {}, r"line 1 of in-memory data has no label"),
        (("0 1:1", "1 1:2"), TWO, {"test_split": 0.9}, r"leaves none of the 2 rows of in-memory data to train on"),
        (("0 1:1", "0 1:2", "1 1:2"), TWO, {"test_split": 0.3}, r"the part of in-memory data that is trained on"),
    ],
)
def test_labels_that_cannot_be_are_refused_with_their_line(rows, target, options, text):
    with pytest.raises(BadInput, match=text):
        read(lines(*rows), target=target, **options)


def test_labels_that_are_all_different_are_refused_early(monkeypatch):
    monkeypatch.setattr(svm, "_LABELS_MOST", 10)
    with pytest.raises(BadInput, match="is this a regression"):
        read(lines(*(f"{row / 7} 1:1" for row in range(100))))


def test_no_data_is_refused():
    with pytest.raises(BadInput, match="missing data"):
        read()
    with pytest.raises(BadInput, match="missing data"):
        svm.read_prediction([], svm.Fitted(np.arange(3)), TWO, labelled=False)


@pytest.mark.parametrize(
    ("library", "input", "mllib", "text"),
    [
        ("xgboost", {}, {"nclasses": 3, "multi_label": True}, "rows of svm have one label"),
        ("xgboost", {}, {"nclasses": 3, "multi_label": True, "regression": True}, "rows of svm have one label"),
        ("xgboost", {}, {"ntargets": 2}, r"one label, but parameters\.mllib\.ntargets is 2"),
        ("xgboost", {"test_split": 1}, {"nclasses": 3}, "it must be below 1"),
        ("xgboost", {"label_offset": [1, 2]}, {"nclasses": 3}, "label_offset has 2 values"),
        ("xgboost", {"autoencoder": True}, {"nclasses": 3}, r"parameters\.mllib\.autoencoder is not"),
        ("xgboost", {}, {"nclasses": 3, "ignore_label": 2**40}, "at most 2147483647"),
    ],
)
def test_what_rows_of_svm_cannot_be_is_refused(library, input, mllib, text):
    with pytest.raises(BadParameter, match=text):
        load_training(library, "svm", {"input": input, "mllib": {"iterations": 1, **mllib}})


def test_options_of_csv_are_warnings():
    given = {"label": "y", "separator": ",", "scale": True, "categoricals": ["a"], "db": False}
    loaded = load_training("xgboost", "svm", {"input": given, "mllib": {"iterations": 1, "nclasses": 2}})
    assert {w.parameter.split(".")[-1] for w in loaded.warnings} == {"label", "separator", "scale", "categoricals"}


# Test sets


def test_a_share_is_split_off_at_the_end():
    data = read(lines(*ROWS), test_split=0.4)
    assert data.train.labels.tolist() == [0, 1, 0]
    assert data.tests[0].labels.tolist() == [1, 0]
    assert data.tests[0].name == "split"
    assert whole(data.tests[0])[0].tolist() == [[4, 0, 0, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize("db", [False, True])
def test_shuffling_is_that_of_numpy_with_the_seed(tmp_path, db):
    rows = [f"{row % 2} 1:{row + 1}" for row in range(50)]
    data = read(lines(*rows), shuffle=True, seed=7, test_split=0.2, db=db, scratch=tmp_path)
    order = np.random.default_rng(7).permutation(50)
    test = whole(data.tests[0])[0][:, 0] - 1
    train = whole(data.train)[0][:, 0] - 1
    assert sorted(test) == sorted(order[40:])
    assert sorted(train) == sorted(order[:40])
    assert list(train) != sorted(train)
    if not db:
        assert list(train) + list(test) == order.tolist()
    assert np.array_equal(np.asarray(data.train.labels), train % 2)


def test_several_test_sets_keep_their_order_and_names(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.svm").write_text("0 1:1\n1 2:2\n" * (2 if name == "two" else 1))
    sources = [FileSource(tmp_path / f"{name}.svm", f"/data/{name}.svm") for name in ("one", "two")]
    data = read(lines(*ROWS), *sources, test_split=0.5)
    assert [test.name for test in data.tests] == ["one.svm", "two.svm"]
    assert [len(test) for test in data.tests] == [2, 4]
    assert all(test.width == 4 for test in data.tests)
    assert [w.parameter for w in data.warnings] == ["parameters.input.test_split"]
    assert len(data.train) == 5


@pytest.mark.parametrize("db", [False, True])
def test_features_that_training_has_not_are_left_out_and_counted(tmp_path, db):
    data = read(lines(*ROWS), lines("0 2:1 4:8 5:9", "1 1:3 2:2", "1 7:1 100:2 101:3 102:4 103:5"), db=db,
                scratch=tmp_path)  # fmt: skip
    assert whole(data.tests[0])[0].tolist() == [[0, 1, 0, 0], [3, 2, 0, 0], [0, 0, 0, 0]]
    assert [w.message for w in data.warnings] == [
        "7 values of in-memory data were ignored: the training data has no feature 4, 5, 7, 100, 101 and others"
    ]
    table, warnings = svm.read_prediction([lines("4:8")], data.fitted, TWO, labelled=False)
    assert table.features.nnz == 0
    assert [w.message for w in warnings] == [
        "1 value of in-memory data was ignored: the training data has no feature 4"
    ]


@pytest.mark.parametrize("label", ["2", "0.5", "-1"])
def test_a_label_that_training_has_not_is_refused(label):
    with pytest.raises(BadInput, match=rf"label {label} found in test set but not in train set \(in-memory data, line"):
        read(lines(*ROWS), lines("0 1:1", f"{label} 1:1"))


def test_a_test_set_needs_labels():
    with pytest.raises(BadInput, match="line 2 of in-memory data has no label"):
        read(lines(*ROWS), lines("0 1:1", "1:1"))


# Predictions


def test_rows_to_predict_on_are_numbered_from_zero_over_all_sources(tmp_path):
    fitted = read(lines(*ROWS)).fitted
    path = tmp_path / "more.svm"
    path.write_text("# no rows yet\n\n1 2:7\n3:1\n")
    table, warnings = svm.read_prediction(
        [lines("1:5", "0 9:6"), FileSource(path, "more")], fitted, TWO, labelled=False
    )
    assert table.uris == ["0", "1", "2", "3"]
    assert table.labels is None
    assert table.features.toarray().tolist() == [[5, 0, 0, 0], [0, 0, 0, 6], [0, 7, 0, 0], [0, 0, 1, 0]]
    assert warnings == []


def test_measured_rows_need_labels():
    fitted = read(lines(*ROWS)).fitted
    table, _ = svm.read_prediction([lines("1 1:5", "0")], fitted, TWO, labelled=True)
    assert table.labels.tolist() == [1, 0]
    with pytest.raises(BadInput, match="line 1 of in-memory data has no label"):
        svm.read_prediction([lines("1:5")], fitted, TWO, labelled=True)
    table, _ = svm.read_prediction([lines("1:5")], fitted, SAME, labelled=True)
    assert table.labels is None


def test_an_offset_in_the_request_counts():
    fitted = read(lines("1 1:1", "2 1:2"), label_offset=(-1,)).fitted
    assert svm.resolve(fitted, SvmOptions(), ()) is fitted
    assert svm.resolve(fitted, SvmOptions(label_offset=(-1,)), ["label_offset"]) is fitted
    moved = svm.resolve(fitted, SvmOptions(label_offset=(0,)), ["label_offset"])
    table, _ = svm.read_prediction([lines("1 1:5")], moved, TWO, labelled=True)
    assert table.labels.tolist() == [1]


# Files of a repository


def test_the_vocabulary_is_written_and_read_again(tmp_path):
    fitted = read(lines(*ROWS)).fitted
    fitted.write_files(tmp_path)
    assert (tmp_path / "vocab.dat").read_text() == "1\n2\n3\n9\n"
    again = svm.fitted_by_hand(["f0", "f1", "f2", "f3"], SvmOptions(label_offset=(-1,)), tmp_path)
    assert again.ids.tolist() == [1, 2, 3, 9]
    assert (again.label_offset, again.is_signed) == (-1, False)
    (tmp_path / "corresp.txt").write_text("0 -1\n1 1\n")
    assert svm.fitted_by_hand(["f0", "f1", "f2", "f3"], SvmOptions(), tmp_path).is_signed


def test_a_model_made_elsewhere_has_a_column_for_every_id(tmp_path):
    inputs = [f"f{each}" for each in range(10)]
    assert svm.fitted_by_hand(inputs, SvmOptions(), tmp_path).ids.tolist() == list(range(10))
    (tmp_path / "vocab.dat").write_text("9\n3\n1\n2\n")  # as other servers write it: without order
    assert svm.fitted_by_hand(inputs, SvmOptions(), tmp_path).ids.tolist() == list(range(10))
    assert svm.fitted_by_hand(inputs[:4], SvmOptions(), tmp_path).ids.tolist() == [1, 2, 3, 9]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("1\n2\n30\n", "has 3 feature ids up to 30; the model has 10 inputs"),
        ("1\ntwo\n", "is broken"),
        ("", "is broken"),
        ("1\n1\n", "is broken"),
        ("-1\n1\n", "is broken"),
        ("9" * 19 + "\n", "cannot be read"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path, content, text):
    (tmp_path / "vocab.dat").write_text(content)
    with pytest.raises(ModelUnusable, match=text):
        svm.fitted_by_hand([f"f{each}" for each in range(10)], SvmOptions(), tmp_path)


# Tables on disk


def random_rows(count=300, width=9, seed=0):
    random = np.random.default_rng(seed)
    dense = random.normal(size=(count, width)) * (random.uniform(size=(count, width)) < 0.4)
    written = io.BytesIO()
    dump_svmlight_file(dense, random.integers(0, 2, count), written, zero_based=False)
    return LinesSource(tuple(written.getvalue().decode().splitlines()))


def in_chunks(monkeypatch, size=1000):
    monkeypatch.setattr(csr_file, "CHUNK_BYTES", size)


@pytest.mark.parametrize("options", [{}, {"test_split": 0.3}, {"shuffle": True, "seed": 3}])
@pytest.mark.parametrize("target", [TWO, NUMBER, SAME])
def test_a_table_on_disk_holds_the_same_as_in_memory(tmp_path, monkeypatch, options, target):
    in_chunks(monkeypatch)
    source = random_rows()
    memory = read(source, target=target, **options)
    disk = read(source, target=target, db=True, scratch=tmp_path, **options)
    assert isinstance(disk.train, CsrFile)
    assert len(list(disk.train.chunks())) > 3
    for one, other in zip([memory.train, *memory.tests], [disk.train, *disk.tests], strict=True):
        assert (one.name, len(one), one.width) == (other.name, len(other), other.width)
        left, right = (np.column_stack([each for each in whole(table) if each is not None]) for table in (one, other))
        if "shuffle" in options:
            assert not np.array_equal(left, right)
            left, right = (array[np.lexsort(array.T)] for array in (left, right))
        assert np.array_equal(left, right)
        if one.labels is not None:
            assert one.labels.dtype == other.labels.dtype
            assert one.labels.shape == other.labels.shape


def test_a_pass_in_random_order_has_every_row_once_and_begins_anywhere(tmp_path, monkeypatch):
    in_chunks(monkeypatch)
    table = read(random_rows(), db=True, scratch=tmp_path, test_split=0.1).train
    features, labels = whole(table)

    def taken(start=0):
        rows, truth = [], []
        for chunk in table.chunks(np.random.default_rng(5), start):
            some, known = chunk.take(chunk.order)
            rows.append(some)
            truth.append(known)
        return np.concatenate(rows), np.concatenate(truth)

    rows, truth = taken()
    order = np.concatenate([numbers for numbers, _, _ in table.numbered(np.random.default_rng(5))])
    assert sorted(order) == list(range(len(table)))
    assert np.array_equal(rows, features[order])
    assert np.array_equal(truth, labels[order])
    for start in (1, 77, 200, len(table) - 1):
        late, known = taken(start)
        assert np.array_equal(late, rows[start:])
        assert np.array_equal(known, truth[start:])
    plain = np.concatenate([chunk.features.toarray() for chunk in table.chunks(None, 33)])
    assert np.array_equal(plain, features[33:])


def test_rows_come_from_all_over_a_small_table(tmp_path):
    table = read(random_rows(), db=True, scratch=tmp_path).train
    order = np.concatenate([numbers for numbers, _, _ in table.numbered(np.random.default_rng(5))])
    # Spearman's coefficient of a random order of 300 rows has a standard deviation of 0.058.
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.25


def test_a_part_is_a_table_of_its_own(tmp_path, monkeypatch):
    in_chunks(monkeypatch)
    table = read(random_rows(), db=True, scratch=tmp_path).train
    features, labels = whole(table)
    part = table.part(50, 120, "part").part(10, 60, "smaller")
    found, truth = whole(part)
    assert np.array_equal(found, features[60:110])
    assert np.array_equal(truth, labels[60:110])
    assert part.values == np.count_nonzero(features[60:110])
    order = np.concatenate([numbers for numbers, _, _ in part.numbered(np.random.default_rng(1))])
    assert sorted(order) == list(range(50))
    table.remove()
    assert not any((tmp_path / "rows" / "train" / name).exists() for name in ("values", "columns", "starts", "labels"))


def test_rows_without_values_are_kept(tmp_path, monkeypatch):
    in_chunks(monkeypatch, 64)
    rows = ["0", "1", "0 5:1", "1", "0", "1"] * 20
    table = read(lines(*rows), db=True, scratch=tmp_path).train
    features, labels = whole(table)
    assert features[:, 0].tolist() == [0, 0, 1, 0, 0, 0] * 20
    assert labels.tolist() == [0, 1] * 60


def test_a_table_without_values_can_be_written(tmp_path):
    writer = CsrWriter(tmp_path / "empty")
    table = writer.finish("empty", 3)
    assert len(table) == 0
    assert list(table.chunks()) == []
    assert list(table.chunks(np.random.default_rng(0))) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise full

        def close(self):
            self.file.close()

    writer = CsrWriter(tmp_path / "table")
    writer._files = {name: Full(file) for name, file in writer._files.items()}
    with pytest.raises(BadInput, match=r"the disk is full: parameters\.input\.db keeps the table on disk"):
        writer.append_values(np.ones(1, np.float32), np.zeros(1, np.int32), np.array([0, 1]), None)
    assert list((tmp_path / "table").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"that parameters\.input\.db keeps on disk cannot be written: not a directory"):
        CsrWriter(tmp_path / "file" / "table")


def test_a_table_on_disk_needs_a_folder():
    with pytest.raises(ValueError, match="needs a folder"):
        read(lines(*ROWS), db=True)


def test_the_class_counts_of_a_table_on_disk_leave_out_what_does_not_count(tmp_path):
    ignoring = Target("classification", classes=2, ignored=-1)
    with pytest.raises(BadInput, match="one class only"):
        read(lines("0 1:1", "-1 1:2", "0 1:3"), target=ignoring, db=True, scratch=Path(tmp_path))
