"""Files of Caffe: weights as a NetParameter, networks and solvers as text.

Source of all names and field numbers: `caffe.proto` of BVLC Caffe 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ml.errors import ModelUnusable
from ml.neural import wire

_NET_NAME, _NET_LAYERS_V1, _NET_LAYERS = 1, 2, 100
_LAYER_NAME, _LAYER_TYPE, _LAYER_BOTTOM, _LAYER_TOP, _LAYER_BLOBS = 1, 2, 3, 4, 7
_V1_NAME, _V1_TYPE, _V1_BLOBS = 4, 5, 6
_BLOB_LEGACY, _BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLES = (1, 2, 3, 4), 5, 7, 8
_PARAMETERS = {
    "InnerProduct": 117,
    "ReLU": 123,
    "ELU": 140,
    "PReLU": 131,
    "BatchNorm": 139,
    "Scale": 142,
    "Swish": 147,
    "Dropout": 108,
}
#: Names of the layer types of Caffe's first format that this reader knows.
_V1_TYPES = {
    1: "Accuracy",
    5: "Data",
    6: "Dropout",
    7: "EuclideanLoss",
    8: "Flatten",
    9: "HDF5Data",
    12: "ImageData",
    14: "InnerProduct",
    18: "ReLU",
    19: "Sigmoid",
    20: "Softmax",
    21: "SoftmaxWithLoss",
    22: "Split",
    23: "TanH",
    27: "SigmoidCrossEntropyLoss",
    29: "MemoryData",
    36: "Silence",
}
#: Most numbers of a blob; a file that tells of more is broken.
_NUMBERS_MOST = 2**33


@dataclass
class Layer:
    """A layer: its name, its type, what it learned (float32 arrays), and numbers of its own parameters by field.

    bottoms, tops : names of the blobs it reads and writes.
    """

    name: str
    type: str
    blobs: list[np.ndarray] = field(default_factory=list)
    parameters: Mapping[int, float] = field(default_factory=dict)
    bottoms: Sequence[str] = ()
    tops: Sequence[str] = ()


def encoded(name: str, layers: Sequence[Layer]) -> bytes:
    """The bytes of a .caffemodel with these layers."""
    made = [wire.text(_NET_NAME, name)]
    for layer in layers:
        parts = [wire.text(_LAYER_NAME, layer.name), wire.text(_LAYER_TYPE, layer.type)]
        parts += [wire.text(_LAYER_BOTTOM, each) for each in layer.bottoms]
        parts += [wire.text(_LAYER_TOP, each) for each in layer.tops]
        parts += [wire.nested(_LAYER_BLOBS, _encoded_blob(blob)) for blob in layer.blobs]
        if layer.parameters:
            values = (
                wire.real(number, value) if isinstance(value, float) else wire.varint(number, value)
                for number, value in layer.parameters.items()
            )
            parts.append(wire.nested(_PARAMETERS[layer.type], values))
        made.append(wire.nested(_NET_LAYERS, parts))
    return b"".join(made)


def _encoded_blob(blob: np.ndarray) -> list[bytes]:
    numbers = np.ascontiguousarray(blob, "<f4")
    return [wire.nested(_BLOB_DATA, numbers.tobytes()), wire.nested(_BLOB_SHAPE, [wire.packed(1, blob.shape)])]


def decoded(content: bytes, file: str) -> list[Layer]:
    """The layers of a .caffemodel, of either format, in their order. Raises ModelUnusable, which names the file."""
    try:
        return list(_layers(memoryview(content)))
    except (ValueError, OverflowError):  # wire.Broken is one
        raise ModelUnusable(f"model file {file} is broken, or no .caffemodel") from None


def _layers(content: memoryview) -> Iterator[Layer]:
    for number, kind, value in wire.fields(content):
        if number in (_NET_LAYERS, _NET_LAYERS_V1):
            if kind != wire.BYTES:
                raise wire.Broken("a layer is no message")
            yield _layer(value) if number == _NET_LAYERS else _layer_v1(value)


def _layer(message: memoryview) -> Layer:
    made = Layer("", "")
    groups: dict[int, memoryview] = {}
    for number, kind, value in wire.fields(message):
        if kind != wire.BYTES:
            continue
        if number == _LAYER_NAME:
            made.name = str(value, "utf-8")
        elif number == _LAYER_TYPE:
            made.type = str(value, "utf-8")
        elif number == _LAYER_BLOBS:
            made.blobs.append(_blob(value))
        else:
            groups[number] = value
    own = groups.get(_PARAMETERS.get(made.type, -1))
    if own is not None:
        made.parameters = _numbers(own)
    return made


def _layer_v1(message: memoryview) -> Layer:
    made = Layer("", "")
    for number, kind, value in wire.fields(message):
        if number == _V1_NAME and kind == wire.BYTES:
            made.name = str(value, "utf-8")
        elif number == _V1_TYPE and kind == wire.VARINT:
            made.type = _V1_TYPES.get(value, f"number {value}")
        elif number == _V1_BLOBS and kind == wire.BYTES:
            made.blobs.append(_blob(value))
    return made


def _numbers(message: memoryview) -> dict[int, float]:
    """The plain numbers of a layer's own parameters, by field; messages in it are left out."""
    made: dict[int, float] = {}
    for number, kind, value in wire.fields(message):
        if kind == wire.VARINT:
            made[number] = value
        elif kind == wire.FIXED32:
            made[number] = float(np.frombuffer(value, "<f4")[0])
    return made


def _blob(message: memoryview) -> np.ndarray:
    parts: list[np.ndarray] = []
    shape: list[int] | None = None
    legacy = dict.fromkeys(_BLOB_LEGACY, 0)
    for number, kind, value in wire.fields(message):
        if number in (_BLOB_DATA, _BLOB_DOUBLES) and kind != wire.VARINT:
            parts.append(np.frombuffer(value, "<f4" if number == _BLOB_DATA else "<f8").astype(np.float32))
        elif number == _BLOB_SHAPE and kind == wire.BYTES:
            shape = []
            for each, form, sizes in wire.fields(value):
                if each == 1:
                    shape += wire.varints(sizes) if form == wire.BYTES else [sizes]
        elif number in legacy and kind == wire.VARINT:
            legacy[number] = value
    if shape is None:
        shape = list(legacy.values())
    numbers = np.concatenate(parts) if parts else np.empty(0, np.float32)
    count = 1
    for size in shape:
        count *= size
    if count != len(numbers) or count > _NUMBERS_MOST:
        raise wire.Broken("a blob has not as many numbers as its shape says")
    return numbers.reshape(shape)
