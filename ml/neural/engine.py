"""A loaded network that answers: predictions, and the values of its layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml.errors import BadInput, BadParameter
from ml.neural import device as devices
from ml.neural.task import predicted
from ml.neural.trainer import refused_number, rows_together
from ml.options.target import Target
from ml.options.torch import TorchOptions
from ml.templates import Network

_DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
#: Bytes of an engine besides its tensors: its objects, and what torch keeps for it.
_FLOOR = 2**18


class NeuralEngine:
    """A network ready to predict. See `ml.backends.base.Engine`.

    bytes : of its weights, in every type that predictions asked for, and of the values of one batch.
    """

    def __init__(
        self,
        network: Network,
        target: Target,
        *,
        inputs: int,
        names: Sequence[str],
        device: torch.device,
        temperature: float = 1.0,
        datatype: str = "fp32",
    ) -> None:
        """An engine of a network that is on the CPU.

        names : of the features, for messages. temperature, datatype : those of requests that name none.
        """
        self._network = network.eval().requires_grad_(False).to(device)
        self._typed: dict[str, Network] = {"fp32": self._network}
        self._target = target
        self._inputs = inputs
        self._names = names
        self._device = device
        self._temperature = temperature
        self._datatype = datatype if datatype in _DTYPES else "fp32"

    @property
    def bytes(self) -> int:
        """Roughly what it occupies."""
        tensors = (tensor for network in self._typed.values() for tensor in network.state_dict().values())
        weights = sum(int(tensor.nbytes) for tensor in tensors)
        return _FLOOR + weights + 4 * rows_together(self._network, None) * self._network.widest

    def predict(self, features: Any, options: TorchOptions | None = None) -> np.ndarray:
        """Outputs, as described at `Target`, of features, a float32 array or CSR matrix. Raises BadInput.

        options : what the request says, for `datatype`, `scaling_temperature` and `net.test_batch_size`.
        """
        temperature = (options.scaling_temperature if options is not None else None) or self._temperature
        network = self._of_type(options)

        def compute(inputs: Tensor) -> Tensor:
            raw = network(inputs)
            # Probabilities of half precision would not add up to 1.
            return predicted(self._target, raw.float() if raw.dtype == torch.float16 else raw, temperature)

        return self._each(features, options, compute)

    def rows_together(self, options: TorchOptions | None = None) -> int:
        """How many rows go through the network at once."""
        return rows_together(self._network, options.net.test_batch_size if options is not None else None)

    def extract(self, features: Any, layer: str, options: TorchOptions | None = None) -> np.ndarray:
        """What a layer gives, shape (rows, units). Raises BadParameter for a layer that is not there, BadInput."""
        network = self._of_type(options)
        module = network.layers.get(layer)
        if module is None:
            name = "parameters.mllib.extract_layer"
            raise BadParameter(
                name=name,
                section="mllib",
                message=f"unknown extract layer {layer[:80]}; {name} must be one of " + ", ".join(network.layers),
            )
        found: list[Tensor] = []
        handle = module.register_forward_hook(lambda _, __, output: found.append(output))

        def extracted(inputs: Tensor) -> Tensor:
            found.clear()
            network(inputs)
            return found[-1]

        try:
            return self._each(features, options, extracted)
        finally:
            handle.remove()

    def _of_type(self, options: TorchOptions | None) -> Network:
        """The network with weights of the type asked for."""
        wanted = (options.datatype if options is not None else "") or self._datatype
        if wanted not in self._typed:
            self._typed[wanted] = copy.deepcopy(self._network).to(_DTYPES[wanted])
        return self._typed[wanted]

    def _each(self, features: Any, options: TorchOptions | None, compute: Callable[[Tensor], Tensor]) -> np.ndarray:
        if features.shape[1] != self._inputs:
            raise BadInput(f"the data has {features.shape[1]} features, the model was trained with {self._inputs}")
        dtype = next(iter(self._of_type(options).parameters())).dtype
        rows = self.rows_together(options)
        made: list[np.ndarray] = []
        with torch.inference_mode(), devices.memory_errors("make parameters.mllib.net.test_batch_size smaller"):
            for start in range(0, max(1, features.shape[0]), rows):
                part = features[start : start + rows]
                dense = part if isinstance(part, np.ndarray) else part.toarray()
                if not np.isfinite(dense).all():
                    row, column = np.argwhere(~np.isfinite(dense))[0]
                    name = self._names[column] if column < len(self._names) else str(column)
                    where = f"column {name} of the data, row {start + int(row) + 1},"
                    raise refused_number(float(dense[row, column]), where)
                inputs = torch.tensor(dense, dtype=dtype, device=self._device)
                outputs = compute(inputs).float().cpu().numpy()
                self._check_outputs(outputs, start, dtype)
                made.append(outputs)
        return made[0] if len(made) == 1 else np.concatenate(made)

    def _check_outputs(self, outputs: np.ndarray, start: int, dtype: torch.dtype) -> None:
        """Refuse rows whose values left the range of their type on the way through. Raises BadInput."""
        if np.isfinite(outputs).all():
            return
        row = start + int(np.argwhere(~np.isfinite(outputs))[0][0]) + 1
        advice = "" if dtype != torch.float16 else ", or ask for parameters.mllib.datatype fp32, whose range is larger"
        raise BadInput(
            f"row {row} of the data has no prediction, as its values are too large for the network: give values like "
            f"those of the training{advice}"
        )
