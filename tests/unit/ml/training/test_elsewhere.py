"""Progress of trainings that another server made."""

from __future__ import annotations

from typing import Any

import pytest

from ml.measures import Best
from ml.training.checkpoints import Progress
from ml.training.elsewhere import progress_from


def answer(**hist: Any) -> dict[str, Any]:
    return {"status": {"code": 200, "msg": "OK"}, "body": {"measure": {"acc": 0.5}, "measure_hist": hist}}


def test_histories_of_tests_and_of_iterations_are_told_apart():
    metrics = answer(iteration_hist=[10, 20], acc_hist=[0.5, 0.75], train_loss_hist=[3, 2.5, 2, 1.5])
    metrics["body"]["measure_sampling"] = {"train_loss_sampling": 5}
    found = progress_from(metrics, "iteration:20\nacc:0.75\n", 20)
    assert found is not None
    assert found.history.as_json() == {"iteration_hist": [10, 20], "acc_hist": [0.5, 0.75]}
    assert found.steps.as_json() == {"series": {"train_loss_hist": [3, 2.5, 2, 1.5]}, "stride": 5, "count": 20}
    assert (found.done, found.best) == (20, Best("acc", 0.75, 20))
    assert Progress.from_json(found.as_json()).as_json() == found.as_json()


def test_tests_without_an_axis_are_counted():
    found = progress_from(answer(f1_hist=[0.1, 0.2, None]), None, 3)
    assert found is not None
    assert found.history.as_json() == {"iteration_hist": [0, 1, 2], "f1_hist": [0.1, 0.2, None]}
    assert found.best is None
    found.history.add(3, {"f1": 0.4})
    assert found.history.as_json()["f1_hist"] == [0.1, 0.2, None, 0.4]


def test_series_of_another_length_or_of_no_numbers_are_left_out():
    metrics = answer(
        iteration_hist=[1, 2], acc_hist=[0.5, 0.6], f1_hist=[0.5], auc_hist=["a", "b"], mcc_hist=5, x=[1, 2]
    )
    found = progress_from(metrics, None, 2)
    assert found is not None
    assert found.history.as_json() == {"iteration_hist": [1, 2], "acc_hist": [0.5, 0.6]}


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        [],
        {},
        {"body": []},
        {"body": {}},
        {"body": {"measure_hist": []}},
        answer(),
        answer(acc_hist=[]),
        answer(a=1),
    ],
)
def test_answers_without_a_history_give_nothing(metrics: Any):
    assert progress_from(metrics, "iteration:1\nacc:1", 1) is None


@pytest.mark.parametrize(
    "text", ["", "iteration:1", "acc:1", "iteration:x\nacc:1", "iteration:1\nacc:e", "iteration:1\nacc:"]
)
def test_a_best_model_that_cannot_be_read_is_none(text: str):
    found = progress_from(answer(acc_hist=[0.5]), text, 1)
    assert found is not None
    assert found.best is None


def test_a_best_model_of_one_of_several_test_sets_is_read_too():
    found = progress_from(answer(acc_hist=[0.5]), "iteration:4\nacc-5:1e-3\ntest_name: test.csv\n", 9)
    assert found is not None
    assert found.best == Best("acc-5", 0.001, 4)
