"""Labels of CSV data: classes, several labels per row, targets, and none at all."""

import numpy as np
import pytest

from ml.connectors.csv import read_prediction, read_training
from ml.connectors.source import LinesSource
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.target import Target

THREE = Target("classification", classes=3)


def lines(text):
    return LinesSource(tuple(text.splitlines()))


def read(text, target, *tests, **options):
    options = {"label": ("y",), **options}
    return read_training([lines(text), *map(lines, tests)], CsvOptions(**options), target)


def refused(text, target, *tests, **options):
    with pytest.raises(BadInput) as caught:
        read(text, target, *tests, **options)
    return str(caught.value)


# Rows with a label that does not count


@pytest.mark.parametrize(
    ("ignored", "offset", "cells", "labels"),
    [
        (-1, 0, "0 2 -1 1", [0, 2, -1, 1]),
        (255, 0, "0 2 255 1.0", [0, 2, 255, 1]),
        # It may be written as it is, or as it will be when the offset is added.
        (255, -1, "1 3 255 256", [0, 2, 255, 255]),
        (-1, -1, "1 3 0 -1", [0, 2, -1, -1]),
        # The number of a class is what the model calls it, after the offset.
        (0, -1, "1 3 1 2", [0, 2, 0, 1]),
        (2, 0, "0 2 2 1", [0, 2, 2, 1]),
    ],
)
def test_rows_with_the_ignored_label_are_taken_with_it(ignored, offset, cells, labels):
    target = Target("classification", classes=3, ignored=ignored)
    text = "a,y\n" + "".join(f"1,{cell}\n" for cell in cells.split())
    data = read(text, target, text, label_offset=(offset,))
    assert data.train.labels.tolist() == labels
    assert data.train.labels.dtype == np.int32
    assert data.tests[0].labels.tolist() == labels
    table, _ = read_prediction([lines(text)], data.fitted, target, labelled=True)
    assert table.labels.tolist() == labels


def test_among_words_the_ignored_label_is_a_number():
    target = Target("classification", classes=2, ignored=-1)
    data = read("a,y\n1,p\n2,-1\n3,q\n", target, "a,y\n1,-1\n2,q\n")
    assert data.fitted.words == ["p", "q"]
    assert data.train.labels.tolist() == [0, -1, 1]
    assert data.tests[0].labels.tolist() == [-1, 1]
    # A class of the model is called by its number among the words.
    data = read("a,y\n1,p\n2,q\n3,r\n", Target("classification", classes=3, ignored=2))
    assert data.train.labels.tolist() == [0, 1, 2]
    assert data.fitted.words == ["p", "q", "r"]


def test_ignored_rows_do_not_make_a_second_class():
    target = Target("classification", classes=2, ignored=-1)
    assert "holds one class only" in refused("a,y\n1,0\n2,-1\n3,0\n", target)
    assert "holds one class only" in refused("a,y\n1,-1\n2,-1\n", target)
    assert "label 5 of column y" in refused("a,y\n1,0\n2,5\n3,1\n", target)


def test_ignored_rows_do_not_count_in_the_bounds_of_the_label():
    target = Target("classification", classes=2, ignored=255)
    data = read("a,y\n1,0\n2,255\n3,1\n4,1\n", target, scale=True)
    assert (data.fitted.low, data.fitted.high) == ([1, 0], [4, 1])
    data = read("a,y\n1,0\n2,255\n3,1\n4,1\n", target, scale=True, scale_type="znorm")
    assert data.fitted.low[1] == pytest.approx(2 / 3)
    assert data.fitted.high[1] == pytest.approx(2 / 9)


# Several labels per row


def test_several_labels_are_0_or_1_in_the_order_of_the_option():
    target = Target("multi_label", classes=2)
    data = read("cat,a,dog\n1,5,0\n0,6,1\n1,7,1\n", target, "dog,a,cat\n1,5,0\n", label=("dog", "cat"))
    assert data.train.labels.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert data.train.labels.dtype == np.float32
    assert data.train.features.tolist() == [[5], [6], [7]]
    assert data.tests[0].labels.tolist() == [[1, 0]]
    data = read("cat,a,dog\n2,5,1\n1,6,2\n", target, label=("dog", "cat"), label_offset=(-1,))
    assert data.train.labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("2", "label column dog of in-memory data has 2 in row 2; with several labels per row each must be 0 or 1"),
        ("0.5", "has 0.5 in row 2"),
        ("", "label column dog of in-memory data has no finite value in row 2"),
        ("inf", "has no finite value in row 2"),
        ("yes", "column dog is not a number"),
    ],
)
def test_another_value_than_0_or_1_is_refused(cell, text):
    rows = f"cat,a,dog\n1,5,0\n0,6,{cell}\n"
    target = Target("multi_label", classes=2)
    assert text in refused(rows, target, label=("cat", "dog"))
    assert text in refused("cat,a,dog\n1,5,0\n", target, rows, label=("cat", "dog"))


def test_shares_lie_between_0_and_1():
    target = Target("soft_labels", classes=2)
    data = read("p,q,a\n0.25,0.75,1\n0,1,2\n", target, label=("p", "q"))
    assert data.train.labels.tolist() == [[0.25, 0.75], [0, 1]]
    assert data.train.labels.dtype == np.float32
    text = refused("p,q,a\n0.25,0.75,1\n0,1.5,2\n", target, label=("p", "q"))
    assert "label column q of in-memory data has 1.5 in row 2; shares of classes must be between 0 and 1" in text
    assert "has -0.1 in row 1" in refused("p,q,a\n-0.1,0.75,1\n", target, label=("p", "q"))


def test_offsets_may_differ_by_target():
    target = Target("regression", targets=2)
    data = read("p,q,a\n1,10,1\n2,20,2\n", target, label=("q", "p"), label_offset=(5, -1))
    assert data.train.labels.tolist() == [[15, 0], [25, 1]]
    assert data.train.labels.dtype == np.float64


# No labels


def test_an_autoencoder_has_no_labels_and_leaves_label_columns_out():
    target = Target("autoencoder")
    data = read("a,y,b\n1,x,2\n3,,4\n", target, "b,a\n6,5\n", label=("y",))
    assert data.train.labels is None
    assert data.train.features.tolist() == [[1, 2], [3, 4]]
    # A test set without the column fits as well: nobody looks at it.
    assert data.tests[0].labels is None
    assert data.tests[0].features.tolist() == [[5, 6]]
    table, _ = read_prediction([lines("7,8")], data.fitted, target, labelled=True)
    assert table.labels is None
    assert table.features.tolist() == [[7, 8]]
    assert read("a,b\n1,2\n", target, label=()).train.features.tolist() == [[1, 2]]


def test_an_autoencoder_is_scaled_and_split_like_others():
    data = read("a,y\n0,x\n5,x\n10,x\n20,x\n", Target("autoencoder"), scale=True, test_split=0.25, shuffle=True, seed=1)
    assert (len(data.train), len(data.tests[0])) == (3, 1)
    every = np.concatenate([data.train.features, data.tests[0].features])
    assert sorted(every[:, 0].tolist()) == [0, 0.25, 0.5, 1]


# What else may stand in a label column


def test_a_missing_label_among_numbers_is_no_class():
    for cell in ("NA", "nan", " "):
        assert "label column y of in-memory data has no value in row 2" in refused(f"a,y\n1,0\n2,{cell}\n3,1\n", THREE)
    # Among words it is one: somebody may be called NA.
    assert read("a,y\n1,NA\n2,q\n3,r\n", THREE).fitted.words == ["NA", "q", "r"]


def test_digits_of_other_scripts_and_underscores_are_words():
    one = "\N{ARABIC-INDIC DIGIT ONE}"
    assert read(f"a,y\n1,{one}\n2,1_0\n3,2\n", THREE).fitted.words == [one, "1_0", "2"]


def test_a_label_that_is_no_class_is_named_with_its_row():
    assert "label 7 of column y in in-memory data is outside of 0..2, first in row 3" in refused(
        "a,y\n1,0\n2,1\n3,7\n4,7\n", THREE
    )
    assert "label 1e+300 of column y" in refused("a,y\n1,0\n2,1\n3,1e300\n", THREE)
    assert "found in test set but not in train set (in-memory data, row 2)" in refused(
        "a,y\n1,0\n2,1\n", THREE, "a,y\n1,0\n2,9\n"
    )
    assert "has no value in row 1" in refused("a,y\n1,0\n2,1\n", THREE, "a,y\n1,\n")


def test_a_column_of_measurements_as_label_is_refused_before_all_of_it_is_kept():
    text = "a,y\n" + "".join(f"1,{row}.5\n" for row in range(120_000))
    assert (
        "label 0.5 of column y in in-memory data is outside of 0..2, first in row 1; is this a regression?"
        in refused(text, THREE)
    )
    text = "a,y\n" + "".join(f"1,name{row}\n" for row in range(120_000))
    assert "classes (name0, name1" in refused(text, THREE)
    # One number in many spellings is one label all the same.
    text = "a,y\n1,1\n" + "".join(f"1,0.{'0' * row}\n" for row in range(1, 400))
    assert read(text, THREE).train.labels.sum() == 1


def test_measures_of_a_prediction_need_as_many_label_columns_as_the_model_has():
    target = Target("regression", targets=2)
    fitted = read("p,q,a\n1,10,1\n2,20,2\n", target, label=("q", "p")).fitted
    fitted.label = ["p"]
    with pytest.raises(BadInput, match="label names 1 columns, the model was trained with 2"):
        read_prediction([lines("p,a\n1,2")], fitted, target, labelled=True)
    fitted.label = []
    with pytest.raises(BadInput, match="missing label column parameter"):
        read_prediction([lines("p,a\n1,2")], fitted, target, labelled=True)
