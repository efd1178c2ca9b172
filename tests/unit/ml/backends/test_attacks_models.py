"""Attacks by way of a model's files: code in them, sizes that lie, what crashes, fills or holds up whoever reads them.

Each is refused as a model that cannot be used; and each does its harm where the lock that it meets is taken away. What
could hurt the machine happens in a process with limits.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgboost

from ml import repository_files, serving
from ml.backends import inspection
from ml.connectors import columnar, csv_columns, svm
from ml.errors import ModelUnusable
from ml.neural import caffe, saved, wire
from ml.options import load_service
from ml.training import checkpoints

RAN = "ran.txt"


class Code:
    """What leaves a file where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RAN

    def __reduce__(self) -> Any:
        return (Path.write_text, (self._path, "this ran"))


# Code


def _zip_of_torch(path: Path) -> None:
    torch.save({"weight": Code(path.parent), "bias": torch.zeros(2)}, path)


def _older_form(path: Path) -> None:
    torch.save({"weight": Code(path.parent)}, path, _use_new_zipfile_serialization=False)


def _bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code(path.parent)))


def _tar_of_the_oldest(path: Path) -> None:
    """As torch wrote before it had a form of its own: a tar with pickles."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (
            ("sys_info", pickle.dumps({"protocol_version": 1000})),
            ("pickle", pickle.dumps(Code(path.parent), 2)),
            ("storages", pickle.dumps(Code(path.parent), 2)),
            ("tensors", pickle.dumps(Code(path.parent), 2)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("write", [_zip_of_torch, _older_form, _bare_pickle, _tar_of_the_oldest])
def test_code_in_a_file_of_torch_is_run_only_where_weights_are_not_all(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.npt"
    write(path)
    with pytest.raises(ModelUnusable):
        saved.read_network(path)
    with pytest.raises(ModelUnusable):
        saved.read_state(path)
    assert not (tmp_path / RAN).exists()
    # The lock open:
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **options: load(*given, **{**options, "weights_only": False}))
    with contextlib.suppress(ModelUnusable, AttributeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved.read_network(path)
    assert (tmp_path / RAN).read_text() == "this ran"


def test_program_of_torch_is_no_model(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(ModelUnusable, match="would run code of its own"):
        saved.read_network(tmp_path / "a.pt")


def test_objects_in_an_array_of_numpy_are_made_only_where_they_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    array = np.empty(1, object)
    array[0] = Code(tmp_path)
    np.save(tmp_path / columnar._LABELS_FILE, array, allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        columnar._labels(tmp_path)
    assert not (tmp_path / RAN).exists()
    # The lock open:
    load = np.load
    monkeypatch.setattr(np, "load", lambda path, **options: load(path, allow_pickle=True))
    columnar._labels(tmp_path)
    assert (tmp_path / RAN).exists()


@pytest.mark.parametrize("shape", ["(1000000000000000,)", "(-1,)", "(4294967296, 4294967296, 4294967296)"])
def test_shape_of_an_array_that_lies_is_found_out(shape: str, tmp_path: Path):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path = tmp_path / columnar._LABELS_FILE
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80))
    with pytest.raises((ValueError, TypeError, OverflowError, RuntimeWarning)):
        columnar._labels(tmp_path)


# Sizes that lie, of files that another process looks at first


def _features(count: int) -> bytes:
    """A small model of XGBoost that says it takes so many numbers."""
    data = xgboost.DMatrix(np.arange(8.0).reshape(4, 2), [0, 1, 0, 1])
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 1)
    model = json.loads(bytes(booster.save_raw("json")))
    model["learner"]["learner_model_param"]["num_feature"] = str(count)
    return json.dumps(model).encode()


def test_small_model_with_names_of_millions_of_inputs_is_refused_before_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "0001.model"
    path.write_bytes(_features(300_000))
    # The lock, closer than it is: to make names takes time.
    code = (
        "import sys; from ml.backends import inspection; inspection.ANSWER_LIMIT_BYTES = {}; "
        "import os; os._exit(inspection.main(sys.argv[1:]))"
    )

    def inspected(limit_bytes: int) -> bytes:
        command = [sys.executable, "-c", code.format(limit_bytes), "xgboost", str(path)]
        return subprocess.run(command, capture_output=True, check=False, timeout=100).stdout

    told = json.loads(inspected(2**20))
    assert "has names of inputs of more than" in told["message"]
    # The lock open:
    assert len(inspected(2**26)) > 2_500_000


def _lying_storage(path: Path) -> None:
    """A file of torch whose tensor has a size that its numbers do not have."""
    torch.save({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer, "w") as other:
        for each in archive.infolist():
            content = archive.read(each)
            if each.filename.endswith("data.pkl"):
                # Both sizes of the tensor, and its strides: K is a number of one byte, M of two.
                content = content.replace(b"K\x02K\x02\x86", b"M\xff\xffM\xff\xff\x86")
            other.writestr(each.filename, content)
    path.write_bytes(buffer.getvalue())


def test_tensor_that_is_larger_than_its_numbers_is_refused(tmp_path: Path):
    path = tmp_path / "a.npt"
    _lying_storage(path)
    with pytest.raises(ModelUnusable):
        saved.read_network(path)


def test_one_number_for_a_whole_layer_is_refused_by_us_and_only_by_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.npt"
    torch.save({"weight": torch.zeros(()).expand(1000, 2000), "bias": torch.zeros(()).expand(1000)}, path)
    assert path.stat().st_size < 5000
    with pytest.raises(ModelUnusable, match="not all arrays of real numbers"):
        saved.read_network(path)
    # The lock open: a file of a few bytes is a network of megabytes.
    monkeypatch.setattr(saved, "_tensors", lambda found, file: {str(name): each for name, each in found.items()})
    assert saved.read_network(path).parameters == 2_001_000


@pytest.mark.parametrize(
    "content",
    [
        wire.nested(100, wire.nested(7, [wire.nested(7, [wire.packed(1, [2**31, 2**31])])])),
        wire.nested(100, wire.nested(7, [wire.nested(7, [wire.packed(1, [0] * 5000)])])),
        wire.nested(100, wire.nested(7, [wire.nested(7, [wire.packed(1, [2**63, 2])])])),
        b"\xa2\x06" + b"\xff" * 9 + b"\x01",
        wire.nested(100, b"") * 10_000,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0b" * 100_000,
    ],
    ids=["huge shape", "many sizes", "overflowing shape", "endless length", "layers", "long name", "groups"],
)
def test_messages_of_caffe_that_lie_are_refused(content: bytes, tmp_path: Path):
    (tmp_path / "a.caffemodel").write_bytes(content)
    with pytest.raises(ModelUnusable):
        caffe.read_caffemodel(tmp_path / "a.caffemodel")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0001.model", b"{" * 1_000_000),
        ("0002.model", b'{"learner":' * 50_000),
        ("0003.model", b"{L\x00\x00\x00\x00\x00\x00\x00\xff"),
        ("a.npt", b"PK\x03\x04" + bytes(200)),
        ("b.npt", struct.pack("<Q", 100) + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,1]}}'),
    ],
    ids=["braces", "nested", "ubj of a huge length", "an empty zip", "a shape of safetensors"],
)
def test_no_file_ends_the_process_that_wants_its_model(name: str, content: bytes, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelUnusable):
        inspection.inspect("torch" if name.endswith(".npt") else "xgboost", path)


# Crashes, memory and time of the reading process

_READER = """
import sys
from pathlib import Path
from ml.backends import inspection
from ml import registry

class Backend:
    @staticmethod
    def facts(path):
        {}
        return {{}}

registry.find = lambda name: Backend
{}
import os
os._exit(inspection.main(["any", {!r}]))
"""
LIBRARIES = {
    "crashes": ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    "aborts": ("import os; os.abort()", -signal.SIGABRT),
    "never ends": ("import time; began = time.process_time()\n        while time.process_time() < began + 8: pass", -9),
    # Private, and without a reserve for it.
    "takes all memory": ("import mmap; mmap.mmap(-1, 9 * 2**30, 2 | 0x4000)", 1),
    "writes a large file": ("open({0!r}, 'wb').write(bytes(2**23))", 1),
}
_CLOSER = "inspection.CPU_LIMIT_S = 1; inspection.MEMORY_FLOOR_BYTES = 2**33; inspection.ANSWER_LIMIT_BYTES = 2**20"
_OPEN = "inspection.confine = lambda size: None"


@pytest.mark.parametrize("kind", ["never ends", "takes all memory", "writes a large file"])
def test_reading_process_has_an_end_that_it_would_not_have_without_limits(kind: str, tmp_path: Path):
    work, code = LIBRARIES[kind]
    work = work.format(str(tmp_path / "large"))
    (tmp_path / "model").write_bytes(b"x")

    def outcome(lock: str) -> int:
        script = _READER.format(work, lock, str(tmp_path / "model"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
        return done.returncode

    assert outcome(_CLOSER) == code
    # The lock open. Memory is asked for and never touched, so that this machine keeps its own.
    assert outcome(_OPEN) == 0


@pytest.mark.parametrize("kind", ["crashes", "aborts"])
def test_crash_over_a_file_is_a_broken_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "0001.model"
    path.write_bytes(b"x")
    script = tmp_path / "reader"
    inner = _READER.format(LIBRARIES[kind][0], _CLOSER, str(path))
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.path[:0] = {sys.path!r}\n{inner}")
    script.chmod(0o755)
    monkeypatch.setattr(inspection.sys, "executable", str(script))
    with pytest.raises(ModelUnusable, match="is broken: reading it ended the reading process"):
        inspection.inspect("xgboost", path)


def test_reading_process_has_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = tmp_path / "environment"
    script = tmp_path / "reader"
    script.write_text(f"#!/bin/sh\nenv > {told}\n")
    script.chmod(0o755)
    monkeypatch.setattr(inspection.sys, "executable", str(script))
    with pytest.raises(ModelUnusable):
        inspection.inspect("xgboost", tmp_path / "0001.model")
    assert "PYTHONPATH" in told.read_text()
    assert "secret" not in told.read_text()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "secret"


# Texts beside a model

TEXTS: dict[str, Callable[[Path], object]] = {
    "corresp.txt": lambda folder: serving.read_labels(folder, 3),
    "bounds.dat": csv_columns.read_bounds,
    "vocab.dat": svm._vocabulary,
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_beside_a_model_are_read_up_to_a_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    contents = {
        "corresp.txt": b"0 a\n1 b\n2 c\n" + b"\n" * 2000,
        "bounds.dat": b"ncols: 1\nnlabels: 0\nmin_vals: 0\nmax_vals: 1\n" + b"\n" * 2000,
        "vocab.dat": b"1\n2\n" + b"\n" * 2000,
    }
    (tmp_path / name).write_bytes(contents[name])
    assert TEXTS[name](tmp_path) is not None
    monkeypatch.setattr(repository_files, "TEXT_BYTES", 1000)
    with pytest.raises(ModelUnusable, match=r"cannot be read"):
        TEXTS[name](tmp_path)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"9" * 10_000,
        b"0 " * 10_000,
        b":" * 10_000,
        b"ncols: 1e400\n",
        b"ncols: " + b"9" * 5000,
        b"\0",
        b"-1 a",
    ],
)
def test_texts_beside_a_model_are_read_or_refused(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(ModelUnusable):
        TEXTS[name](tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[]",
        b"3",
        b'{"done":1}',
        b'{"done":1e400,"seed":1,"elapsed_s":0,"history":[],"steps":1,"best":1,"bests":2}',
        b'{"done":"x","seed":[],"elapsed_s":{},"history":{"a":1},"steps":{},"best":{"x":1},"bests":{}}',
        b"\xff",
    ],
)
def test_progress_that_nobody_wrote_is_none(content: bytes, tmp_path: Path):
    (tmp_path / checkpoints.PROGRESS_FILE).write_bytes(content)
    with pytest.raises(ModelUnusable):
        checkpoints.read_progress(tmp_path)


@pytest.mark.parametrize(
    "kept",
    [
        b"[" * 100_000,
        b'{"digest": "0", "backend": "xgboost", "fitted": 1e400, "labels": 1}',
        b'{"digest": "0", "backend": "xgboost", "fitted": {"inputs": [[]]}, "labels": {}}',
        b'{"digest": "0", "backend": "xgboost", "fitted": [], "labels": [1]}',
        b'{"digest": "0", "backend": "xgboost", "fitted": {}, "labels": null, "parameters": []}',
    ],
)
def test_description_that_nobody_wrote_is_none(kept: bytes, tmp_path: Path):
    options = load_service(
        {
            "mllib": "xgboost",
            "model": {"repository": "a"},
            "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 2}},
        }
    ).value
    (tmp_path / serving.DESCRIPTION_FILE).write_bytes(kept)
    facts = {"digest": "0", "target": {"kind": "classification", "classes": 2}, "inputs": ["a"]}
    assert serving._kept_description(tmp_path, facts, options) is None
