"""The training of a network: batch, loss, gradients, step; and all that is needed to go on from any iteration."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml.errors import BadInput, BadParameter, ModelUnusable
from ml.neural import device as devices
from ml.neural import saved as saving
from ml.neural.files import Files
from ml.neural.saved import Saved
from ml.neural.task import Task, predicted
from ml.options.target import Target
from ml.options.torch import TorchOptions
from ml.solvers import Solver
from ml.tables import Chunk, Table, TrainingData
from ml.templates import Network
from ml.training.batches import Batches

_MODEL_FILE, _STATE_FILE, _KEPT_FOLDER = "network.npt", "solver.pt", "kept"
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
#: Numbers of the largest layer that rows of one batch of a test or a prediction take together.
_NUMBERS_MOST = 2**20
_ROWS_MOST = 4096
_SMALLER_BATCH = (
    "make parameters.mllib.net.batch_size smaller, and parameters.mllib.solver.iter_size larger to the same extent"
)

_SMALLER_TEST = "make parameters.mllib.net.test_batch_size smaller"
_SMALLER_NETWORK = "ask for fewer or smaller layers"


@dataclass(frozen=True)
class Design:
    """What is trained: the template, the structure that it built the network from, and the target."""

    template: str
    structure: dict[str, Any]
    target: Target


def rows_together(network: Network, wanted: int | None) -> int:
    """How many rows go through a network together in tests and predictions."""
    return wanted or max(1, min(_ROWS_MOST, _NUMBERS_MOST // network.widest))


class NeuralTrainer:
    """A training under way. See `ml.backends.base.Trainer`.

    The weights lie on the device, as do the sums of losses; one number comes back in each iteration, the loss.
    """

    def __init__(
        self,
        options: TorchOptions,
        data: TrainingData,
        network: Network,
        design: Design,
        files: Files,
        *,
        device: torch.device,
        seed: int,
        scratch: Path,
        mixed: str,
        is_shuffled: bool,
        frozen: Iterable[nn.Module] = (),
    ) -> None:
        """A training that is at its first iteration.

        network : on the device, with the weights to begin with; those without `requires_grad` stay as they are.
        mixed : type of most numbers, "fp16" or "bf16"; "" for single precision.
        frozen : modules that compute as in predictions, as nothing is learned in them.
        """
        self.done = 0
        self._options = options
        self._design = design
        self._files = files
        self._network = network
        self._device = device
        self._scratch = scratch
        self._task = Task(design.target, device, options.class_weights, options.distance)
        self._tests = data.tests
        self._batches = Batches(data.train, seed if is_shuffled else None)
        self._frozen = list(frozen)
        self._train_mode()
        solving = options.solving
        self._solver = Solver(network.parameters(), solving, seed)
        self._parts = solving.iter_size
        self._snapshot = solving.snapshot
        self._iterations = solving.iterations
        self._rows = options.batch_size
        self._autocast = torch.autocast(device.type, _DTYPES[mixed]) if mixed else None
        self._scaler = torch.amp.GradScaler(device.type) if mixed == "fp16" else None
        self._pins = device.type == "cuda"
        self._loss: float | None = None
        self._kept: dict[int, Saved | Path] = {}
        """Models to be kept besides the last, by iterations done: in memory, or in a folder with their solver."""
        self._wanted: frozenset[int] = frozenset()

    @property
    def can_save(self) -> bool:
        """Always: between two iterations nothing is under way."""
        return True

    # ---- training

    def step(self) -> None:
        """One step of the solver, on the mean gradient of `iter_size` batches.

        Raises BadParameter when the loss is no number any more, OutOfMemory.
        """
        with devices.memory_errors(_SMALLER_BATCH):
            loss = self._mean_loss()
            self._solver.step(self._scaler)
        self._solver.zero_grad()
        self.done += 1
        # The only number that is waited for.
        self._loss = float(loss)
        if not math.isfinite(self._loss):
            raise diverged(f"the loss of iteration {self.done} is {self._loss}")
        if self._is_snapshot() and self.done < self._iterations:
            self._keep_snapshot()

    def _mean_loss(self) -> Tensor:
        """The loss of an iteration, its gradients left in the weights."""
        total: Tensor | None = None
        for _ in range(self._parts):
            features, labels = self._batch()
            if self._autocast is None:
                raw = self._network(features)
            else:
                with self._autocast:
                    raw = self._network(features)
            loss = self._task.loss(raw, features if labels is None else labels)
            if self._parts > 1:
                loss = loss / self._parts
            torch.autograd.backward(loss if self._scaler is None else self._scaler.scale(loss))
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        """The next rows, on the device."""
        # Memory of torch's own lies so that the same numbers are always added in the same order; pinned memory is not
        # used again before the copy to the GPU is done.
        features = torch.empty(self._rows, self._batches.width, pin_memory=self._pins)
        form = self._task.labels
        labels = None
        if form is not None:
            labels = torch.empty(self._rows, *form.shape, dtype=form.dtype, pin_memory=self._pins)
        self._batches.fill(features.numpy(), None if labels is None else labels.numpy())
        if self._pins:
            features = features.to(self._device, non_blocking=True)
            labels = None if labels is None else labels.to(self._device, non_blocking=True)
        return features, labels

    def _train_mode(self) -> None:
        self._network.train()
        for module in self._frozen:
            module.eval()

    def running(self) -> dict[str, float]:
        """Loss and learning rate of the last iteration."""
        if self._loss is None:
            return {}
        return {"train_loss": self._loss, "learning_rate": self._solver.learning_rate}

    # ---- testing

    def test(self, position: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Outputs for a test set."""
        table = self._tests[position]
        network, target = self._network, self._design.target
        rows = rows_together(network, self._options.net.test_batch_size)
        network.eval()
        made = np.empty((len(table), int(self._design.structure["outputs"])), np.float32)
        with torch.inference_mode(), devices.memory_errors(_SMALLER_TEST):
            for first, features in batches_of(table, rows, self._device):
                outputs = predicted(target, network(features))
                made[first : first + len(features)] = outputs.cpu().numpy()
        self._train_mode()
        return made, {}

    # ---- keeping

    def keep(self, wanted: Collection[int]) -> None:
        """Keep the weights as they stand if `done` is in `wanted`; drop others kept, but for snapshots."""
        self._wanted = frozenset(wanted)
        if self.done in self._wanted and self.done not in self._kept:
            self._kept[self.done] = self._copied()
        snapshots = {done for done, each in self._kept.items() if isinstance(each, Path)}
        for done in self._kept.keys() - self._wanted - snapshots:
            del self._kept[done]

    def take_over(self, models: dict[int, Path], states: dict[int, Path], wanted: Collection[int]) -> None:
        """Keep models that the training gone on with left, by iterations done: snapshots, and those in `wanted`.

        Snapshots are the ones that have a state; so has the last, which is one if it would be one now.
        """
        self._wanted = frozenset(wanted)
        for done, path in models.items():
            if done in states and (done != self.done or self._is_snapshot()):
                folder = self._folder(done)
                shutil.copyfile(path, folder / self._files.model_name(done))
                shutil.copyfile(states[done], folder / self._files.state_name(done))
                self._kept[done] = folder
            elif done in self._wanted:
                self._kept[done] = self._files.read(path)

    def _is_snapshot(self) -> bool:
        return bool(self._snapshot) and self.done % self._snapshot == 0

    def _keep_snapshot(self) -> None:
        folder = self._folder(self.done)
        self._files.write(folder / self._files.model_name(self.done), self._saved())
        saving.write_state(folder / self._files.state_name(self.done), self._state())
        self._kept[self.done] = folder

    def _folder(self, done: int) -> Path:
        """A new folder for the files of a snapshot."""
        folder = self._scratch / f"snapshot-{done}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _copied(self) -> Saved:
        """The network as it stands, in memory of its own."""
        saved = self._saved()
        saved.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in saved.weights.items()}
        return saved

    # ---- saving

    def _saved(self) -> Saved:
        design = self._design
        return saving.of_network(self._network, design.template, design.structure, design.target, self.done)

    def _state(self) -> dict[str, Any]:
        """All but the network that is needed to go on; tensors in use, not copies."""
        number, row = self._batches.position
        return {
            "done": self.done,
            "loss": self._loss,
            "solver": self._solver.state_dict(),
            "random": devices.random_states(self._device),
            "batches": {"pass": number, "row": row},
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
        }

    def save_state(self, folder: Path) -> None:
        """Write the network, the state, and what is kept."""
        saving.write_network(folder / _MODEL_FILE, self._saved())
        saving.write_state(folder / _STATE_FILE, {**self._state(), "wanted": sorted(self._wanted)})
        kept = folder / _KEPT_FOLDER
        kept.mkdir()
        for done, each in self._kept.items():
            if isinstance(each, Path):
                (kept / str(done)).mkdir()
                for path in each.iterdir():
                    _link(path, kept / str(done) / path.name)
            else:
                saving.write_network(kept / f"{done}.npt", each)

    @staticmethod
    def network_of(folder: Path) -> Saved:
        """The network in a folder of `save_state`. Raises ModelUnusable."""
        return saving.read_network(folder / _MODEL_FILE)

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote, bit for bit. Raises ModelUnusable."""
        state = saving.read_state(folder / _STATE_FILE)
        self.go_on(self.network_of(folder), state)
        self._wanted = frozenset(state["wanted"])
        # A store keeps files only: a folder that was empty does not come back.
        for path in sorted((folder / _KEPT_FOLDER).glob("*")):
            if path.is_dir():
                folder = self._folder(int(path.name))
                shutil.copytree(path, folder, dirs_exist_ok=True)
                self._kept[int(path.name)] = folder
            else:
                self._kept[int(path.stem)] = saving.read_network(path)

    def go_on(self, saved: Saved, state: dict[str, Any]) -> None:
        """Go on with the weights of `saved` and a state, as `_state` gave it.

        Raises ModelUnusable, BadParameter, OutOfMemory.
        """
        try:
            places = state["done"], state["batches"]["pass"], state["batches"]["row"]
            if not all(type(place) is int and place >= 0 for place in places):
                raise ValueError("a place in the training is none")
            with devices.memory_errors(_SMALLER_NETWORK):
                self._network.load_state_dict(saved.weights)
                self._solver.load_state_dict(state["solver"])
            devices.set_random_states(state["random"], self._device)
            self._batches.go_to(*places[1:])
            if self._scaler is not None and state["scaler"] is not None:
                self._scaler.load_state_dict(state["scaler"])
            self.done, self._loss = state["done"], state["loss"]
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
            raise ModelUnusable("the state of the solver is broken; start anew without resume") from None

    def skip(self, rows: int) -> None:
        """Pass over some rows of the training set."""
        self._batches.skip(rows)

    def save_model(self, folder: Path, rounds: int) -> str:
        """Write the models kept, the last one with the state of its solver, and what belongs to them.

        Raises BadParameter when the weights are no numbers any more.
        """
        final = self._saved()
        if not all(bool(tensor.isfinite().all()) for tensor in final.weights.values()):
            raise diverged(f"the weights after iteration {self.done} are not all finite numbers")
        for done, each in sorted(self._kept.items()):
            if done == self.done:
                continue
            if isinstance(each, Path):
                for path in each.iterdir():
                    shutil.copyfile(path, folder / path.name)
            else:
                self._files.write(folder / self._files.model_name(done), each)
        self._files.write_companions(folder, final, self._design.target, self._options)
        saving.write_state(folder / self._files.state_name(self.done), self._state())
        # The last, as the newest one is what later predictions use.
        name = self._files.model_name(self.done)
        self._files.write(folder / name, final)
        return name

    def facts(self) -> dict[str, Any]:
        """How many weights there are, and how many of them stay as they are."""
        parameters = list(self._network.parameters())
        return {
            "params": sum(each.numel() for each in parameters),
            "frozen_params": sum(each.numel() for each in parameters if not each.requires_grad),
            "template": self._design.template,
        }


def batches_of(table: Table, rows: int, device: torch.device) -> Iterable[tuple[int, Tensor]]:
    """All rows of a table in order, some at a time, on a device; each batch after the number of its first row."""
    first = 0
    for chunk in table.chunks():
        for start in range(0, len(chunk), rows):
            features = torch.tensor(chunk.take(slice(start, start + rows))[0], device=device)
            yield first + start, features
        first += len(chunk)


def diverged(what: str) -> BadParameter:
    """The error of a training whose numbers left the range of numbers."""
    name = "parameters.mllib.solver.base_lr"
    return BadParameter(
        name=name,
        section="mllib",
        message=f"the training diverged: {what}; make {name} smaller, rescale the features "
        "(parameters.input.scale) and the targets of a regression, or clip the gradients "
        "(parameters.mllib.solver.clip)",
    )


def check_numbers(table: Table, names: list[str], first_row: int | None) -> None:
    """Refuse missing and infinite features, which no network can take. Raises BadInput.

    first_row : number of the first row as its sender counts; None where the order is another one.
    """
    before = 0
    for chunk in table.chunks():
        values = chunk.features if isinstance(chunk.features, np.ndarray) else chunk.features.data
        # One number tells of all, without an array of truths: a sum is finite only where all parts are, or nearly so.
        if not math.isfinite(float(values.sum(dtype=np.float64))) and not np.isfinite(values).all():
            row, column = _wrong_places(chunk)[0].tolist()
            value = float(chunk.take(slice(row, row + 1))[0][0, column])
            rows = sum(
                len(np.unique(places[places[:, 1] == column, 0])) for places in map(_wrong_places, table.chunks())
            )
            first = "" if first_row is None else f", first in row {first_row + before + row}"
            name = names[column] if column < len(names) else str(column)
            raise refused_number(value, f"column {name} of {table.name}", f" in {rows} of {len(table)} rows{first}")
        before += len(chunk)


def _wrong_places(chunk: Chunk) -> np.ndarray:
    """Row and column of every feature that is no finite number, int array, shape (places, 2), row by row."""
    if isinstance(chunk.features, np.ndarray):
        return np.argwhere(~np.isfinite(chunk.features))
    entries = chunk.features.tocoo()
    places: np.ndarray = np.stack([entries.row, entries.col], axis=1)[~np.isfinite(entries.data)]
    return np.unique(places, axis=0)


def refused_number(value: float, what: str, where: str = "") -> BadInput:
    """The error for a number that a network cannot take. what : whose number it is. where : in which rows."""
    has = "has no value" if math.isnan(value) else f"has the value {value:g}"
    return BadInput(
        f"{what} {has}{where}, which networks cannot take: fill in missing values, leave such rows out, or ignore the "
        "column (parameters.input.ignore)"
    )


def _link(path: Path, copy: Path) -> None:
    """A second name for a file, or a copy of it where that cannot be."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copyfile(path, copy)
