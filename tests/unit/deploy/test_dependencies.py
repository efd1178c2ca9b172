"""What the packages import is what their role installs, and all of it has a tested version."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import settings

ROOT = Path(settings.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"api", "workers", "ml", "storage", "cli", "deploy", "logs", "settings"}


def wanted(*extras: str) -> dict[str, Requirement]:
    """Direct requirements of the base and of some extras, extras inside extras included."""
    found: dict[str, Requirement] = {}
    todo = [*PROJECT["dependencies"], *(f"modelyard[{extra}]" for extra in extras)]
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name == "modelyard":
            for extra in requirement.extras:
                todo += PROJECT["optional-dependencies"][extra]
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def imported(package: str) -> set[str]:
    """Top-level names that the files of a package import, in functions too."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - OURS - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("api", ("api",)),
        # Traces are sent only where somebody installed what sends them.
        # Flower has a program of its own.
        ("workers", ("worker", "traces", "flower")),
        ("ml", ("worker", "xgboost", "torch")),
        ("storage", ("s3", "postgres")),
        ("cli", ("api",)),
        ("deploy", ()),
    ],
)
def test_package_imports_only_what_its_role_installs(package: str, extras: tuple[str, ...]):
    installed = set(wanted(*extras))
    distributions = packages_distributions()
    for name in imported(package):
        owners = {canonicalize_name(owner) for owner in distributions[name]}
        # boto3 comes with botocore, and names it as its own part.
        assert owners & installed or (name == "botocore" and "boto3" in installed), f"{package} imports {name}"


def test_every_requirement_has_a_tested_version_that_satisfies_it():
    tested = pins()
    for name, requirement in wanted(*PROJECT["optional-dependencies"]).items():
        assert requirement.specifier.contains(tested[name]), requirement


def test_pins_are_plain_sorted_and_without_build_tags():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line) for line in lines)


def test_console_script_leads_somewhere():
    module, _, name = PROJECT["scripts"]["modelyard"].partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
