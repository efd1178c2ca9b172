"""What the backends `torch` and `caffe` share: their functions, for an engine that is imported when it is needed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ml.backends.base import BackendInfo, Engine, Previous, Trainer
from ml.backends.inspection import inspect
from ml.errors import MissingExtra
from ml.options.requests import ServiceOptions, TrainingOptions
from ml.tables import TrainingData


class NetworkBackend:
    """The functions of `ml.backends.base.Backend` for networks whose files are those of one library.

    files : name of the class in `ml.neural.files` that knows them.
    """

    def __init__(self, info: BackendInfo, files: str) -> None:
        self._info = info
        self._files_class = files

    def _library(self) -> Any:
        """The part that needs torch. Raises MissingExtra."""
        try:
            return import_module("ml.neural.library")
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtra("torch", self._info.extra) from None

    def _files(self) -> Any:
        return getattr(import_module("ml.neural.files"), self._files_class)()

    def warm(self) -> None:
        """Import torch and let it set up what it sets up on first use. Raises MissingExtra."""
        self._library().warm()

    def start(
        self,
        options: TrainingOptions,
        data: TrainingData,
        *,
        threads: int,
        device: str,
        seed: int,
        scratch: Path,
        resume: Path | None,
        previous: Previous,
    ) -> tuple[Trainer, list[tuple[str, str]]]:
        """A training on `data`, or the one that `resume` left off; and warnings as (parameter, message)."""
        made: tuple[Trainer, list[tuple[str, str]]] = self._library().start(
            options,
            data,
            threads=threads,
            device=device,
            seed=seed,
            scratch=scratch,
            resume=resume,
            previous=previous,
        )
        return made

    def facts(self, path: Path) -> dict[str, Any]:
        """What a model file says of itself. Raises ModelUnusable, MissingExtra."""
        found: dict[str, Any] = self._library().facts(path, self._files())
        return found

    def describe(self, folder: Path, options: ServiceOptions) -> dict[str, Any]:
        """Facts of the newest model file in a folder somebody filled by hand.

        The file is looked at in another process. Raises ModelUnusable when there is none, when it cannot be read, or
        when it does not fit the service.
        """
        library = self._library()
        path = library.newest(folder, self._files())
        found: dict[str, Any] = library.settled(inspect(self._info.name, path), options)
        return found

    def load(self, folder: Path, description: dict[str, Any], *, device: str, threads: int) -> Engine:
        """The described model, ready to predict. Raises ModelUnusable, MissingExtra."""
        made: Engine = self._library().load(folder, description, self._files(), device=device, threads=threads)
        return made
