"""Events as text, and what their ids say."""

from __future__ import annotations

import pytest

from api.event_stream import Place, comment, event, opening, points_of, read_place
from api.refusals import BadHeader


@pytest.mark.parametrize("place", [Place(), Place(1, 25), Place(3, 120_000, is_end=True), Place(1, 25, lines=7)])
def test_id_is_read_as_it_was_written(place: Place):
    assert read_place(str(place)) == place


@pytest.mark.parametrize("text", [None, ""])
def test_who_names_no_event_begins_at_the_first(text: str | None):
    assert read_place(text) is None


@pytest.mark.parametrize("text", ["1", "-1", "1-", "a-b", "1-2-3-4", "1-2-end ", "1-2\n", "1-٣", "1-" + "2" * 13])
def test_id_that_no_stream_gave_is_refused(text: str):
    with pytest.raises(BadHeader, match="Last-Event-ID is"):
        read_place(text)


def test_event_is_one_line_of_strict_json_whatever_it_holds():
    told = event("measure", {"acc": float("nan"), "name": "a\r\nb: é", "mcll": 0.5}, Place(2, 7))
    assert told.decode() == 'id: 2-7\nevent: measure\ndata: {"name":"a\\r\\nb: é","mcll":0.5}\n\n'
    assert event("state", {}) == b"event: state\ndata: {}\n\n"


def test_stream_begins_with_the_place_to_come_again_to_and_comments_are_skipped():
    assert opening(Place(1, 4)) == b"retry: 2000\nid: 1-4\n\n"
    assert comment("x") == b": x\n\n"


def test_measures_of_a_report_are_those_of_each_test():
    hist = {
        "iteration_hist": [1, 2],
        "acc_hist": [0.5, 0.75],
        "train_loss_hist": [3.0, 2.0, 1.0],
        "late_hist": [None],
    }
    assert points_of({"measure_hist": hist}) == [
        {"iteration": 1, "acc": 0.5, "late": None},
        {"iteration": 2, "acc": 0.75},
    ]
    assert points_of({"measure": {"acc": 1.0}}) == []
