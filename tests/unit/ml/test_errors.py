"""Errors carry a stable kind and the section of the request at fault."""

import pytest

from ml import errors


def leaves(base):
    below = base.__subclasses__()
    return [base] + [each for one in below for each in leaves(one)] if below else [base]


def test_every_kind_is_used_once():
    kinds = [each.kind for each in leaves(errors.MlError)]
    assert len(set(kinds)) == len(kinds)


def test_sections_tell_the_part_of_the_request():
    assert errors.BadInput("x").section == "input"
    assert errors.BadParameter(name="n", section="output", message="m").section == "output"
    assert errors.ModelUnusable("x").section is None
    assert errors.BadInput("why").message == "why"


@pytest.mark.parametrize(
    ("name", "text"), [("xgbost", "did you mean 'xgboost'?"), ("zzz", "use one of torch, xgboost")]
)
def test_unknown_names_come_with_known_ones(name, text):
    assert text in str(errors.UnknownLibrary(name, ["xgboost", "torch"]))
