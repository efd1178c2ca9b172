"""Our networks as Caffe has them: weights in a .caffemodel, the network and its solver in .prototxt files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml.errors import ModelUnusable
from ml.neural.caffemodel import Layer, decoded, encoded
from ml.neural.saved import Saved, chain
from ml.options.solver import ResolvedOptions
from ml.options.target import Target

#: Caffe's types of our activations.
_TYPES = {"relu": "ReLU", "prelu": "PReLU", "elu": "ELU", "sigmoid": "Sigmoid", "tanh": "TanH", "swish": "Swish"}
_ACTIVATIONS = {kind: name for name, kind in _TYPES.items()}
_EPS = 1e-5
_INNER_TRANSPOSE, _BATCH_NORM_EPS, _SCALE_BIAS = 6, 3, 5
#: Layers that change nothing when a network predicts, or that what is predicted says already.
_PASSED_OVER = frozenset(
    {
        "Accuracy",
        "Data",
        "Dropout",
        "DummyData",
        "EuclideanLoss",
        "Flatten",
        "HDF5Data",
        "ImageData",
        "InfogainLoss",
        "Input",
        "MemoryData",
        "MemorySparseData",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "Silence",
        "Softmax",
        "SoftmaxWithLoss",
        "Split",
    }
)


def write_caffemodel(path: Path, saved: Saved) -> None:
    """Write the weights of a network; the same network gives the same bytes."""
    path.write_bytes(encoded(saved.template, list(_layers(saved))))


def _layers(saved: Saved) -> Iterator[Layer]:
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in saved.weights.items()}
    count = len(saved.structure["hidden"])
    below = "data"
    for place in range(count + 1):
        name = f"ip{place}"
        blobs = [weights[f"{name}.weight"], weights[f"{name}.bias"]]
        yield Layer(name, "InnerProduct", blobs, {1: len(blobs[0])}, [below], [name])
        below = name
        if place == count:
            return
        if saved.structure["bn"]:
            norm = f"bn{place}"
            # The third blob is what the averages are divided by.
            averages = [weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"], np.ones(1, np.float32)]
            yield Layer(norm, "BatchNorm", averages, {_BATCH_NORM_EPS: _EPS}, [name], [name])
            scale = [weights[f"{norm}.weight"], weights[f"{norm}.bias"]]
            yield Layer(f"scale{place}", "Scale", scale, {_SCALE_BIAS: 1}, [name], [name])
        activation = _TYPES[saved.structure["activation"]]
        slopes = [weights[f"act{place}.weight"]] if activation == "PReLU" else []
        yield Layer(f"act{place}", activation, slopes, {}, [name], [name])


def read_caffemodel(path: Path) -> Saved:
    """The network of a .caffemodel: of ours, or of any whose layers are affine ones with activations between.

    Raises ModelUnusable.
    """
    try:
        layers = decoded(path.read_bytes(), path.name)
    except OSError as error:
        raise ModelUnusable(f"model file {path.name} cannot be read: {error.strerror}") from None
    return _Reading(path.name).network(layers)


class _Reading:
    """Puts together what the layers of a .caffemodel say."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._affine: list[tuple[Tensor, Tensor]] = []
        self._norms: dict[int, dict[str, Tensor]] = {}
        self._acts: dict[int, str] = {}
        self._slopes: dict[int, Tensor] = {}

    def network(self, layers: Sequence[Layer]) -> Saved:
        for layer in layers:
            self._take(layer)
        hidden = len(self._affine) - 1
        kinds = {self._acts.get(place, "none") for place in range(hidden)}
        if self._acts.get(hidden) == "sigmoid":
            del self._acts[hidden]  # what makes probabilities of the last values
        if len(kinds) > 1 or "none" in kinds or not set(self._acts) <= set(range(hidden)):
            raise self._unusable("its activations are not the same after every hidden layer")
        if self._norms and set(self._norms) != set(range(hidden)):
            raise self._unusable("its batch normalisation does not follow every hidden layer")
        saved = chain(self._affine, kinds.pop() if kinds else "relu", self._file)
        saved.structure["bn"] = bool(self._norms)
        for place, norm in self._norms.items():
            saved.weights |= {f"bn{place}.{name}": tensor for name, tensor in norm.items()}
        for place, slopes in self._slopes.items():
            units = saved.structure["hidden"][place]
            saved.weights[f"act{place}.weight"] = slopes.expand(units) if len(slopes) == 1 else slopes
        return saved

    def _take(self, layer: Layer) -> None:
        place = len(self._affine) - 1
        blobs = [torch.from_numpy(blob.copy()) for blob in layer.blobs]
        if layer.type == "InnerProduct":
            self._affine.append(self._affine_layer(layer, blobs))
        elif layer.type in _PASSED_OVER:
            return
        elif place < 0:
            raise self._unusable(f"its layer {layer.name[:80]!r} of type {layer.type[:80]} stands before all others")
        elif layer.type in _ACTIVATIONS and place not in self._acts and self._is_plain(layer):
            self._acts[place] = _ACTIVATIONS[layer.type]
            if blobs:
                self._slopes[place] = blobs[0].reshape(-1)
        elif layer.type == "BatchNorm" and len(blobs) == 3 and place not in self._norms and place not in self._acts:
            self._norms[place] = self._norm(layer, blobs)
        elif layer.type == "Scale" and place in self._norms and place not in self._acts and blobs:
            self._norms[place]["weight"] = blobs[0].reshape(-1)
            if len(blobs) > 1:
                self._norms[place]["bias"] = blobs[1].reshape(-1)
        else:
            raise self._unusable(
                f"its layer {layer.name[:80]!r} of type {layer.type[:80]} has no place in an mlp or an lregression"
            )

    def _affine_layer(self, layer: Layer, blobs: list[Tensor]) -> tuple[Tensor, Tensor]:
        if not blobs or blobs[0].dim() < 2 or any(size != 1 for size in blobs[0].shape[:-2]):
            raise self._unusable(f"its layer {layer.name[:80]!r} has no weights")
        weight = blobs[0].reshape(blobs[0].shape[-2:])
        if layer.parameters.get(_INNER_TRANSPOSE):
            weight = weight.T.contiguous()
        return weight, blobs[1].reshape(-1) if len(blobs) > 1 else torch.zeros(len(weight))

    def _norm(self, layer: Layer, blobs: list[Tensor]) -> dict[str, Tensor]:
        factor = blobs[2].reshape(-1)[0] if blobs[2].numel() else torch.ones(())
        mean, variance = (blob.reshape(-1) / factor if factor else blob.reshape(-1) * 0 for blob in blobs[:2])
        eps = layer.parameters.get(_BATCH_NORM_EPS, _EPS)
        if abs(eps - _EPS) > 1e-9:
            variance = variance + (eps - _EPS)
        return {
            "weight": torch.ones_like(mean),
            "bias": torch.zeros_like(mean),
            "running_mean": mean,
            "running_var": variance,
            "num_batches_tracked": torch.zeros((), dtype=torch.int64),
        }

    @staticmethod
    def _is_plain(layer: Layer) -> bool:
        """Whether an activation has the form that ours has: no slope below zero, alpha and beta of 1."""
        wanted = {"ReLU": 0.0, "ELU": 1.0, "Swish": 1.0}.get(layer.type)
        return wanted is None or layer.parameters.get(1, wanted) == wanted

    def _unusable(self, why: str) -> ModelUnusable:
        return ModelUnusable(f"model file {self._file} cannot be used: {why}")


# ---- texts


def network_text(
    saved: Saved,
    target: Target,
    batch_size: int,
    test_batch_size: int,
    *,
    distance: str = "euclidean",
    class_weights: Sequence[float] = (),
) -> str:
    """The .prototxt of a network that trains and tests. What Caffe does not have stands in comments.

    distance : see `ml.options.torch.TorchOptions.distance`.
    """
    inputs = saved.inputs
    parts = [f"name: {_quoted(saved.template)}\n"]
    if not target.classes and distance != "euclidean":
        meant = "absolute" if distance == "L1" else "squared"
        parts.append(f"# trained with the mean {meant} difference of all values in place of EuclideanLoss\n")
    if target.classes and class_weights:
        parts.append("# trained with the class weights " + " ".join(f"{each:g}" for each in class_weights) + "\n")
    for phase, rows in (("TRAIN", batch_size), ("TEST", test_batch_size)):
        parts.append(
            _layer_text(
                "data",
                "MemoryData",
                [],
                ["data", "label"],
                f"  include {{\n    phase: {phase}\n  }}\n  memory_data_param {{\n    batch_size: {rows}\n"
                f"    channels: {inputs}\n    height: 1\n    width: 1\n  }}\n",
            )
        )
    parts += _body(saved, training=True)
    last = f"ip{len(saved.structure['hidden'])}"
    match target.kind:
        case "classification":
            ignored = (
                f"  loss_param {{\n    ignore_label: {target.ignored}\n  }}\n" if target.ignored is not None else ""
            )
            parts.append(_layer_text("loss", "SoftmaxWithLoss", [last, "label"], ["loss"], ignored))
        case "multi_label" | "soft_labels":
            parts.append(_layer_text("loss", "SigmoidCrossEntropyLoss", [last, "label"], ["loss"]))
        case _:
            truth = "label" if target.kind == "regression" else "data"
            parts.append(_layer_text("loss", "EuclideanLoss", [last, truth], ["loss"]))
    return "".join(parts)


def deploy_text(saved: Saved, target: Target) -> str:
    """The deploy.prototxt of a network: what readers of Caffe's files need to predict."""
    sizes = "".join(f"      dim: {size}\n" for size in (1, saved.inputs, 1, 1))
    shape = f"  input_param {{\n    shape {{\n{sizes}    }}\n  }}\n"
    parts = [f"name: {_quoted(saved.template)}\n", _layer_text("data", "Input", [], ["data"], shape)]
    parts += _body(saved, training=False)
    last = f"ip{len(saved.structure['hidden'])}"
    if target.kind == "classification":
        parts.append(_layer_text("prob", "Softmax", [last], ["prob"]))
    elif target.classes:
        parts.append(_layer_text("prob", "Sigmoid", [last], ["prob"]))
    return "".join(parts)


def _body(saved: Saved, *, training: bool) -> Iterator[str]:
    for layer in _layers(saved):
        own = ""
        if layer.type == "InnerProduct":
            fillers = (
                '    weight_filler {\n      type: "xavier"\n    }\n    bias_filler {\n      type: "constant"\n    }\n'
                if training
                else ""
            )
            own = f"  inner_product_param {{\n    num_output: {len(layer.blobs[0])}\n{fillers}  }}\n"
        elif layer.type == "BatchNorm":
            own = f"  batch_norm_param {{\n    eps: {_EPS:g}\n  }}\n"
        elif layer.type == "Scale":
            own = "  scale_param {\n    bias_term: true\n  }\n"
        yield _layer_text(layer.name, layer.type, layer.bottoms, layer.tops, own)
        place = int(layer.name.removeprefix("act")) if layer.name.startswith("act") else None
        if training and place is not None and saved.structure["dropout"][place] > 0:
            share = f"  dropout_param {{\n    dropout_ratio: {saved.structure['dropout'][place]:g}\n  }}\n"
            yield _layer_text(f"drop{place}", "Dropout", layer.tops, layer.tops, share)


def _layer_text(name: str, kind: str, bottoms: Sequence[str], tops: Sequence[str], own: str = "") -> str:
    lines = [f"  name: {_quoted(name)}\n", f"  type: {_quoted(kind)}\n"]
    lines += [f"  bottom: {_quoted(each)}\n" for each in bottoms]
    lines += [f"  top: {_quoted(each)}\n" for each in tops]
    return "layer {\n" + "".join(lines) + own + "}\n"


#: Caffe's names of the solvers that it has too.
_SOLVERS = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def solver_text(options: ResolvedOptions, network_file: str, prefix: str, *, has_gpu: bool) -> str:
    """The .prototxt of a solver. What Caffe does not have stands in comments."""
    fields: list[tuple[str, Any]] = [
        ("net", _quoted(network_file)),
        ("test_interval", options.test_interval),
        ("test_initialization", str(options.test_initialization).lower()),
        ("base_lr", f"{options.base_lr:g}"),
        ("lr_policy", _quoted(options.lr_policy)),
        ("gamma", f"{options.gamma:g}"),
        ("power", f"{options.power:g}"),
        ("stepsize", options.stepsize),
        *(("stepvalue", value) for value in options.stepvalue),
        ("max_iter", options.iterations),
        ("iter_size", options.iter_size),
        ("momentum", f"{options.momentum:g}"),
        ("weight_decay", f"{options.weight_decay:g}"),
        ("snapshot", options.snapshot),
        ("snapshot_prefix", _quoted(prefix)),
        ("solver_mode", "GPU" if has_gpu else "CPU"),
    ]
    if options.solver_type in _SOLVERS:
        fields.append(("type", _quoted(_SOLVERS[options.solver_type])))
    else:
        fields.append(("# type", _quoted(options.solver_type)))
    return "".join(f"{name}: {value}\n" for name, value in fields)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
