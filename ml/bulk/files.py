"""Files of predictions: JSON, JSON lines and Parquet, written piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ml.errors import MissingExtra
from ml.json_text import dump

Json = dict[str, Any]


class Writer(ABC):
    """Writes predictions, in the form that answers have them, in the order of the rows."""

    @abstractmethod
    def write(self, predictions: Sequence[Json]) -> None:
        """Add some. Raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """Complete the file. Raises OSError."""


class Lines(Writer):
    """One JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")

    def write(self, predictions: Sequence[Json]) -> None:
        """Add some."""
        self._file.writelines(dump(each) + b"\n" for each in predictions)

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


class Array(Writer):
    """One JSON array."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._before = b"["

    def write(self, predictions: Sequence[Json]) -> None:
        """Add some."""
        for each in predictions:
            self._file.write(self._before + dump(each))
            self._before = b","

    def close(self) -> None:
        """Complete the file."""
        self._file.write(b"[]" if self._before == b"[" else b"]")
        self._file.close()


class Parquet(Writer):
    """One row per prediction; a row group per piece.

    Classes have the columns uri, cat and prob (of the most probable class, null where none was kept) and classes (all
    that were kept); numbers uri and vector (in the order of the targets); autoencoders uri and loss; values uri and
    vals.
    """

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError:
            raise MissingExtra("pyarrow", "xgboost") from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path = path
        self._writer: Any = None

    def write(self, predictions: Sequence[Json]) -> None:
        """Add some; the first ones say which columns there are."""
        if not predictions:
            return
        if self._writer is None:
            self._schema = self._schema_of(predictions[0])
            self._writer = self._parquet.ParquetWriter(self._path, self._schema, compression="zstd")
        rows = [_row(each) for each in predictions]
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Complete the file."""
        if self._writer is None:
            schema = self._arrow.schema([("uri", self._arrow.string())])
            self._writer = self._parquet.ParquetWriter(self._path, schema)
        self._writer.close()

    def _schema_of(self, prediction: Json) -> Any:
        arrow = self._arrow
        text, number = arrow.string(), arrow.float64()
        columns = [("uri", text)]
        if "classes" in prediction:
            one = arrow.struct([("cat", text), ("prob", number)])
            columns += [("cat", text), ("prob", number), ("classes", arrow.list_(one))]
        elif "vector" in prediction:
            columns.append(("vector", arrow.list_(number)))
        elif "losses" in prediction:
            columns.append(("loss", number))
        else:
            values = prediction["vals"]
            is_yes_no = isinstance(values, list) and bool(values) and isinstance(values[0], bool)
            kind = text if isinstance(values, str) else arrow.list_(arrow.bool_() if is_yes_no else number)
            columns.append(("vals", kind))
        return arrow.schema(columns)


def _row(prediction: Json) -> Json:
    """A prediction as a row of the columns that `Parquet` tells."""
    row: Json = {"uri": prediction["uri"]}
    if "classes" in prediction:
        classes = prediction["classes"]
        best = classes[0] if classes else {"cat": None, "prob": None}
        kept = [{"cat": each["cat"], "prob": each["prob"]} for each in classes]
        return row | {"cat": best["cat"], "prob": best["prob"], "classes": kept}
    if "vector" in prediction:
        values = sorted(prediction["vector"], key=lambda each: int(each["cat"]))
        return row | {"vector": [each["val"] for each in values]}
    if "losses" in prediction:
        return row | {"loss": prediction["losses"][0]["loss"]}
    return row | {"vals": prediction["vals"]}


def writer(path: Path, form: str) -> Writer:
    """The writer of a form: "json", "jsonl" or "parquet". Raises MissingExtra, OSError."""
    match form:
        case "json":
            return Array(path)
        case "jsonl":
            return Lines(path)
        case _:
            return Parquet(path)
