"""The child of a prediction of many rows: `python -m ml.bulk.run`, which speaks as `ml.training.run` does.

Its specification names the folder of the model and its `description`, the `data`, `result` (the file to write), `form`
("auto", "json", "jsonl" or "parquet") and `inline_bytes`: a JSON result of at most that size comes in the last event.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml import telling
from ml.errors import StorageFull
from ml.training.run import Events, leave, main

_TELL_S = 0.2


def work(specification: dict[str, Any], emit: Events, stop: Callable[[], Any]) -> None:
    """Load the model, read the data, and predict. Raises MlError."""
    from ml import serving
    from ml.bulk import predictions
    from ml.connectors import source
    from ml.options import load_prediction

    asked = specification
    began = time.perf_counter()
    emit({"event": "phase", "phase": "loading"})
    options = load_prediction(asked["mllib"], asked["connector"], asked["parameters"], type=asked["type"]).value
    model = serving.load(Path(asked["folder"]), asked["description"], device=asked["device"], threads=asked["threads"])
    load_s = time.perf_counter() - began
    telling.told.info("the model is loaded; predicting")
    emit({"event": "phase", "phase": "predicting"})
    path, form = Path(asked["result"]), "jsonl" if asked["form"] == "auto" else asked["form"]
    told_at = 0.0

    def on_piece(rows: int, total: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at > _TELL_S or rows == total:
            told_at = now
            emit({"event": "progress", "rows": rows, "total": total})

    data = [source.from_json(each) for each in asked["data"]]
    try:
        told = predictions.predict(model, data, options, path, form, on_piece, stop)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull("the worker's disk is full: the predictions do not fit on it") from None
    if told.stopped is None:
        telling.told.info("%d rows are predicted", told.rows)
    if told.stopped is not None:
        emit({"event": "cancelled" if told.stopped == "cancel" else "paused"})
        return
    emit(
        {
            "event": "finished",
            "rows": told.rows,
            "measure": told.measure,
            "warnings": [each.as_json() for each in told.warnings],
            "seconds": {"load": load_s, **told.seconds},
            **({} if told.measure is not None else _content(path, form, asked["form"], asked["inline_bytes"])),
        }
    )


def _content(path: Path, form: str, wanted: str, inline_bytes: int) -> dict[str, Any]:
    """The form that a result has in the end, and its text when it is small."""
    if form == "parquet" or path.stat().st_size > inline_bytes:
        return {"form": form, "content": None}
    text = path.read_text(encoding="utf-8")
    if wanted == "auto":
        # Lines end at line feeds only: other characters that end one may stand in a name.
        form, text = "json", "[" + ",".join(text.rstrip("\n").split("\n")) + "]"
    return {"form": form, "content": text}


if __name__ == "__main__":
    leave(main(work=work, what="prediction"))
