"""What a worker process keeps of requests and answers is bounded, whatever their size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from settings import Settings
from storage.live import Taken
from workers.parts import Parts
from workers.predicting import Predictor


@pytest.fixture
def predictor(settings: Settings) -> Predictor:
    return Predictor(cast(Parts, SimpleNamespace(settings=settings)))


def head(number: int, size: int) -> bytes:
    parameters = {"note": "x" * size, "number": number}
    return orjson.dumps({"mllib": "xgboost", "connector": "csv", "parameters": parameters, "type": "supervised"})


def test_options_of_long_heads_are_not_kept(predictor: Predictor) -> None:
    for number in range(10):
        request, _ = predictor._loaded(head(number, 1 << 20))
        assert request["parameters"]["number"] == number
    assert predictor._options == {}
    predictor._loaded(head(0, 1000))
    assert list(predictor._options) == [head(0, 1000)]


def test_answers_of_a_batch_are_no_part_of_what_its_model_takes(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = 0
    monkeypatch.setattr(predictor._warm, "_measure", lambda **_: held)

    def answered(batch: Any) -> list[tuple[bytes, bytes]]:
        nonlocal held
        predictor._warm.get("model", lambda: cast(Any, SimpleNamespace(bytes=1000)))
        answers = [(b"1", bytes(200_000)), (b"2", bytes(100_000))]
        held += 305_000
        return answers

    monkeypatch.setattr(predictor, "_answered", answered)
    predictor.answer(cast(list[Taken], []))
    assert predictor._warm.bytes == 1000 + 5000
