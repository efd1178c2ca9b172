"""Scaling, categories, bounds.dat, and what is known of models whose training we have not seen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from ml.connectors import csv_text
from ml.connectors.csv import Fitted, fitted_by_hand, read_prediction, read_training, resolve
from ml.connectors.csv_columns import read_bounds
from ml.connectors.source import FileSource, LinesSource
from ml.errors import BadInput, ModelUnusable
from ml.options.csv import CATEGORIES_MOST, CsvOptions
from ml.options.target import Target

ONE = Target("regression", targets=1)
TWO = Target("classification", classes=2)


def lines(text):
    return LinesSource(tuple(text.splitlines()))


def read(text, target=ONE, **options):
    return read_training([lines(text)], CsvOptions(**{"label": ("y",), **options}), target)


def table_of(values):
    names = [f"x{column}" for column in range(values.shape[1])]
    rows = ["" if math.isnan(value) else repr(float(value)) for row in values for value in row]
    width = values.shape[1]
    return "\n".join(
        [",".join([*names, "y"]), *(",".join([*rows[i : i + width], "1"]) for i in range(0, len(rows), width))]
    )


VALUES = arrays(
    np.float64,
    st.tuples(st.integers(2, 30), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([20, 10_000]))
def test_minmax_scaling_is_that_of_scikit_learn(values, size):
    before, csv_text.PIECE_BYTES = csv_text.PIECE_BYTES, size
    try:
        data = read(table_of(values), scale=True)
    finally:
        csv_text.PIECE_BYTES = before
    scaler = MinMaxScaler().fit(values)
    expected = scaler.transform(values)
    constant = scaler.data_range_ == 0  # left as they are here, by the contract
    expected[:, constant] = values[:, constant]
    np.testing.assert_allclose(data.train.features, expected.astype(np.float32), rtol=1e-6, atol=1e-6)
    assert data.report["min_vals"][:-1] == scaler.data_min_.tolist()
    assert data.report["max_vals"][:-1] == scaler.data_max_.tolist()


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([20, 10_000]), st.booleans())
def test_znorm_scaling_is_that_of_scikit_learn_missing_values_aside(values, size, has_gap):
    if has_gap:
        values = values.copy()
        values[0, 0] = np.nan
    before, csv_text.PIECE_BYTES = csv_text.PIECE_BYTES, size
    try:
        data = read(table_of(values), scale=True, scale_type="znorm")
    finally:
        csv_text.PIECE_BYTES = before
    scaler = StandardScaler().fit(values)
    np.testing.assert_allclose(data.report["mean_vals"][:-1], scaler.mean_, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(data.report["variance_vals"][:-1], scaler.var_, rtol=1e-7, atol=1e-7)
    spread = scaler.var_ > 1e-3
    np.testing.assert_allclose(
        data.train.features[:, spread], scaler.transform(values)[:, spread], rtol=1e-3, atol=1e-3
    )


def test_the_bounds_are_those_of_the_training_file_alone():
    sources = [lines("a,y\n0,1\n10,2\n"), lines("a,y\n20,1\n-5,2\n")]
    data = read_training(sources, CsvOptions(label=("y",), scale=True), ONE)
    assert data.tests[0].features.tolist() == [[2], [-0.5]]
    assert data.report["max_vals"] == [10, 2]


def test_bounds_speak_of_all_columns_that_are_not_ignored_in_file_order():
    text = "k,a,n,c,y,b,\nr1,1,x,u,5,10,\nr2,3,x,v,7,20,\n"
    data = read(text, id="k", ignore=("n",), categoricals=("c",), scale=True)
    assert data.report["min_vals"] == [0, 1, 0, 5, 10]  # k, a, c, y, b: the id and words are not looked at
    assert data.report["max_vals"] == [0, 3, 0, 7, 20]
    assert data.train.features.tolist() == [[0, 1, 0, 0], [1, 0, 1, 1]]


def test_columns_without_a_value_or_an_extent_stay_as_they_are():
    data = read("a,b,y\n,3,1\nNA,3,2\n", scale=True)
    assert np.isnan(data.train.features[:, 0]).all()
    assert data.train.features[:, 1].tolist() == [3, 3]
    assert data.report["min_vals"] == [0, 3, 1]
    assert read("a,b,y\n,3,1\nNA,3,2\n", scale=True, scale_type="znorm").report["variance_vals"] == [0, 0, 0.25]


def test_a_column_of_one_value_has_no_variance_whatever_rounding_makes_of_its_mean():
    data = read("a,y\n" + "0.1,1\n" * 1000 + ",2\n", scale=True, scale_type="znorm")
    assert (data.report["mean_vals"][0], data.report["variance_vals"][0]) == (0.1, 0)
    assert set(data.train.features[:-1, 0].tolist()) == {np.float32(0.1)}


@pytest.mark.parametrize(
    ("cells", "scale_type", "text"),
    [
        (["1e308", "-1e308"], "minmax", "values of column a of in-memory data lie too far apart"),
        (["1e200", "-1e200"], "znorm", "values of column a of in-memory data lie too far apart"),
        (["1e99", "1e99"], "minmax", "column a of in-memory data has the value 1e+99 in every row; it is too large"),
        (["1e99", "1e99"], "znorm", "column a of in-memory data has the value 1e+99 in every row; it is too large"),
        (["inf", "1"], "minmax", "column a of in-memory data has the value inf in row 1; it is too large"),
    ],
)
def test_values_that_cannot_be_scaled_are_refused(cells, scale_type, text):
    with pytest.raises(BadInput, match=text.replace("+", r"\+")):
        read("a,y\n" + "".join(f"{cell},1\n" for cell in cells), scale=True, scale_type=scale_type)


def test_large_values_may_be_scaled_to_small_ones():
    assert read("a,y\n1e60,1\n3e60,2\n2e60,2\n", scale=True).train.features[:, 0].tolist() == [0, 1, 0.5]
    data = read("a,y\n1e60,1\n", scale=True, min_vals=(0.0, 0.0), max_vals=(2e60, 1.0))
    assert data.train.features.tolist() == [[0.5]]
    with pytest.raises(BadInput, match=r"column a of in-memory data has the value 1e\+60 in row 1; it is too large"):
        read("a,y\n1e60,1\n", scale=True, min_vals=(0.0, 0.0), max_vals=(1.0, 1.0))


def test_bounds_that_go_unused_are_told():
    data = read("a,y\n0,1\n1,2\n", scale=True, mean_vals=(0.0, 0.0), variance_vals=(1.0, 1.0))
    assert [warning.parameter for warning in data.warnings] == ["parameters.input.mean_vals"]
    assert data.train.features.tolist() == [[0], [1]]


# Categories

COLOURS = "a,c,y\n1,red,1\n2,blue,2\n3,red,3\n4,green,4\n"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["red", "blue", "10", "x y"]), min_size=1, max_size=20), st.sampled_from([8, 10_000]))
def test_words_become_columns_as_in_scikit_learn(words, size):
    before, csv_text.PIECE_BYTES = csv_text.PIECE_BYTES, size
    try:
        data = read("c,y\n" + "".join(f"{word},1\n" for word in words), categoricals=("c",))
    finally:
        csv_text.PIECE_BYTES = before
    in_order = list(dict.fromkeys(words))
    expected = OneHotEncoder(categories=[in_order], sparse_output=False).fit_transform([[word] for word in words])
    assert data.train.features.tolist() == expected.tolist()
    assert data.fitted.inputs == [f"c={word}" for word in in_order]


def test_unseen_categories_are_refused_by_name_and_row():
    with pytest.raises(BadInput, match=r"^unknown category black for variable c \(row 2\)$"):
        read_training(
            [lines(COLOURS), lines("a,c,y\n1,red,1\n2,black,2\n")],
            CsvOptions(label=("y",), categoricals=("c",)),
            ONE,
        )
    fitted = read(COLOURS, categoricals=("c",)).fitted
    with pytest.raises(BadInput, match=r"^unknown category black for variable c \(row 1\)$"):
        read_prediction([lines("a,c\n1,black")], fitted, ONE, labelled=False)
    with pytest.raises(BadInput, match="unknown category green for variable c"):
        read(COLOURS, categoricals_mapping={"c": {"red": 0, "blue": 1}})


def test_some_categories_may_be_given_and_others_found():
    text = "c,d,y\nx,q,1\ny,p,2\n"
    data = read(text, categoricals=("d",), categoricals_mapping={"c": {"y": 0, "x": 1}})
    assert data.fitted.inputs == ["c=y", "c=x", "d=q", "d=p"]
    assert data.train.features.tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]


def test_blanks_around_words_do_not_matter():
    data = read("c,y\n red,1\nred ,2\n", categoricals=("c",))
    assert data.fitted.categories == {"c": {"red": 0}}


def test_a_column_of_ids_is_no_categorical_one():
    text = "c,y\n" + "".join(f"id{row},1\n" for row in range(CATEGORIES_MOST + 1))
    with pytest.raises(BadInput, match="column c of in-memory data holds more than 65536 different words; is it an id"):
        read(text, categoricals=("c",))


def test_words_that_are_all_missing_leave_no_feature():
    with pytest.raises(BadInput, match="no feature column with a value in it"):
        read("c,y\n,1\nNA,2\n", categoricals=("c",))


# bounds.dat


@pytest.mark.parametrize(("scale_type", "one", "other"), [("minmax", [1, 10], [3, 20]), ("znorm", [2, 15], [1, 25])])
def test_bounds_are_written_with_the_places_of_label_and_id(tmp_path, scale_type, one, other):
    data = read("k,a,y,b\nr1,1,0,10\nr2,3,4,20\n", id="k", scale=True, scale_type=scale_type)
    data.fitted.write_files(tmp_path)
    names = ("min_vals", "max_vals") if scale_type == "minmax" else ("mean_vals", "variance_vals")
    found = {}
    for line in (tmp_path / "bounds.dat").read_text().splitlines():
        key, *values = line.split(":")
        found[key] = [float(value) for value in values]
    label = [0, 4] if scale_type == "minmax" else [2, 4]
    assert found == {
        "ncols": [4], "nlabels": [1], "label_pos": [2], "id_pos": [0],
        names[0]: [0, one[0], label[0], one[1]], names[1]: [0, other[0], label[1], other[1]],
    }  # fmt: skip
    again = read_bounds(tmp_path)
    assert (again.low, again.high) == (data.fitted.low, data.fitted.high)


def test_without_scaling_there_is_no_bounds_file(tmp_path):
    read("a,y\n0,1\n1,2\n").fitted.write_files(tmp_path)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6))
def test_bounds_come_back_to_the_last_digit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("bounds")
    fitted = Fitted([f"c{i}" for i in range(len(values))], ["c0"], ["c1"], "", [], [0], ",", '"')
    fitted.scale_type, fitted.low, fitted.high = "minmax", values, values[::-1]
    fitted.write_files(folder)
    found = read_bounds(folder)
    assert (found.low, found.high, found.label_places, found.id_place) == (values, values[::-1], [1], None)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ncolsmi_va:0123456789 .-e\n", max_size=80) | st.binary(max_size=60))
def test_no_bounds_file_whatever_gives_another_error_than_that_it_is_broken(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bounds")
    (folder / "bounds.dat").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelUnusable, match=r"bounds\.dat (is broken|cannot be read)"):
        read_bounds(folder)


# Models whose training we have not seen

UPSTREAM = "ncols: 4\nnlabels: 1\nlabel_pos:  3\nmin_vals:  0 : 10 : 5 : 0\nmax_vals:  1 : 20 : 5 : 2\n"


def by_hand(folder, inputs, **options):
    return fitted_by_hand(inputs, CsvOptions(**options), folder)


def predicted(text, fitted, target=ONE, **more):
    table, _ = read_prediction([lines(text)], fitted, target, labelled=False, **more)
    return table.features.tolist()


def test_a_model_with_names_takes_its_bounds_from_the_file_beside_it(tmp_path):
    (tmp_path / "bounds.dat").write_text(UPSTREAM)
    fitted = by_hand(tmp_path, ["p", "q", "r"], label=("y",))
    assert fitted.columns == ["p", "q", "r", "y"]
    assert predicted("0.5,15,7", fitted) == [[0.5, 0.5, 7]]
    assert predicted("r,q,p\n7,15,0.5", fitted) == [[0.5, 0.5, 7]]
    assert predicted("0.5,15,7,1", fitted) == [[0.5, 0.5, 7]]
    assert Fitted.from_json(fitted.as_json()) == fitted


def test_a_model_without_names_takes_columns_as_the_header_has_them(tmp_path):
    (tmp_path / "bounds.dat").write_text(UPSTREAM)
    data = tmp_path / "data.csv"
    data.write_text("k,p,q,y,r\nr1,0.5,15,2,7\n")
    fitted = by_hand(tmp_path, ["f0", "f1", "f2"], label=("y",), id="k")
    table, warnings = read_prediction([FileSource(data, "data.csv")], fitted, ONE, labelled=True)
    assert table.features.tolist() == [[0.5, 0.5, 7]]
    assert (table.uris, table.labels.tolist(), warnings) == (["r1"], [[2]], [])
    assert predicted("0.5,15,7", fitted) == [[0.5, 0.5, 7]]
    assert predicted("f2,f0,f1,k\n7,0.5,15,r1", fitted) == [[0.5, 0.5, 7]]
    assert Fitted.from_json(fitted.as_json()) == fitted
    data.write_text("k,p,q\nr1,0.5,15\n")
    with pytest.raises(BadInput, match=r"data.csv has 2 feature columns; the model was trained with 3"):
        read_prediction([FileSource(data, "data.csv")], fitted, ONE, labelled=False)


def test_a_model_without_names_knows_words_by_the_given_mapping(tmp_path):
    fitted = by_hand(tmp_path, ["f0", "f1", "f2"], categoricals_mapping={"c": {"v": 1, "u": 0}})
    assert predicted("c,a\nv,3\nu,4", fitted) == [[0, 1, 3], [1, 0, 4]]
    with pytest.raises(BadInput, match=r"cannot find column c of parameters\.input\.categoricals_mapping"):
        predicted("1,2", fitted)


def test_a_model_with_names_of_words_takes_them_together(tmp_path):
    fitted = by_hand(tmp_path, ["a", "c=u", "c=v"], categoricals_mapping={"c": {"v": 1, "u": 0}})
    assert fitted.features == ["a", "c"]
    assert predicted("5,v", fitted) == [[5, 0, 1]]
    with pytest.raises(ModelUnusable, match="are not the model's"):
        by_hand(tmp_path, ["a", "c=u", "b"], categoricals_mapping={"c": {"v": 1, "u": 0}})
    with pytest.raises(ModelUnusable, match="names d, which the model does not know"):
        by_hand(tmp_path, ["a", "b"], categoricals_mapping={"d": {"u": 0}})


def test_given_bounds_win_over_the_file(tmp_path):
    (tmp_path / "bounds.dat").write_text(UPSTREAM)
    options = {"scale": True, "min_vals": (0.0, 0.0), "max_vals": (2.0, 4.0)}
    assert predicted("1,1", by_hand(tmp_path, ["p", "q"], **options)) == [[0.5, 0.25]]
    # As DeepDetect returns them, with the label, they can be told apart by the header.
    wide = {"scale": True, "min_vals": (0.0, 7.0, 0.0), "max_vals": (2.0, 9.0, 4.0), "label": ("y",)}
    assert predicted("p,y,q\n1,1,1", by_hand(tmp_path, ["f0", "f1"], **wide)) == [[0.5, 0.25]]
    with pytest.raises(BadInput, match="the bounds have 3 values"):
        predicted("1,1", by_hand(tmp_path, ["f0", "f1"], **wide))


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        (
            ["p", "q"],
            {"scale": True},
            "neither bounds.dat in the repository nor parameters.input.min_vals and max_vals",
        ),
        (["p", "q"], {"scale": True, "min_vals": (0.0,), "max_vals": (1.0,)}, "min_vals has 1 values; the model has 2"),
    ],
)
def test_scaling_without_fitting_bounds_is_refused(tmp_path, inputs, options, text):
    with pytest.raises(ModelUnusable, match=text):
        by_hand(tmp_path, inputs, **options)
    (tmp_path / "bounds.dat").write_text(UPSTREAM)
    with pytest.raises(ModelUnusable, match="speaks of 4 columns, 1 of them label or id; the model has 2 feature"):
        by_hand(tmp_path, ["p", "q"])


# What a prediction request may say otherwise


def test_a_request_may_not_turn_a_feature_into_something_else():
    fitted = read("a,b,y\n1,2,3\n4,5,6\n").fitted
    for option in ("id", "ignore", "label"):
        value = "a" if option == "id" else ("a",)
        with pytest.raises(BadInput, match=f"parameters.input.{option} names 'a', a feature"):
            resolve(fitted, CsvOptions(**{option: value}), {option})
    with pytest.raises(BadInput, match="names 'a', which was not categorical"):
        resolve(fitted, CsvOptions(categoricals=("a",)), {"categoricals"})
    with pytest.raises(BadInput, match="categoricals_mapping differs from the training for column 'a'"):
        resolve(fitted, CsvOptions(categoricals_mapping={"a": {"u": 0}}), {"categoricals_mapping"})
    with pytest.raises(BadInput, match="label_offset has 2 values for 1 label columns"):
        resolve(fitted, CsvOptions(label_offset=(1, 2)), {"label_offset"})


def test_what_the_training_said_may_be_said_again():
    text = "k,a,c,y,n\nr,1,u,0,x\nr,3,v,1,x\n"
    options = CsvOptions(label=("y",), id="k", ignore=("n",), categoricals=("c",), scale=True, test_split=0.5, db=True)
    fitted = read_training(
        [lines(text)], CsvOptions(**{**options.__dict__, "db": False, "test_split": 0.0}), TWO
    ).fitted
    given = {"label", "id", "ignore", "categoricals", "scale", "test_split", "db", "connector"}
    again = resolve(fitted, options, given)
    assert predicted("r,3,v,1,x", again, TWO) == predicted("r,3,v,1,x", fitted, TWO) == [[1, 0, 1]]
    sent_back = {**options.__dict__, "min_vals": tuple(fitted.low), "max_vals": tuple(fitted.high)}
    again = resolve(fitted, CsvOptions(**sent_back), given | {"min_vals", "max_vals"})
    assert predicted("r,3,v,1,x", again, TWO) == [[1, 0, 1]]


def test_a_model_trained_with_znorm_is_asked_with_it_though_the_request_says_only_scale():
    fitted = read("a,y\n1,0\n3,1\n", scale=True, scale_type="znorm").fitted
    again = resolve(fitted, CsvOptions(scale=True), {"scale"})
    assert predicted("3", again) == [[1]]
    assert predicted("3", resolve(fitted, CsvOptions(scale=False), {"scale"})) == [[3]]


def test_bounds_that_a_model_does_not_use_are_told():
    fitted = read("a,y\n1,0\n3,1\n").fitted
    asked = resolve(fitted, CsvOptions(min_vals=(0.0, 0.0), max_vals=(1.0, 1.0)), {"min_vals", "max_vals"})
    table, warnings = read_prediction([lines("3")], asked, ONE, labelled=False)
    assert table.features.tolist() == [[3]]
    assert [warning.parameter for warning in warnings] == ["parameters.input.min_vals"]


def test_rows_of_numbers_are_no_header_though_columns_are_called_by_numbers():
    fitted = read("0,1,y\n5,6,1\n7,8,2\n").fitted
    assert predicted("1,0", fitted) == [[1, 0]]
    assert predicted("0,1\n3,4", fitted) == [[3, 4]]


def test_tampered_descriptions_of_columns_are_no_columns():
    sound = read("a,c,y\n1,u,0\n3,v,1\n", scale=True, categoricals=("c",)).fitted.as_json()
    for changes in (
        {"low": [0.0]}, {"high": [None, 1, 1]}, {"scale_type": "other"}, {"features": ["z"]}, {"categories": {"c": 3}},
        {"separator": ",,"}, {"label_offset": [1, 2, 3]}, {"unnamed": "3"}, {"low": [math.nan, 0, 0]}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(TypeError):
            Fitted.from_json({**sound, **changes})
