"""Affine layers one after the other: `mlp`, and `lregression`, which has one only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from ml.templates.network import UNITS_MOST, Network, Structure, Template

if TYPE_CHECKING:
    from ml.options.torch import TorchOptions

_ACTIVATIONS = {
    "relu": lambda units: nn.ReLU(),
    "prelu": lambda units: nn.PReLU(units),
    "elu": lambda units: nn.ELU(),
    "sigmoid": lambda units: nn.Sigmoid(),
    "tanh": lambda units: nn.Tanh(),
    "swish": lambda units: nn.SiLU(),
}
#: The names by which `torch.nn.init` knows what an activation does to the variance.
_GAINS = {"relu": "relu", "prelu": "relu", "elu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "swish": "relu"}


class Perceptron(nn.Sequential, Network):
    """Affine layers `ip0`, `ip1`, …, as Caffe calls them: x W^T + b.

    After each but the last come, where wanted, batch normalisation `bn<i>`, always the activation `act<i>`, and, where
    wanted, dropout `drop<i>`. As in Caffe, whose activations work in place, the output named `ip<i>` is that after
    the activation.

    activation : see `ml.options.torch.ACTIVATIONS`; PReLU has a slope per unit. dropout : one number per hidden layer.
    Raises ValueError when a number of units is none.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], activation: str, dropout: Sequence[float], bn: bool
    ) -> None:
        sizes = [inputs, *hidden, outputs]
        if activation not in _ACTIVATIONS or len(dropout) != len(hidden):
            raise ValueError("activation or dropout do not fit the layers")
        if not all(type(size) is int and 0 < size <= UNITS_MOST for size in sizes):
            raise ValueError("the layers have no sizes that a network can have")
        made: OrderedDict[str, nn.Module] = OrderedDict()
        names: dict[str, nn.Module] = {}
        for place, units in enumerate(hidden):
            made[f"ip{place}"] = nn.Linear(sizes[place], units)
            if bn:
                made[f"bn{place}"] = nn.BatchNorm1d(units)
            made[f"act{place}"] = names[f"ip{place}"] = _ACTIVATIONS[activation](units)
            if dropout[place] > 0.0:
                made[f"drop{place}"] = nn.Dropout(dropout[place])
        last = f"ip{len(hidden)}"
        made[last] = nn.Linear(sizes[-2], outputs)
        super().__init__(made)
        self.activation = activation
        self._head = last
        self._names = names | dict.fromkeys((last, "last", "final"), made[last])
        self._widest = max(sizes)

    @property
    def head(self) -> str:
        """Name of the last affine layer."""
        return self._head

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """`ip0`, `ip1`, …; the last one is also called `last` and `final`."""
        return self._names

    @property
    def widest(self) -> int:
        """Units of the largest layer, the input counted."""
        return self._widest

    def start(self) -> None:
        """He's initialisation where units are cut off below zero, Glorot's elsewhere; biases of zero.

        Sources: He et al. 2015, "Delving Deep into Rectifiers", section 2.2; Glorot and Bengio 2010, "Understanding
        the difficulty of training deep feedforward neural networks", equation 16.
        """
        for name, layer in self.named_children():
            if isinstance(layer, nn.Linear):
                if name == self._head or _GAINS[self.activation] != "relu":
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.BatchNorm1d):
                layer.reset_parameters()
            elif isinstance(layer, nn.PReLU):
                nn.init.constant_(layer.weight, layer.init)


def structure(options: TorchOptions, inputs: int, outputs: int) -> Structure:
    """The structure of a network that the options ask for."""
    return {
        "inputs": inputs,
        "outputs": outputs,
        "hidden": list(options.hidden),
        "activation": options.activation or "relu",
        "dropout": list(options.dropouts),
        "bn": options.bn and bool(options.hidden),
    }


def build(given: Structure) -> Network:
    """The network of a structure."""
    return Perceptron(**given)


TEMPLATES = (Template("lregression", structure, build), Template("mlp", structure, build))
