"""Answering predictions with models that stay loaded."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Any

from ml import serving
from ml.connectors import source
from ml.errors import MlError
from ml.options import load_prediction
from storage.errors import StorageError
from storage.records import Version
from workers.data import entries, sources
from workers.parts import Parts
from workers.version_files import manifest_of

_log = logging.getLogger(__name__)
Json = dict[str, Any]


class Predictor:
    """The loaded models of one worker process, the least recently used ones given up first."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._models: OrderedDict[tuple[int, str], serving.Model] = OrderedDict()

    def answer(self, request_id: str) -> None:
        """Answer one request, unless its caller is gone."""
        taken = self._parts.live.exchange.take(request_id)
        if taken is None:
            return
        request, _ = taken
        try:
            answer = self.predict(request)
        except (MlError, StorageError) as error:
            answer = {
                "error": {
                    "kind": error.kind,
                    "message": str(error),
                    "section": getattr(error, "section", None),
                }
            }
        except Exception:
            _log.exception("prediction %s failed unexpectedly", request_id)
            answer = {"error": {"kind": "internal", "message": "unexpected error; the worker's log has it"}}
        self._parts.live.exchange.answer(request_id, answer)

    def predict(self, request: Json) -> Json:
        """The answer to a request: `predictions` or `measure`, `timings` in milliseconds, and `warnings` if any."""
        began = time.perf_counter()
        options = load_prediction(
            request["mllib"], request["connector"], request["parameters"], type=request["type"]
        ).value
        model = self._model(request["version_id"], request["device"])
        loaded = time.perf_counter()
        data = [
            source.from_json(each) for each in sources(entries(request, self._parts.objects), self._parts.data_roots)
        ]
        fetched = time.perf_counter()
        found = model.predict(data, options)
        answer: Json = {"measure": found.measure} if found.measure is not None else {"predictions": found.predictions}
        answer["timings"] = {
            "load_ms": _ms(loaded - began),
            "input_ms": _ms(fetched - loaded + found.seconds["input"]),
            "compute_ms": _ms(found.seconds["compute"]),
            "output_ms": _ms(found.seconds["output"]),
        }
        if found.warnings:
            answer["warnings"] = [each.as_json() for each in found.warnings]
        return answer

    def _model(self, version_id: int, device: str) -> serving.Model:
        key = (version_id, device)
        model = self._models.get(key)
        if model is None:
            model = self._load(self._parts.records.versions.get(version_id), device)
            self._models[key] = model
            self._give_up_old()
        self._models.move_to_end(key)
        return model

    def _load(self, version: Version, device: str) -> serving.Model:
        with self._parts.cache.folder(self._parts.objects, manifest_of(version)) as folder:
            return serving.load(folder, version.description, device=device, threads=self._parts.settings.threads)

    def _give_up_old(self) -> None:
        while len(self._models) > 1 and sum(model.bytes for model in self._models.values()) > (
            self._parts.settings.models_limit_bytes
        ):
            self._models.popitem(last=False)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
