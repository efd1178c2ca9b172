"""`make demo` does what it says, and leaves nothing running."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import settings


@pytest.mark.servers
@pytest.mark.timeout(240)
def test_demonstration_trains_predicts_cancels_deletes_and_ends_well(tmp_path: Path):
    root = Path(settings.__file__).parent
    ended = subprocess.run(
        [sys.executable, "-m", "deploy.demo"],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MODELYARD_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"iris, 3 classes +acc ([\d.]+)", ended.stdout)
    assert found is not None, ended.stdout
    assert float(found.group(1)) >= 0.9
    found = re.search(r"breast cancer, 2 classes +acc ([\d.]+), auc ([\d.]+)", ended.stdout)
    assert found is not None, ended.stdout
    assert float(found.group(1)) >= 0.93
    assert float(found.group(2)) >= 0.97
    error, guess = re.findall(r"off by ([\d.]+) \(the mean: ([\d.]+)\)", ended.stdout)[0]
    assert float(error) < 0.8 * float(guess)
    found = re.search(r"wine, a network +acc ([\d.]+)", ended.stdout)
    assert found is not None, ended.stdout
    assert float(found.group(1)) >= 0.94
    assert "cancelled, and stopped after" in ended.stdout
    assert "deleted, and unknown since" in ended.stdout
    left = [entry for entry in Path("/proc").glob("[0-9]*/environ") if _mentions(entry, tmp_path)]
    assert left == []


def _mentions(environ: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in environ.read_bytes()
    except OSError:
        return False
