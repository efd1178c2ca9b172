"""What a network is trained for: how labels are put for the loss, the loss, and what raw outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ml.options.target import Target


def outputs_of(target: Target, inputs: int) -> int:
    """How many numbers a network gives for a row, where it takes so many."""
    if target.kind == "autoencoder":
        return inputs
    return target.targets if target.kind == "regression" else target.classes


def predicted(target: Target, raw: Tensor, temperature: float = 1.0) -> Tensor:
    """Outputs as described at `Target` of raw outputs, both of shape (rows, outputs).

    temperature : what logits are divided by before they become probabilities that add up to 1.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 9.
    """
    match target.kind:
        case "classification":
            return torch.softmax(raw if temperature == 1.0 else raw / temperature, dim=1)
        case "multi_label" | "soft_labels":
            return torch.sigmoid(raw)
        case _:
            return raw


@dataclass(frozen=True)
class LabelForm:
    """The array that a batch of labels is put in: its type, and its shape but for the rows."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Task:
    """The loss of a target.

    weights : one per class, for targets with classes; empty where all count the same.
    distance : see `ml.options.torch.TorchOptions.distance`.
    """

    def __init__(
        self, target: Target, device: torch.device, weights: Sequence[float] = (), distance: str = "L2"
    ) -> None:
        self.target = target
        self._distance = distance
        self._weights = torch.tensor(weights, dtype=torch.float32, device=device) if weights else None
        #: A batch may hold no row that counts; then the mean of torch would be 0 / 0.
        self._may_be_empty = target.ignored is not None or 0.0 in weights
        # The same number that torch takes for "none": no label is that low.
        self._ignored = -100 if target.ignored is None else target.ignored

    @property
    def labels(self) -> LabelForm | None:
        """How labels are put; None where there are none, as the inputs are what is to be learned."""
        match self.target.kind:
            case "classification":
                return LabelForm(torch.int64, ())
            case "multi_label" | "soft_labels":
                return LabelForm(torch.float32, (self.target.classes,))
            case "regression":
                return LabelForm(torch.float32, (self.target.targets,))
            case _:
                return None

    def loss(self, raw: Tensor, truth: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar.

        raw : raw outputs, shape (rows, outputs). truth : labels as in `labels`, or the inputs.
        A classification has the cross-entropy, and its mean weighted by the weights of the rows' classes; the other
        targets with classes the binary one, each class times its weight, with the mean over rows and classes.
        """
        raw = raw.float()
        match self.target.kind:
            case "classification":
                return self._cross_entropy(raw, truth)
            case "multi_label" | "soft_labels":
                return functional.binary_cross_entropy_with_logits(raw, truth, weight=self._weights)
        match self._distance:
            case "L1":
                return functional.l1_loss(raw, truth)
            case "L2":
                return functional.mse_loss(raw, truth)
            case _:  # half the squared distance, as Caffe's EuclideanLoss
                return functional.mse_loss(raw, truth, reduction="sum") / (2 * len(raw))

    def _cross_entropy(self, raw: Tensor, truth: Tensor) -> Tensor:
        if not self._may_be_empty:
            return functional.cross_entropy(raw, truth, weight=self._weights)
        total = functional.cross_entropy(raw, truth, weight=self._weights, ignore_index=self._ignored, reduction="sum")
        counted = truth != self._ignored
        if self._weights is None:
            return total / counted.sum().clamp(min=1)
        share = (self._weights[truth.where(counted, 0)] * counted).sum()
        return total / share.clamp(min=torch.finfo(torch.float32).tiny)
