"""Backends are found by name, and agree with the catalog of options."""

import json
import subprocess
import sys

import pytest

from ml import registry
from ml.errors import UnknownLibrary
from ml.options.catalog import libraries


def test_every_library_of_the_catalog_has_a_backend_that_says_the_same():
    assert set(registry.listed()) == set(libraries())
    for name, backend in registry.listed().items():
        library = libraries()[name]
        assert backend.INFO.devices == library.devices
        assert backend.INFO.extra == library.extra


def test_an_unknown_backend_names_the_nearest_one():
    with pytest.raises(UnknownLibrary, match="did you mean 'xgboost'"):
        registry.find("xgbost")


def test_listing_backends_imports_no_library():
    script = "import sys, json; from ml import registry; registry.listed(); print(json.dumps('xgboost' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
