"""CSV data: what is read, and how each wrong file is refused."""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.connectors.csv import Fitted, read_prediction, read_training, resolve
from ml.connectors.source import FileSource, LinesSource, from_json, to_json
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.target import Target

TWO = Target("classification", classes=2)
HEAD = "a,b,y\n"
ROWS = "1,2,0\n3,4,1\n"


def lines(text):
    return LinesSource(tuple(text.splitlines()))


@pytest.fixture
def file(tmp_path):
    def write(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return FileSource(path, name)

    return write


def read(source, target=TWO, **options):
    return read_training([source], CsvOptions(**{"label": ("y",), **options}), target)


def fitted_on(text, target=TWO, **options):
    return read(lines(text), target, **options).fitted


# What is read


@pytest.mark.parametrize(
    "content",
    [
        HEAD + ROWS,
        (HEAD + ROWS).rstrip("\n"),
        (HEAD + ROWS).replace("\n", "\r\n"),
        (HEAD + ROWS).replace("\n", "\r"),
        b"\xef\xbb\xbf" + (HEAD + ROWS).encode(),
        '"a","b","y"\n"1","2","0"\n3,"4",1\n',
        "\n\n" + HEAD + "1,2,0\n\n3,4,1\n\n",
        "a, b ,y\n 1,2 , 0\n3, 4,1\n",
        HEAD + "1e0,2.0,0.0\n+3,.4e1,1.0\n",
    ],
)
def test_the_same_table_comes_from_every_way_to_write_it(file, content):
    data = read(file(content))
    assert data.train.features.tolist() == [[1, 2], [3, 4]]
    assert data.train.features.dtype == np.float32
    assert data.train.labels.tolist() == [0, 1]
    assert data.fitted.words is None
    assert data.warnings == []


def test_in_memory_lines_are_read_like_a_file(file):
    one, other = read(lines(HEAD + ROWS)), read(file(HEAD + ROWS))
    assert one.train.features.tolist() == other.train.features.tolist()


def test_missing_values_of_features_are_nan(file):
    data = read(file("a,b,c,d,y\n,NA,nan, ,0\nN/A,null,#N/A,NULL,1\n"))
    assert np.isnan(data.train.features).all()


def test_numbers_are_read_to_the_last_digit(file):
    values = [0.1, 1 / 3, 1e-45, 3.4028234e38, -123456.789, 5e-324]
    text = "a,y\n" + "".join(f"{value!r},{row % 2}\n" for row, value in enumerate(values))
    assert read(file(text)).train.features[:, 0].tolist() == np.array(values, np.float32).tolist()


@pytest.mark.parametrize(("separator", "name"), [(";", "semi"), ("\t", "tab"), ("|", "bar"), (" ", "blank")])
def test_other_separators(file, separator, name):
    data = read(file((HEAD + ROWS).replace(",", separator), name), separator=separator)
    assert data.train.features.tolist() == [[1, 2], [3, 4]]


def test_quoted_cells_may_hold_separators_quotes_and_line_ends(file):
    data = read(file('a,y\n1,"x, ""y"""\n2,"z\nw"\n'))
    assert data.fitted.words == ['x, "y"', "z\nw"]


def test_another_quote_character_or_none(file):
    assert read(file("a,y\n1,'x,x'\n2,z\n"), quote="'").fitted.words == ["x,x", "z"]
    assert read(file('a,y\n1,"x\n2,z\n'), quote="").fitted.words == ['"x', "z"]


def test_words_as_labels_are_numbered_in_order_of_appearance(file):
    data = read(file("a,y\n1,pear\n2,apple\n3,pear\n4,fig\n"), Target("classification", classes=3))
    assert data.fitted.words == ["pear", "apple", "fig"]
    assert data.train.labels.tolist() == [0, 1, 0, 2]


def test_the_label_offset_is_added(file):
    data = read(file("a,y\n1,1\n2,2\n3,3\n"), Target("classification", classes=3), label_offset=(-1,))
    assert data.train.labels.tolist() == [0, 1, 2]


def test_ignored_columns_may_hold_anything(file):
    data = read(file("note,a,y\nhello,1,0\nworld,2,1\n"), ignore=("note",))
    assert data.train.features.tolist() == [[1], [2]]


def test_the_id_column_is_no_feature(file):
    data = read(file("k,a,y\nrow1,1,0\nrow2,2,1\n"), id="k")
    assert data.fitted.features == ["a"]


def test_several_targets_keep_the_order_of_the_option(file):
    data = read(file("p,a,q\n1,5,10\n2,6,20\n"), Target("regression", targets=2), label=("q", "p"))
    assert data.train.labels.tolist() == [[10, 1], [20, 2]]
    assert data.train.features.tolist() == [[5], [6]]


def test_a_trailing_separator_adds_no_feature(file):
    assert read(file("a,y,\n1,0,\n2,1,\n")).fitted.features == ["a"]


# Splitting


def numbered(rows):
    return "a,y\n" + "".join(f"{row},{row % 2}\n" for row in range(rows))


@pytest.mark.parametrize(
    ("rows", "share", "train"), [(150, 0.2, 120), (10, 0.9, 1), (7, 0.5, 3), (10, 0.3, 7), (3, 0.1, 2)]
)
def test_the_train_part_has_the_floor_of_its_share(file, rows, share, train):
    # With one row to train on there is one class: use a regression.
    data = read(file(numbered(rows)), Target("regression", targets=1), test_split=share)
    assert (len(data.train), len(data.tests[0])) == (train, rows - train)
    assert data.tests[0].name == "split"


def test_without_shuffling_the_last_rows_are_the_test_part(file):
    data = read(file(numbered(10)), test_split=0.2)
    assert data.tests[0].features[:, 0].tolist() == [8, 9]


def test_shuffling_follows_the_seed_and_loses_no_row(file):
    source = file(numbered(50))
    one = read(source, shuffle=True, seed=7, test_split=0.3)
    same = read(source, shuffle=True, seed=7, test_split=0.3)
    other = read(source, shuffle=True, seed=8, test_split=0.3)
    assert one.train.features.tolist() == same.train.features.tolist()
    assert one.train.features.tolist() != other.train.features.tolist()
    every = np.concatenate([one.train.features, one.tests[0].features])[:, 0]
    assert sorted(every.tolist()) == list(range(50))
    assert (np.concatenate([one.train.labels, one.tests[0].labels]) == every % 2).all()


def test_a_given_test_set_wins_over_test_split(file):
    source = file(numbered(10))
    data = read_training([source, source], CsvOptions(label=("y",), test_split=0.5), TWO)
    assert (len(data.train), len(data.tests[0])) == (10, 10)
    assert data.tests[0].name == "data.csv"
    assert [w.parameter for w in data.warnings] == ["parameters.input.test_split"]


# Scaling and categories


def test_minmax_scaling_leaves_constants_labels_and_ids_alone(file):
    data = read(file("k,a,c,y\n5,10,3,0\n6,30,3,1\n7,20,3,1\n"), id="k", scale=True)
    assert data.train.features.tolist() == [[0, 3], [1, 3], [0.5, 3]]
    # One value per column that is not ignored, in file order, with places for id and label.
    assert data.report["max_vals"] == [0, 30, 3, 1]
    assert data.report["min_vals"] == [0, 10, 3, 0]


def test_znorm_scaling_gives_mean_0_and_variance_1(file):
    data = read(file("a,y\n1,0\n3,1\n5,0\n"), scale=True, scale_type="znorm")
    assert data.train.features[:, 0] == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
    assert data.report["variance_vals"][0] == pytest.approx(8 / 3)


def test_given_bounds_are_used_instead_of_found_ones(file):
    data = read(file(HEAD + ROWS), scale=True, min_vals=(0.0, 0.0, 0.0), max_vals=(4.0, 8.0, 1.0))
    assert data.train.features.tolist() == [[0.25, 0.25], [0.75, 0.5]]
    with pytest.raises(BadInput, match="the bounds have 1 values; 3 columns"):
        read(file(HEAD + ROWS), scale=True, min_vals=(0.0,), max_vals=(4.0,))


def test_bounds_without_scale_are_a_warning(file):
    data = read(file(HEAD + ROWS), min_vals=(0.0, 0.0, 0.0), max_vals=(4.0, 8.0, 1.0))
    assert [w.parameter for w in data.warnings] == ["parameters.input.min_vals"]


def test_categories_become_one_column_per_word_in_place(file):
    data = read(file("a,colour,b,y\n1,red,5,0\n2,blue,6,1\n3,,7,1\n"), categoricals=("colour",))
    assert data.fitted.inputs == ["a", "colour=red", "colour=blue", "b"]
    assert data.train.features[:2].tolist() == [[1, 1, 0, 5], [2, 0, 1, 6]]
    assert np.isnan(data.train.features[2, 1:3]).all()
    assert data.report["categoricals_mapping"] == {"colour": {"red": 0, "blue": 1}}


def test_a_given_mapping_of_categories_is_used(file):
    data = read(file("c,y\nred,0\nblue,1\n"), categoricals_mapping={"c": {"blue": 0, "red": 1, "green": 2}})
    assert data.train.features.tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(BadInput, match="unknown category red for variable c"):
        read(file("c,y\nred,0\nblue,1\n"), categoricals_mapping={"c": {"blue": 0}})


# What is refused

BAD = {
    "empty file": ("", "missing data: data.csv is empty"),
    "blank file": ("\n \n", "missing data: data.csv is empty"),
    "header only": (HEAD, "missing data: data.csv has a header line but no rows"),
    "NUL bytes": (b"a,y\n1,\0,0\n", "not a text file"),
    "UTF-16": ((HEAD + ROWS).encode("utf-16"), "UTF-16"),
    "Latin-1 header": ("a,é,y\n1,2,0\n".encode("latin-1"), "not UTF-8 text: its header line"),
    "Latin-1 label": ("a,y\n1,x\n2,été\n".encode("latin-1"), "not UTF-8 text: line 3"),
    "no label column": ("a,b,c\n1,2,0\n", "cannot find label column y in data.csv; its columns are a, b, c"),
    "wrong separator": ("a;b;y\n1;2;0\n", "only one column was found with separator ',' in 'a;b;y'"),
    "tab for separator": ("a\tb\ty\n1\t2\t0\n", r"set parameters.input.separator to '\t'?"),
    "text in a number": (HEAD + ROWS + "5,abc,1\n", "line 4 of data.csv has 'abc'"),
    "text advice": (HEAD + "x,1,1\n", "column a is not a number, use categoricals or ignore parameters instead"),
    "hexadecimal": (HEAD + ROWS + "0x1F,1,1\n", "column a is not a number"),
    "underscore": (HEAD + ROWS + "1_0,1,1\n", "column a is not a number"),
    "short line": (HEAD + ROWS + "5,1\n", "line 4 of data.csv has 2 cells; the header line has 3"),
    "long line": (HEAD + ROWS + "5,1,1,7\n", "line 4 of data.csv has 4 cells; the header line has 3"),
    "repeated name": ("a,a,y\n1,2,0\n", "column a stands twice"),
    "missing name": ("a,,y\n1,2,0\n", "column 2 of data.csv has no name"),
    "one class": (HEAD + "1,2,0\n3,4,0\n", "label column y holds one class only"),
    "one word": (HEAD + "1,2,x\n3,4,x\n", "label column y holds one class only"),
    "labels from 1": (HEAD + "1,2,1\n3,4,2\n", "set parameters.input.label_offset to -1?"),
    "label above": (HEAD + ROWS + "1,2,5\n", "label 5 of column y in data.csv is outside of 0..1"),
    "negative label": (HEAD + ROWS + "1,2,-1\n", "label -1 of column y"),
    "broken label": (HEAD + ROWS + "1,2,0.5\n", "is this a regression?"),
    "missing label": (HEAD + ROWS + "1,2,\n", "label column y of data.csv has no value in row 3"),
    "too many words": ("a,y\n1,p\n2,q\n3,r\n", "holds 3 classes (p, q, r), but parameters.mllib.nclasses is 2"),
    "infinity": (HEAD + ROWS + "inf,1,1\n", "column a of data.csv has the value inf in row 3"),
    "beyond float32": (HEAD + ROWS + "1e50,1,1\n", "column a of data.csv has the value 1e+50 in row 3"),
    "only a label": ("y\n0\n1\n", "has no feature column"),
    "10 MB line": (HEAD + ROWS + "1," + "9" * 10_000_000 + ",1\n", "line 4 of data.csv is longer than 8 MiB"),
    "10 MB header": ("x" * 10_000_000, "line 1 of data.csv is longer than 8 MiB"),
    "open quote": (HEAD + '1,"2,0\n3,4,1\n', "cells; the header line has 3"),
}


@pytest.mark.parametrize(("content", "text"), BAD.values(), ids=BAD)
def test_a_wrong_file_is_refused_with_the_place_and_the_cure(file, content, text):
    with pytest.raises(BadInput) as caught:
        read(file(content))
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_10_mb_quoted_cell_is_refused(file):
    with pytest.raises(BadInput, match="field larger than"):
        read(file(HEAD + ROWS + '1,"' + "x\n" * 5_000_000 + '",1\n'))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".", "is a directory, requires a CSV file"),
        ("absent.csv", "data file absent.csv does not exist"),
        ("data.csv/x", "does not exist"),
    ],
)
def test_what_is_no_file_is_refused(file, tmp_path, path, text):
    file(HEAD + ROWS)
    with pytest.raises(BadInput) as caught:
        read(FileSource(tmp_path / path, path))
    assert text in str(caught.value)


def test_a_device_or_pipe_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="no regular file"):
        read(FileSource(tmp_path / "pipe", "pipe"))
    with pytest.raises(BadInput, match="no regular file"):
        read(FileSource(Path("/dev/zero"), "zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(file):
    source = file(HEAD + ROWS)
    source.path.chmod(0)
    with pytest.raises(BadInput, match="permission denied"):
        read(source)


def test_an_unreadable_file_is_refused(monkeypatch, file):
    def refuse(*given):
        raise OSError(5, "Input/output error")

    source = file(HEAD + ROWS)
    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(BadInput, match=r"data file data\.csv cannot be read: input/output error"):
        read(source)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"id": "k"}, "cannot find id column k"),
        ({"ignore": ("z",)}, "cannot find column z of parameters.input.ignore"),
        ({"categoricals": ("z",)}, "cannot find column z of parameters.input.categoricals"),
        ({"ignore": ("a", "b")}, "has no feature column"),
        ({"test_split": 0.9}, "leaves none of the 2 rows"),
        ({"label": ("y", "z")}, "cannot find label column z"),
    ],
)
def test_options_that_the_data_does_not_bear_are_refused(options, text):
    with pytest.raises(BadInput) as caught:
        read(lines(HEAD + ROWS), **options)
    assert text in str(caught.value)


def test_no_data_is_missing_data():
    with pytest.raises(BadInput, match="missing data"):
        read_training([], CsvOptions(label=("y",)), TWO)
    with pytest.raises(BadInput, match="missing data"):
        read(LinesSource(()))


def test_a_regression_needs_finite_numbers():
    with pytest.raises(BadInput, match="label column y of in-memory data has no finite value in row 2"):
        read(lines("a,y\n1,2\n2,\n"), Target("regression", targets=1))
    with pytest.raises(BadInput, match="column y is not a number"):
        read(lines("a,y\n1,2\n2,x\n"), Target("regression", targets=1))


@pytest.mark.parametrize(
    ("test", "text"),
    [
        ("a,b,y\n1,2,z\n", "label z found in test set but not in train set"),
        ("a,y\n1,p\n", "cannot find column b in in-memory data; the model was trained with it"),
        ("a,b\n1,2\n", "cannot find label column y"),
        ("a,b,y\n", "has a header line but no rows"),
        ("a;b;y\n1;2;p\n", "only one column was found"),
    ],
)
def test_a_test_set_that_does_not_fit_is_refused(test, text):
    train = lines("a,b,y\n1,2,p\n2,1,q\n")
    with pytest.raises(BadInput) as caught:
        read_training([train, lines(test)], CsvOptions(label=("y",)), TWO)
    assert text in str(caught.value)


def test_a_numeric_label_of_the_test_set_must_be_a_known_class():
    with pytest.raises(BadInput, match="label 7 found in test set but not in train set"):
        read_training([lines(HEAD + ROWS), lines(HEAD + "1,2,7\n")], CsvOptions(label=("y",)), TWO)


def test_columns_of_a_test_set_are_matched_by_name_and_unknown_ones_are_warnings():
    data = read_training(
        [lines("a,b,y\n1,2,p\n2,1,q\n"), lines("new,y,b,a\n9,q,20,10\n")], CsvOptions(label=("y",)), TWO
    )
    assert data.tests[0].features.tolist() == [[10, 20]]
    assert data.tests[0].labels.tolist() == [1]
    assert "new" in data.warnings[0].message


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([",", ";", "\t"]))
def test_no_bytes_whatever_give_another_error_than_bad_input(content, separator):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(content)
        with contextlib.suppress(BadInput):
            read(FileSource(path, "data.csv"), separator=separator)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='ay01.,;"\n\r -e', max_size=60))
def test_no_rows_whatever_give_another_error_than_bad_input(rows):
    with contextlib.suppress(BadInput):
        read(LinesSource(("a,b,y", rows)))


# Predicting


def predict(text, fitted, target=TWO, labelled=False):
    return read_prediction([lines(text)], fitted, target, labelled=labelled)


TRAINED = "k,a,note,b,y\nr1,1,n,2,p\nr2,3,n,4,q\n"


def trained(**options):
    return fitted_on(TRAINED, **{"id": "k", "ignore": ("note",), **options})


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("r1,1,n,2,p\nr2,3,n,4,q", ["r1", "r2"]),  # all columns
        ("r1,1,n,2\nr2,3,n,4", ["r1", "r2"]),  # without the label
        ("r1,1,2\nr2,3,4", ["r1", "r2"]),  # without label and ignored column
        ("1,2\n3,4", ["1", "2"]),  # features only
        ("k,a,note,b,y\nr1,1,n,2,p\nr2,3,n,4,q", ["r1", "r2"]),  # header, all columns
        ("b,k,a\n2,r1,1\n4,r2,3", ["r1", "r2"]),  # header in another order
        ("a,k,b,new\n1,r1,2,x\n3,r2,4,x", ["r1", "r2"]),  # header with a new column
    ],
)
def test_lines_to_predict_on_may_have_a_header_or_not(text, uris):
    table, _ = predict(text, trained())
    assert table.features.tolist() == [[1, 2], [3, 4]]
    assert table.uris == uris


def test_rows_without_id_are_numbered_from_1_through_all_sources():
    fitted = fitted_on(HEAD + ROWS)
    table, _ = read_prediction([lines("1,2\n3,4"), lines("a,b\n5,6")], fitted, TWO, labelled=False)
    assert table.uris == ["1", "2", "3"]
    assert table.features.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_the_first_line_of_a_file_is_always_a_header(file):
    with pytest.raises(BadInput, match="cannot find column a"):
        read_prediction([file("1,2\n3,4\n")], fitted_on(HEAD + ROWS), TWO, labelled=False)
    table, _ = read_prediction([file("b,a\n2,1\n")], fitted_on(HEAD + ROWS), TWO, labelled=False)
    assert table.features.tolist() == [[1, 2]]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(BadInput, match=r"has 4 cells; the model was trained with 2 features: a, b"):
        predict("1,2,3,4", fitted_on(HEAD + ROWS))
    with pytest.raises(BadInput, match=r"set parameters\.input\.separator to ';'"):
        predict("1;2", fitted_on(HEAD + ROWS))


def test_an_unseen_category_is_refused_at_prediction():
    fitted = fitted_on("c,y\nred,0\nblue,1\n", categoricals=("c",))
    with pytest.raises(BadInput, match="unknown category green for variable c"):
        predict("c\ngreen", fitted)


def test_scaling_at_prediction_uses_the_bounds_of_the_training():
    fitted = fitted_on("a,y\n0,0\n10,1\n", scale=True)
    assert predict("5", fitted)[0].features.tolist() == [[0.5]]


def test_a_request_may_change_separator_id_and_bounds_but_not_the_features():
    fitted = fitted_on("k,a,y\n1,0,0\n2,10,1\n", id="k")
    assert resolve(fitted, CsvOptions(separator=";", id="z"), {"separator", "id"}).separator == ";"
    with pytest.raises(BadInput, match="a feature that the model was trained with"):
        resolve(fitted, CsvOptions(ignore=("a",)), {"ignore"})
    with pytest.raises(BadInput, match="predict: failed acquiring scaling min_vals or max_vals"):
        resolve(fitted, CsvOptions(scale=True), {"scale"})
    scaled = resolve(
        fitted,
        CsvOptions(scale=True, min_vals=(0.0, 0.0, 0.0), max_vals=(1.0, 20.0, 1.0)),
        {"scale", "min_vals", "max_vals"},
    )
    assert predict("k,a\nx,5", scaled)[0].features.tolist() == [[0.25]]


def test_labelled_rows_give_labels_by_the_words_of_the_training():
    fitted = fitted_on("a,y\n1,p\n2,q\n")
    table, _ = predict("a,y\n1,q\n2,p", fitted, labelled=True)
    assert table.labels.tolist() == [1, 0]
    with pytest.raises(BadInput, match="measures need the true labels"):
        predict("a\n1", fitted, labelled=True)


def test_what_was_learned_about_columns_survives_json():
    fitted = trained(scale=True)
    assert Fitted.from_json(fitted.as_json()) == fitted


def test_sources_survive_json(tmp_path):
    for source in (FileSource(tmp_path / "x", "x"), LinesSource(("a", "b"))):
        assert from_json(to_json(source)) == source
    with pytest.raises(BadInput, match="missing data"):
        from_json({})
