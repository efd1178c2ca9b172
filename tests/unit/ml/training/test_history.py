"""Measure histories."""

from ml.training.history import History, Steps


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


def test_a_series_of_every_iteration_stays_bounded_and_tells_how_far_apart_its_points_are():
    steps = Steps()
    for iteration in range(50_000):
        steps.add({"train_loss": float(iteration)})
    held = steps.as_json()
    assert len(held["series"]["train_loss"]) < Steps.POINTS_MAX
    assert held["stride"] == 4
    assert held["series"]["train_loss"] == [float(each) for each in range(0, 50_000, 4)]


def test_a_series_goes_on_from_its_json_as_if_nothing_had_happened(monkeypatch):
    monkeypatch.setattr(Steps, "POINTS_MAX", 8)
    whole, first = Steps(), Steps()
    for iteration in range(37):
        whole.add({"train_loss": float(iteration)})
        first.add({"train_loss": float(iteration)})
        first = Steps.from_json(first.as_json())
    assert first.as_json() == whole.as_json()


def test_a_view_of_a_series_holds_no_more_points_than_asked():
    steps = Steps()
    for iteration in range(100):
        steps.add({"train_loss": float(iteration)})
    view = steps.sampled(30)
    assert view == {"series": {"train_loss_hist": [float(each) for each in range(0, 100, 4)]}, "stride": 4}
