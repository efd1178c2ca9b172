"""Each peer in a virtual environment of its own, kept from one run to the next."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(__file__).resolve().parent.parent.parent / ".venv-peers"
_STAMP = ".installed"
_XGBOOST = "xgboost-cpu==3.2.0"


class NotThere(Exception):
    """A peer cannot be installed, started or asked; the text says why."""


@dataclass(frozen=True)
class Needs:
    """What goes into an environment: `packages`, then `alone` without what they ask for."""

    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()


NEEDS = {
    "litserve": Needs(("litserve==0.2.19", _XGBOOST)),
    # Its runtime for XGBoost asks for the build for graphics cards, under the same import name.
    # Its workers do not start with a newer uvloop.
    "mlserver": Needs(
        ("mlserver==1.7.1", "uvloop==0.21.0", "scikit-learn==1.9.1", _XGBOOST), ("mlserver-xgboost==1.7.1",)
    ),
    "bentoml": Needs(("bentoml==1.4.39", _XGBOOST)),
    "ray": Needs(("ray[serve]==2.60.0", _XGBOOST)),
}


def python_of(name: str) -> Path:
    """The interpreter of a peer, which is installed now if it was not.

    Raises NotThere with the installer's last words.
    """
    needs, folder = NEEDS[name], ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / _STAMP
    wanted = "\n".join((*needs.packages, *needs.alone))
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"{name}: installing {', '.join((*needs.packages, *needs.alone))}", flush=True)
    _run(name, [sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(name, [*pip, *needs.packages])
    if needs.alone:
        _run(name, [*pip, "--no-deps", *needs.alone])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise NotThere(f"{name} could not be installed: {' '.join(said[-3:])}")
