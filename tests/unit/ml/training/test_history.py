"""Measure histories."""

from ml.training.history import History


def test_series_stay_equally_long_when_measures_come_and_go():
    history = History()
    history.add(1, {"acc": 0.5})
    history.add(3, {"acc": 0.6, "auc": 0.7})
    history.add(5, {"auc": 0.8})
    assert history.as_json() == {
        "iteration_hist": [1, 3, 5],
        "acc_hist": [0.5, 0.6, None],
        "auc_hist": [None, 0.7, 0.8],
    }
    assert len(history) == 3


def test_a_history_goes_on_from_its_json_without_sharing_it():
    first = History()
    first.add(1, {"acc": 0.5})
    second = History(first.as_json())
    second.add(2, {"acc": 0.6})
    assert second.as_json()["acc_hist"] == [0.5, 0.6]
    assert first.as_json()["acc_hist"] == [0.5]
