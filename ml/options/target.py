"""What a model learns to say: the one thing that options, connectors, backends and measures must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["classification", "multi_label", "soft_labels", "regression", "autoencoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Target:
    """What the labels are, and so what the outputs of a model mean.

    kind : "classification" (one class of several), "multi_label" (each class is there or not), "soft_labels" (a share
        between 0 and 1 for each class), "regression" (numbers), or "autoencoder" (the features themselves).
    classes : number of classes of the first three kinds.
    targets : numbers of a regression.
    ignored : label of a classification that counts neither in the loss nor in measures; None when all count.

    Labels: int32 array, shape (rows,), for a classification; float32 array, shape (rows, classes), 0/1 or shares, for
    multi_label and soft_labels; float64 array, shape (rows, targets), for a regression; none for an autoencoder.
    Outputs: float32 array; probabilities, shape (rows, classes), that add up to 1 for a classification only; values,
    shape (rows, targets), for a regression; reconstructed features, shape (rows, features), for an autoencoder.
    """

    kind: Kind
    classes: int = 0
    targets: int = 0
    ignored: int | None = None

    @property
    def labels(self) -> int:
        """How many label columns a row has; 0 for an autoencoder."""
        return {"classification": 1, "regression": self.targets, "autoencoder": 0}.get(self.kind, self.classes)

    @property
    def mltype(self) -> str:
        """The kind as the DeepDetect API calls it."""
        return {"multi_label": "classification", "soft_labels": "regression"}.get(self.kind, self.kind)

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Target:
        """The target that `as_json` came from. Raises TypeError for anything else."""
        made = cls(**given)
        numbers = (made.classes, made.targets, 0 if made.ignored is None else made.ignored)
        if made.kind not in KINDS or not all(type(number) is int for number in numbers):
            raise TypeError("this is no target of a training")
        return made
