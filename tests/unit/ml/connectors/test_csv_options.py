"""Options of the csv connector that cannot go together."""

import pytest

from ml.errors import BadParameter
from ml.options.csv import CsvOptions, check, check_target
from ml.options.loading import load
from ml.options.target import Target


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        ({"label": ("y",), "ignore": ("y",)}, "ignore", "is in both"),
        ({"label": ("y",), "id": "y"}, "id", "is both"),
        ({"ignore": ("k",), "id": "k"}, "id", "in parameters.input.ignore"),
        ({"label": ("y", "y")}, "label", "names the same column twice"),
        ({"label": ("y",), "categoricals": ("y",)}, "categoricals", "is categorical and at the same time label"),
        ({"id": "k", "categoricals_mapping": {"k": {"u": 0}}}, "categoricals_mapping", "at the same time label"),
        ({"categoricals_mapping": {"c": {"u": 1, "v": 5}}}, "categoricals_mapping", "of column c from 0 without gaps"),
        ({"categoricals_mapping": {"c": {}}}, "categoricals_mapping", "of column c from 0 without gaps"),
        (
            {"categoricals_mapping": {"c": {str(word): word for word in range(65_537)}}},
            "categoricals_mapping",
            "has 65537 words for column c; at most 65536",
        ),
        ({"min_vals": (1.0,)}, "min_vals", "equally many"),
        ({"mean_vals": (1.0,), "variance_vals": (1.0, 2.0)}, "mean_vals", "equally many"),
        ({"min_vals": (0.0, 3.0), "max_vals": (1.0, 2.0)}, "min_vals", "min_vals, 3, is above its maximum, 2"),
        ({"label": ("y",), "label_offset": (1, 2)}, "label_offset", "has 2 values for 1 label columns"),
        ({"separator": "", "label": ("y",)}, "separator", "is empty"),
        ({"separator": "é"}, "separator", "must be one ASCII character"),
        ({"quote": ","}, "quote", "must differ"),
        ({"test_split": 1.0}, "test_split", "must be below 1"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(options, name, text):
    with pytest.raises(BadParameter) as caught:
        check(CsvOptions(**options))
    assert caught.value.name == f"parameters.input.{name}"
    assert caught.value.section == "input"
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("options", "target", "name"),
    [
        ({}, Target("regression", targets=1), "input.label"),
        ({"label": ("y", "z")}, Target("classification", classes=2), "input.label"),
        ({"label": ("y",)}, Target("regression", targets=2), "input.label"),
        ({"label": ("y",)}, Target("multi_label", classes=2), "input.label"),
        ({"label": ("y",), "autoencoder": True}, Target("regression", targets=1), "input.autoencoder"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused(options, target, name):
    with pytest.raises(BadParameter) as caught:
        check_target(CsvOptions(**options), target)
    assert caught.value.name == f"parameters.{name}"


def test_an_autoencoder_needs_no_label_and_may_be_announced_here_too():
    check_target(CsvOptions(), Target("autoencoder"))
    check_target(CsvOptions(autoencoder=True, label=("y",)), Target("autoencoder"))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"variance_vals": [1, -1]}, "variance_vals"),
        ({"db": "yes"}, "it must be true or false"),
        ({"min_vals": [float("nan")]}, "min_vals"),
        ({"test_split": 1.5}, "at most 1"),
        ({"seed": -2}, "at least -1"),
        ({"scale_type": "log"}, "one of minmax, znorm"),
        ({"categoricals_mapping": {"c": {"u": -1}}}, "categoricals_mapping"),
        ({"label_offset": "1"}, "label_offset"),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(given, text):
    with pytest.raises(BadParameter) as caught:
        load(CsvOptions, given, path="parameters.input", section="input", owner="csv")
    assert text in str(caught.value)
