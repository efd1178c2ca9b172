"""One training from its specification to its files, in this process."""

import json
import math

import pytest

from ml.backends import xgboost as backend
from ml.errors import BadInput, BadParameter, UnknownLibrary
from ml.training.session import Specification, as_days, encoded, run

ROWS = ["a,b,y"] + [f"{i % 7},{i % 5},{int(i % 7 > 3)}" for i in range(60)]


def specification(tmp_path, **changes):
    given = {
        "task": "train-1-a1",
        "backend": "xgboost",
        "connector": "csv",
        "parameters": {
            "input": {"label": "y", "test_split": 0.25, "shuffle": True},
            "mllib": {"nclasses": 2, "iterations": 6, "test_interval": 2},
            "output": {"measure": ["acc", "f1", "cmdiag"]},
        },
        "data": [{"lines": ROWS}],
        "scratch": str(tmp_path),
        "resume": None,
        "threads": 1,
        "device": "cpu",
        "checkpoint_s": 1e9,
    }
    for name, value in changes.items():
        if isinstance(value, dict):
            value = {**given["parameters"], **{k: {**given["parameters"][k], **v} for k, v in value.items()}}
        given[name] = value
    return Specification.from_json(json.loads(json.dumps(given)))


def trained(wanted, stop=lambda: None):
    events = []
    run(wanted, events.append, stop)
    for event in events:
        json.loads(encoded(event))
    return events


def of(events, kind):
    return [event for event in events if event["event"] == kind]


def test_a_training_tells_its_phases_progress_tests_and_end(tmp_path):
    events = trained(specification(tmp_path))
    assert [event["phase"] for event in of(events, "phase")] == ["reading", "training", "saving"]
    assert [event["iteration"] for event in of(events, "measures")] == [2, 4, 5]
    progress = of(events, "progress")
    assert (progress[0]["iteration"], progress[-1]["iteration"], progress[-1]["iterations"]) == (0, 5, 6)
    measure = progress[-1]["measure"]
    assert measure["iteration"] == 5
    assert measure["remain_time"] == 0
    assert {"elapsed_time_ms", "iter_time", "remain_time_str", "acc", "cmdiag", "labels"} <= measure.keys()
    end = events[-1]
    assert (end["event"], end["iteration"]) == ("finished", 5)
    report = end["report"]
    assert report["measure"]["iteration"] == 5
    assert (report["measure"]["test_id"], report["measure"]["test_name"]) == (0, "split")
    assert report["measures"][0]["acc"] == report["measure"]["acc"]
    assert report["measure_hist"]["iteration_hist"] == [2, 4, 5]
    assert report["measure_hist"].keys() == {
        f"{name}_hist" for name in ("iteration", "acc", "f1", "precision", "recall", "accp", "cmdiag_0", "cmdiag_1")
    }
    assert report["parameters"] == {"input": {"connector": "csv"}}
    assert report["mltype"] == end["description"]["mltype"] == "classification"
    assert set(end["seconds"]) == {"reading", "training", "saving"}
    assert end["peak_bytes"] > 10**6
    assert (tmp_path / "model" / "0006.model").exists()


def test_without_a_test_set_training_succeeds_with_a_warning(tmp_path):
    events = trained(specification(tmp_path, parameters={"input": {"test_split": 0}}))
    assert events[-1]["report"]["measure"] == {"iteration": 5}
    assert events[-1]["report"]["measures"] == []
    assert of(events, "measures") == []
    assert "no measures were computed" in of(events, "warning")[0]["message"]


def test_what_has_no_effect_comes_back_as_warnings(tmp_path):
    changes = {"mllib": {"iteratons": 3, "eval_metric": "merror"}, "output": {"measure": ["acc", "zzz"]}}
    events = trained(specification(tmp_path, parameters=changes))
    assert {event["parameter"] for event in of(events, "warning")} == {
        "parameters.mllib.iteratons",
        "parameters.output.measure",
    }


def test_every_cancel_point_saves_the_model_as_it_stands(tmp_path):
    class Stop:
        asked = 0

        def __call__(self):
            self.asked += 1
            return "cancel" if self.asked > 3 else None

    events = trained(specification(tmp_path), Stop())
    end = events[-1]
    assert end["event"] == "cancelled"
    assert 0 <= end["iteration"] < 5
    # Named with the requested round count, as the reference has it.
    assert end["description"]["file"] == "0006.model"
    assert end["description"]["rounds"] == end["iteration"] + 1


def test_a_cancel_before_the_first_iteration_leaves_no_model(tmp_path):
    events = trained(specification(tmp_path), lambda: "cancel")
    assert (events[-1]["event"], events[-1]["iteration"], events[-1]["model_folder"]) == ("cancelled", -1, None)
    assert not (tmp_path / "model").exists()


def test_a_cancel_between_reading_and_the_first_iteration_leaves_no_model(tmp_path):
    class Stop:
        asked = 0

        def __call__(self):
            self.asked += 1
            return "cancel" if self.asked > 1 else None

    events = trained(specification(tmp_path), Stop())
    assert of(events, "phase")[-1]["phase"] == "training"
    assert (events[-1]["event"], events[-1]["iteration"], events[-1]["model_folder"]) == ("cancelled", -1, None)
    assert not (tmp_path / "model").exists()


def test_a_pause_before_the_first_iteration_needs_no_checkpoint(tmp_path):
    events = trained(specification(tmp_path), lambda: "pause")
    assert events[-1] == {"event": "paused", "iteration": -1, "folder": None}


def test_a_pause_right_after_a_checkpoint_does_not_write_it_again(tmp_path):
    events = []

    def stop():
        return "pause" if of(events, "checkpoint") else None

    # With a clock that stands still every checkpoint is due at once.
    run(specification(tmp_path, checkpoint_s=0.0), events.append, stop, lambda: 0.0)
    (checkpoint,) = of(events, "checkpoint")
    assert events[-1] == {"event": "paused", "iteration": checkpoint["iteration"], "folder": None}


@pytest.mark.parametrize(
    "mllib",
    [
        {},
        {"booster_params": {"subsample": 0.6, "colsample": 0.5}},
        {"booster": "dart", "booster_params": {"rate_drop": 0.5}},
    ],
)
def test_paused_and_resumed_is_the_same_as_uninterrupted_even_with_a_random_order(tmp_path, mllib):
    class After:
        def __init__(self, steps):
            self.left = steps + 1

        def __call__(self):
            self.left -= 1
            return "pause" if self.left < 0 else None

    mllib = {**mllib, "iterations": 20}
    paused = trained(specification(tmp_path / "one", parameters={"mllib": mllib}), After(8))[-1]
    assert (paused["event"], paused["iteration"]) == ("paused", 7)
    folder = paused["folder"]
    seed = json.loads((tmp_path / "one" / "checkpoints" / "000008" / "training.json").read_text())["seed"]
    resumed = trained(specification(tmp_path / "two", parameters={"mllib": mllib}, resume=folder))
    whole = trained(specification(tmp_path / "three", parameters={"mllib": mllib, "input": {"seed": seed}}))
    assert of(resumed, "history")[0]["hist"]["iteration_hist"] == [2, 4, 6]
    assert [event["iteration"] for event in of(resumed, "measures")] == [8, 10, 12, 14, 16, 18, 19]
    for name in ("measure_hist", "best", "measure"):
        assert resumed[-1]["report"][name] == whole[-1]["report"][name]
    files = [(tmp_path / each / "model" / "0020.model").read_bytes() for each in ("two", "three")]
    assert files[0] == files[1]


def test_a_resumed_training_keeps_its_number_of_threads_and_warns_of_another_device(tmp_path, monkeypatch):
    class Stop:
        asked = 0

        def __call__(self):
            self.asked += 1
            return "pause" if self.asked > 3 else None

    folder = trained(specification(tmp_path / "one"), Stop())[-1]["folder"]
    used = []
    start = backend.start
    monkeypatch.setattr(backend, "start", lambda *a, **k: used.append(k["threads"]) or start(*a, **k))
    events = trained(specification(tmp_path / "two", resume=folder, threads=2, device="cuda"))
    assert used == [1]
    assert "began on cpu and goes on on cuda" in of(events, "warning")[0]["message"]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"backend": "xgbost"}, UnknownLibrary, "xgboost"),
        ({"data": []}, BadInput, "missing data"),
        ({"data": [{"path": "/absent.csv", "name": "absent.csv"}]}, BadInput, "absent.csv does not exist"),
        ({"parameters": {"mllib": {"iterations": None}}}, BadParameter, "iterations is missing"),
    ],
)
def test_a_request_that_cannot_be_is_refused_before_training(tmp_path, changes, error, text):
    with pytest.raises(error) as caught:
        trained(specification(tmp_path, **changes))
    assert text in str(caught.value)


def test_numbers_that_json_lacks_become_null():
    assert json.loads(encoded({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf,)}})) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": [None]},
    }
    assert encoded({"a": 1}) == b'{"a": 1}\n'


def test_durations_are_written_like_deepdetect():
    assert as_days(63.9) == "0d:0h:1m:3s"
    assert as_days(93784) == "1d:2h:3m:4s"
