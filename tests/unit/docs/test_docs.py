"""The documentation is current, its links lead somewhere, and what it names exists."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from itertools import takewhile
from pathlib import Path

import click
import pytest

import settings as settings_module
from api.app import create_app
from api.errors import CODES
from cli.main import main
from docs import generate
from settings import Settings

ROOT = Path(settings_module.__file__).resolve().parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(each for at in ("docs", "examples", "deploy") for each in (ROOT / at).rglob("*.md")),
    ]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    made: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        name, count = base, 0
        while name in made:
            count += 1
            name = f"{base}-{count}"
        made.add(name)
    return made


@pytest.mark.parametrize("name", sorted(generate.pages()))
def test_generated_page_is_what_the_code_says(name: str) -> None:
    written = (generate.FOLDER / name).read_text(encoding="utf-8")
    assert written == generate.pages()[name], "run `python -m docs.generate` and commit what it writes"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        assert target.is_relative_to(ROOT), f"{name_of(page)} links out of the repository: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}, which is no heading"


def variables_of(command: click.Command) -> set[str]:
    """The variables that options of a command, and of those inside, are read from."""
    inside = command.commands.values() if isinstance(command, click.Group) else ()
    own = {str(each.envvar) for each in command.params if each.envvar}
    return own.union(*map(variables_of, inside))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_variables_that_a_page_names_are_settings(page: Path) -> None:
    known = {field.metadata["variable"] for field in dataclasses.fields(Settings)} | variables_of(main)
    named = set(re.findall(r"MODELYARD_[A-Z0-9_]+", page.read_text(encoding="utf-8")))
    assert named <= known


def commands_in(page: Path) -> list[list[str]]:
    """The words of every `modelyard …` in the blocks of a page that are for a shell."""
    blocks = [text for language, text in _FENCE.findall(page.read_text(encoding="utf-8")) if language != "json"]
    lines = [line.removeprefix("$ ") for text in blocks for line in text.replace("\\\n", " ").splitlines()]
    calls = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("modelyard ")]
    return [list(takewhile(lambda word: word not in (">", "|"), words)) for words in calls]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_on_a_page_exist_and_take_these_words(page: Path) -> None:
    for words in commands_in(page):
        command: click.Command = main
        while isinstance(command, click.Group) and (words or not command.invoke_without_command):
            name = words.pop(0)
            assert name in command.commands, f"{name_of(page)} names {name}"
            command = command.commands[name]
        command.make_context(command.name, words)  # its error says which word is wrong


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    assert {page for page in (ROOT / "docs").glob("*.md") if page != index} <= linked


def test_every_decision_is_in_its_index() -> None:
    index = ROOT / "docs" / "decisions" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(prose(index))}
    assert {page for page in index.parent.glob("*.md") if page != index} == linked


def test_api_page_names_every_route_and_no_other(tmp_path: Path) -> None:
    app = create_app(Settings.from_env({"MODELYARD_HOME": str(tmp_path)}))
    routes = {
        re.sub(r"<(?:path:)?(\w+)>", lambda found: found[1].upper(), rule.rule) for rule in app.url_map.iter_rules()
    }
    table = prose(ROOT / "docs" / "api.md").partition("\n## ")[0]
    named = {route for row in table.splitlines() if row.startswith("| `/") for route in re.findall(r"`(/[^`]*)`", row)}
    assert named == routes


def test_api_page_tells_the_codes_of_every_kind_of_error() -> None:
    table = prose(ROOT / "docs" / "api.md").partition("\n## Error codes\n")[2].partition("\n## ")[0]
    told = {}
    for row in table.splitlines():
        if row.startswith("| `"):
            kinds, http, dd_code, _ = (cell.strip() for cell in row.strip("|").split("|"))
            for kind in re.findall(r"`(\w+)`", kinds):
                assert kind not in told
                told[kind] = (int(http), None if dd_code == "-" else int(dd_code))
    assert told == {kind: (code.http, code.dd_code) for kind, code in CODES.items()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_in_json_are_json(page: Path) -> None:
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "json":
            json.loads(text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_at_most_120_characters_but_for_tables(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
