"""Networks and solvers in files: what `torch.save` writes, read as plain tensors and numbers, never as code."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ml import templates
from ml.errors import ModelUnusable
from ml.options.target import Target
from ml.templates import Network

_NETWORK, _STATE = "modelyard network", "modelyard solver"
_FORM = 1
#: Endings of what a state dictionary holds of an affine layer.
_WEIGHT, _BIAS = ".weight", ".bias"
#: What `torch.load` raises over files that are none of its own, or broken.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclass
class Saved:
    """A network without its code.

    template, structure : what `ml.templates` builds it from; a structure whose activation is "" leaves it open.
    target : what it was trained for, when the file tells. done : after how many iterations.
    """

    template: str
    structure: dict[str, Any]
    weights: dict[str, Tensor] = field(repr=False)
    target: Target | None = None
    done: int = 0

    @property
    def parameters(self) -> int:
        """Number of its weights; averages that are not learned do not count."""
        averages = ("running_mean", "running_var", "num_batches_tracked")
        return sum(tensor.numel() for name, tensor in self.weights.items() if not name.endswith(averages))

    @property
    def inputs(self) -> int:
        """How many numbers it takes for a row."""
        return int(self.structure["inputs"])

    @property
    def outputs(self) -> int:
        """How many numbers it gives for a row."""
        return int(self.structure["outputs"])


def of_network(network: Network, template: str, structure: Mapping[str, Any], target: Target, done: int) -> Saved:
    """A network as it stands. Its tensors are those in use, not copies."""
    return Saved(template, dict(structure), dict(network.state_dict()), target, done)


def built(saved: Saved) -> Network:
    """The network, on the CPU, with its tensors in use. Raises ModelUnusable when they do not fit the structure."""
    try:
        # On "meta" nothing takes memory, whatever sizes a structure tells of.
        with torch.device("meta"):
            network = templates.find(saved.template).build(saved.structure)
        network.load_state_dict(saved.weights, assign=True)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise ModelUnusable("the weights in the model file do not fit the network it tells of") from None
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    if any(
        kind != (torch.int64 if name.endswith("num_batches_tracked") else torch.float32) for name, kind in kinds.items()
    ):
        raise ModelUnusable("the weights in the model file are no single-precision numbers")
    return network


def write_network(path: Path, saved: Saved) -> None:
    """Write what `read_network` reads; the same network gives the same bytes."""
    content = {
        "format": _NETWORK,
        "form": _FORM,
        "template": saved.template,
        "structure": saved.structure,
        "target": None if saved.target is None else saved.target.as_json(),
        "done": saved.done,
        "weights": {name: tensor.detach().cpu() for name, tensor in saved.weights.items()},
    }
    torch.save(content, path)


def read_network(path: Path) -> Saved:
    """The network of a file: one of ours, or the state dictionary of affine layers that follow each other.

    Raises ModelUnusable.
    """
    content = _loaded(path)
    if isinstance(content, Mapping) and content.get("format") == _NETWORK:
        try:
            target = content["target"]
            return Saved(
                str(content["template"]),
                dict(content["structure"]),
                _tensors(content["weights"], path.name),
                None if target is None else Target.from_json(target),
                int(content["done"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise ModelUnusable(f"model file {path.name} is broken: a part of it is missing") from None
    if isinstance(content, Mapping) and content and all(isinstance(each, Tensor) for each in content.values()):
        return _affine_layers(_tensors(content, path.name), path.name)
    raise ModelUnusable(f"model file {path.name} holds neither a network nor the state dictionary of one")


def _tensors(found: Mapping[Any, Any], file: str) -> dict[str, Tensor]:
    """Weights by name, of which each is an array of real numbers that lie in memory. Raises ModelUnusable."""
    for tensor in found.values():
        if (
            not isinstance(tensor, Tensor)
            or tensor.layout != torch.strided
            or tensor.device.type != "cpu"
            or tensor.is_quantized
            or tensor.is_complex()
            # A number that stands for a whole layer would make a small file a large network.
            or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
        ):
            raise ModelUnusable(f"model file {file} is broken: its weights are not all arrays of real numbers")
    return {str(name): tensor for name, tensor in found.items()}


def chain(layers: list[tuple[Tensor, Tensor]], activation: str, file: str) -> Saved:
    """A network of affine layers that follow each other.

    layers : weights, shape (outputs, inputs), and biases, shape (outputs,), of each. activation : between them; "" when
    that is not known. Raises ModelUnusable when they do not fit together.
    """
    sizes = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)] if layers else []
    fits = bool(layers) and all(
        weight.shape == (after, before) and bias.shape == (after,)
        for (weight, bias), before, after in zip(layers, sizes, sizes[1:], strict=False)
    )
    if not fits:
        raise ModelUnusable(
            f"model file {file} holds no affine layers that follow each other, so no mlp or lregression"
        )
    structure = {
        "inputs": sizes[0],
        "outputs": sizes[-1],
        "hidden": sizes[1:-1],
        "activation": activation,
        "dropout": [0.0] * (len(layers) - 1),
        "bn": False,
    }
    weights = {}
    for place, (weight, bias) in enumerate(layers):
        weights[f"ip{place}{_WEIGHT}"], weights[f"ip{place}{_BIAS}"] = weight, bias
    return Saved("mlp" if len(layers) > 1 else "lregression", structure, weights)


def _affine_layers(content: Mapping[str, Tensor], file: str) -> Saved:
    names = list(content)
    layers: list[tuple[Tensor, Tensor]] = []
    for name in names:
        if f".{name}".endswith(_WEIGHT):
            bias = content.get(name.removesuffix(_WEIGHT[1:]) + _BIAS[1:])
            weight = content[name].float()
            if weight.dim() != 2:
                layers = []
                break
            layers.append((weight, torch.zeros(len(weight)) if bias is None else bias.float()))
    if len(names) > 2 * len(layers):
        layers = []
    return chain(layers, "" if len(layers) > 1 else "relu", file)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write what a training needs besides its network to go on, for `read_state`."""
    torch.save({"format": _STATE, "form": _FORM, **state}, path)


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote. Raises ModelUnusable."""
    content = _loaded(path)
    if not isinstance(content, dict) or content.get("format") != _STATE:
        raise ModelUnusable(
            f"{path.name} holds no state of a solver that was written here, so no training can go on from it; start "
            "anew without resume"
        )
    return content


def _loaded(path: Path) -> Any:
    """What `torch.save` wrote, if it is plain data. Raises ModelUnusable for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old forms of files, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelUnusable(f"model file {path.name} cannot be read: {error.strerror}") from None
    except _UNREADABLE as error:
        if "TorchScript" in str(error):
            raise ModelUnusable(
                f"model file {path.name} is a traced model, which would run code of its own; traced models come later"
            ) from None
        raise ModelUnusable(
            f"model file {path.name} cannot be read: it must hold tensors and plain values only, as torch.save writes "
            "a state dictionary"
        ) from None
