"""What a template makes: a network that knows its layers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from ml.options.torch import TorchOptions

Structure = dict[str, Any]
#: Most numbers that a layer takes or gives for a row; a file that tells of more is broken.
UNITS_MOST = 2**24


class Network(nn.Module):
    """A network whose `forward` takes a batch of inputs, shape (rows, …), and gives raw outputs, shape (rows, outputs).

    Raw outputs are what a loss takes: logits for classes, values for numbers.
    """

    @property
    def head(self) -> str:
        """Name of the submodule that is last: what another number of classes replaces."""
        raise NotImplementedError

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """The submodules whose outputs can be asked for, by the names that requests give them."""
        raise NotImplementedError

    @property
    def widest(self) -> int:
        """Most numbers that a layer gives for one row."""
        raise NotImplementedError

    def start(self) -> None:
        """Draw first weights from torch's own random generator."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Raw outputs of a batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class Template:
    """A network architecture.

    structure : from options, number of inputs and of outputs, the JSON object that says all about a network but its
        weights. build : a network of such an object, its weights without meaning; raises TypeError or ValueError for
        what is none.
    """

    name: str
    structure: Callable[[TorchOptions, int, int], Structure]
    build: Callable[[Structure], Network]
