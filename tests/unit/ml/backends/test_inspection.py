"""Foreign model files are looked at in a process of their own."""

import pytest

from ml.backends import inspection
from ml.errors import ModelUnusable


def test_a_file_that_is_no_model_is_refused_from_the_other_process(tmp_path):
    path = tmp_path / "0001.model"
    path.write_bytes(b"garbage")
    with pytest.raises(ModelUnusable, match=r"0001\.model is no model"):
        inspection.inspect("xgboost", path)


def test_a_library_that_dies_over_a_file_is_a_broken_file(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection.sys, "executable", "/bin/false")
    with pytest.raises(ModelUnusable, match="is broken: reading it ended the reading process"):
        inspection.inspect("xgboost", tmp_path / "0001.model")


def test_a_file_that_takes_too_long_is_refused(tmp_path, monkeypatch):
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nexec sleep 30\n")
    script.chmod(0o755)
    monkeypatch.setattr(inspection.sys, "executable", str(script))
    monkeypatch.setattr(inspection, "WAIT_LIMIT_S", 0.05)
    with pytest.raises(ModelUnusable, match=r"could not be read within 0\.05 s"):
        inspection.inspect("xgboost", tmp_path / "0001.model")
