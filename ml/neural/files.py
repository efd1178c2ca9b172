"""The files of a model under the two names that the engine has: `torch` and `caffe`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ml.errors import ModelUnusable
from ml.neural import caffe
from ml.neural.saved import Saved, read_network, write_network
from ml.options.target import Target
from ml.options.torch import TorchOptions
from ml.repository_files import is_model, is_state, iteration_of


class Files(Protocol):
    """How the models of a library are named, written and read."""

    library: str
    endings: tuple[str, ...]

    def model_name(self, done: int) -> str:
        """Name of the file with the network after so many iterations."""

    def state_name(self, done: int) -> str:
        """Name of the file with the state of the solver at that time; written by `ml.neural.saved.write_state`."""

    def write(self, path: Path, saved: Saved) -> None:
        """Write a network."""

    def read(self, path: Path) -> Saved:
        """The network of a file. Raises ModelUnusable."""

    def write_companions(self, folder: Path, saved: Saved, target: Target, options: TorchOptions) -> None:
        """Write the other files that belong to a model."""


class TorchFiles:
    """`checkpoint-<N>.npt` and `solver-<N>.pt`."""

    library = "torch"
    endings: tuple[str, ...] = (".npt", ".pt")

    def model_name(self, done: int) -> str:
        return f"checkpoint-{done}.npt"

    def state_name(self, done: int) -> str:
        return f"solver-{done}.pt"

    def write(self, path: Path, saved: Saved) -> None:
        write_network(path, saved)

    def read(self, path: Path) -> Saved:
        return read_network(path)

    def write_companions(self, folder: Path, saved: Saved, target: Target, options: TorchOptions) -> None:
        """Nothing: the file with the network says all."""


class CaffeFiles:
    """`<prefix>_iter_<N>.caffemodel` and `.solverstate`, and the texts of network and solver.

    The state of the solver is ours, as Caffe's own knows neither our solvers nor our random generators.
    """

    library = "caffe"
    endings: tuple[str, ...] = (".caffemodel",)

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix or "model"

    def model_name(self, done: int) -> str:
        return f"{self._prefix}_iter_{done}.caffemodel"

    def state_name(self, done: int) -> str:
        return f"{self._prefix}_iter_{done}.solverstate"

    def write(self, path: Path, saved: Saved) -> None:
        caffe.write_caffemodel(path, saved)

    def read(self, path: Path) -> Saved:
        return caffe.read_caffemodel(path)

    def write_companions(self, folder: Path, saved: Saved, target: Target, options: TorchOptions) -> None:
        """The network to train, the one to deploy, and the solver."""
        network = f"{saved.template}.prototxt"
        tested = options.net.test_batch_size or options.batch_size
        texts = {
            network: caffe.network_text(
                saved,
                target,
                options.batch_size,
                tested,
                distance=options.distance,
                class_weights=options.class_weights,
            ),
            "deploy.prototxt": caffe.deploy_text(saved, target),
            f"{saved.template}_solver.prototxt": caffe.solver_text(
                options.solving, network, self._prefix, has_gpu=options.gpu
            ),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def files_of(options: TorchOptions) -> Files:
    """The files of the library that the options are for."""
    return TorchFiles() if options.library == "torch" else CaffeFiles(options.solver.snapshot_prefix)


def newest(folder: Path, files: Files) -> Path:
    """The newest model file of a folder: by time, then by number. Raises ModelUnusable."""
    found = [path for path in folder.iterdir() if is_model(path.name, files.endings)] if folder.is_dir() else []
    found = [path for path in found if path.is_file()]
    if not found:
        example = files.model_name(100)
        raise ModelUnusable(f"no model of {files.library} (a file such as {example}) was found in the repository")
    return max(found, key=lambda path: (path.stat().st_mtime_ns, iteration_of(path.name) or 0, path.name))


def numbered(folder: Path, files: Files) -> dict[int, Path]:
    """The model files of a folder by the iteration that their names tell."""
    return {
        number: path
        for path in sorted(folder.iterdir())
        if is_model(path.name, files.endings) and (number := iteration_of(path.name)) is not None
    }


def numbered_states(folder: Path) -> dict[int, Path]:
    """The states of solvers in a folder by the iteration that their names tell."""
    return {
        number: path
        for path in sorted(folder.iterdir())
        if is_state(path.name) and (number := iteration_of(path.name)) is not None
    }
