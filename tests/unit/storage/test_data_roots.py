"""Paths of clients stay inside the data roots, whatever they are made of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from storage.data_roots import DataRoots
from storage.errors import OutsideDataRoots


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two roots, one of them a link, beside a folder that is none."""
    (tmp_path / "first" / "sub").mkdir(parents=True)
    (tmp_path / "second real").mkdir()
    (tmp_path / "second").symlink_to(tmp_path / "second real")
    (tmp_path / "first evil twin").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    (tmp_path / "first" / "iris.csv").write_text("1,2\n")
    (tmp_path / "first" / "sub" / "a.csv").write_text("1,2\n")
    (tmp_path / "second real" / "wine.csv").write_text("1,2\n")
    (tmp_path / "second real" / "iris.csv").write_text("other\n")
    return tmp_path


@pytest.fixture
def roots(base: Path) -> DataRoots:
    return DataRoots([base / "first", base / "second"])


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("{base}/first/iris.csv", "first/iris.csv"),
        ("{base}/first", "first"),
        ("{base}/first/", "first"),
        ("{base}/first/sub/../iris.csv", "first/iris.csv"),
        ("{base}/first/../first/iris.csv", "first/iris.csv"),
        ("{base}//first///iris.csv", "first/iris.csv"),
        ("{base}/second/wine.csv", "second real/wine.csv"),
        ("{base}/second real/wine.csv", "second real/wine.csv"),
        ("file://{base}/first/iris.csv", "first/iris.csv"),
        ("file://localhost{base}/second%20real/wine.csv", "second real/wine.csv"),
        ("iris.csv", "first/iris.csv"),
        ("./iris.csv", "first/iris.csv"),
        ("sub/a.csv", "first/sub/a.csv"),
        ("wine.csv", "second real/wine.csv"),
        ("../second/wine.csv", "second real/wine.csv"),
        ("not/yet/there.csv", "first/not/yet/there.csv"),
        ("{base}/second/not/yet", "second real/not/yet"),
        ("{base}/first/iris.csv/inside a file", "first/iris.csv/inside a file"),
        (".", "first"),
    ],
)
def test_paths_inside_are_resolved(roots: DataRoots, base: Path, path: str, real: str) -> None:
    given = path.format(base=base)
    assert roots.resolve(given) == base / real
    assert roots.is_inside(given)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/",
        "{base}",
        "{base}/secret/key",
        "{base}/first/../secret/key",
        "{base}/first/sub/../../secret/key",
        "{base}/first evil twin/x",
        "{base}/first/missing/../../secret/key",
        "../secret/key",
        "sub/../../secret/key",
        "../../../../../../../../../../etc/passwd",
        "file:///etc/passwd",
        "file://{base}/first/%2e%2e/secret/key",
        "file://{base}/first/..%2fsecret/key",
        "file://otherhost{base}/first/iris.csv",
        "file://iris.csv",
        "file://",
        "/proc/self/root/etc/passwd",
    ],
)
def test_paths_outside_are_refused_and_the_roots_are_named(roots: DataRoots, base: Path, path: str) -> None:
    given = path.format(base=base)
    with pytest.raises(OutsideDataRoots) as caught:
        roots.resolve(given)
    if not given.startswith("file://otherhost") and given not in {"file://iris.csv", "file://"}:
        assert str(base / "first") in str(caught.value)
        assert "secret\n" not in str(caught.value)
    assert not roots.is_inside(given)


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret/key", "../secret", "../secret/not yet there", "/"])
def test_links_that_lead_out_are_refused(roots: DataRoots, base: Path, target: str) -> None:
    (base / "first" / "link").symlink_to(target)
    (base / "first" / "second link").symlink_to("link")
    for path in ["link", "second link", f"{base}/first/link", "link/key", "sub/../link"]:
        with pytest.raises(OutsideDataRoots):
            roots.resolve(path)


def test_links_that_stay_inside_are_followed(roots: DataRoots, base: Path) -> None:
    (base / "first" / "link").symlink_to("sub")
    (base / "first" / "across").symlink_to(base / "second" / "wine.csv")
    assert roots.resolve("link/a.csv") == base / "first" / "sub" / "a.csv"
    assert roots.resolve("across") == base / "second real" / "wine.csv"


def test_dots_after_a_link_are_those_of_its_target(roots: DataRoots, base: Path) -> None:
    (base / "secret" / "inner").mkdir()
    (base / "first" / "out").symlink_to(base / "secret" / "inner")
    with pytest.raises(OutsideDataRoots):
        roots.resolve(f"{base}/first/out/../key")  # as text it would be first/key
    (base / "first" / "deep").symlink_to("sub")
    assert roots.resolve("deep/../iris.csv") == base / "first" / "iris.csv"


def test_loops_of_links_are_refused(roots: DataRoots, base: Path) -> None:
    (base / "first" / "loop").symlink_to("loop")
    (base / "first" / "a").symlink_to("b")
    (base / "first" / "b").symlink_to("a")
    for path in ["loop", "a", "b/x", f"{base}/first/loop", f"{base}/first/a/b/c"]:
        with pytest.raises(OutsideDataRoots):
            roots.resolve(path)
        assert not roots.looks_like_path(path) or path.startswith("/")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "\0",
        "iris.csv\0",
        "/first\0/etc/passwd",
        "file:///a%00b",
        "x" * 256,
        "/" + "x" * 300 + "/y",
        "x/" * 3000,
        "\ud800",
    ],
)
def test_what_can_be_no_path_is_refused(roots: DataRoots, path: str) -> None:
    with pytest.raises(OutsideDataRoots, match="no path"):
        roots.resolve(path)
    assert not roots.is_inside(path)


def test_a_long_path_that_only_the_root_makes_too_long_is_refused(roots: DataRoots) -> None:
    with pytest.raises(OutsideDataRoots):
        roots.resolve("x/" * 2040 + "x")


def test_messages_stay_short(roots: DataRoots) -> None:
    with pytest.raises(OutsideDataRoots) as caught:
        roots.resolve("/" + "y/" * 1500)
    assert len(str(caught.value)) < 1000


def test_a_root_may_be_created_later_and_its_link_may_move(base: Path) -> None:
    roots = DataRoots([base / "later"])
    assert roots.resolve(f"{base}/later/a") == base / "later" / "a"
    (base / "later").symlink_to(base / "second real")
    assert roots.resolve("wine.csv") == base / "second real" / "wine.csv"


def test_roots_are_known_by_any_of_their_names(roots: DataRoots, base: Path) -> None:
    for name in ["first", "second", "second real", "first/sub/.."]:
        assert roots.is_root(base / name)
    assert not roots.is_root(base / "first" / "sub")
    assert not roots.is_root(base)


def test_without_roots_nothing_is_inside() -> None:
    roots = DataRoots([])
    for path in ["/", "a", "/etc/passwd"]:
        with pytest.raises(OutsideDataRoots):
            roots.resolve(path)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("/anything", True),
        ("./x", True),
        ("../x", True),
        ("file:///x", True),
        ("iris.csv", True),
        ("sub", True),
        ("sub/a.csv", True),
        ("missing.csv", True),
        ("sub/missing.CSV", True),
        ("~/missing.svm.gz", True),
        ("C:\\data\\missing.txt", True),
        (" missing.csv", True),
        ("missing", False),
        ("1,missing.csv", False),
        ("1:1 2:3 # of missing.csv", False),
        ("ftp://host/missing.csv", False),
        ("0.csv,1.csv", False),
        ("5.1,3.5,1.4,0.2", False),
        ("/path\nwith,a,break", False),
        ("iris.csv\n", False),
        ("iris.csv\0", False),
        ("", False),
        ("/" + "1.0,2.0," * 1000, False),
        ("5.1," * 3_000_000, False),
    ],
)
def test_paths_are_told_from_lines_of_data(roots: DataRoots, entry: str, expected: bool) -> None:
    assert roots.is_meant_as_file(entry) is expected
    is_row = entry.strip().lower().endswith(("missing.csv", "missing.svm.gz", "missing.txt")) and expected
    assert roots.looks_like_path(entry) is (expected and not is_row), "a row for a prediction may be one word"


def test_what_is_missing_is_told_with_the_places_where_it_was_looked_for(roots: DataRoots, base: Path) -> None:
    def missing(path: str) -> str:
        return roots.missing(path, roots.resolve(path))

    where = f" in the data roots ({base}/first, {base}/second)"
    assert missing("missing.csv") == f"data file missing.csv does not exist{where}"
    assert missing("sub/a.csv/b.csv") == f"data file sub/a.csv/b.csv does not exist{where}"
    assert missing(f"{base}/first/missing.csv") == f"data file {base}/first/missing.csv does not exist"
    assert missing("wine.csv") == missing("sub") == ""


def test_a_name_that_leads_out_is_no_reason_to_say_that_it_exists(roots: DataRoots, base: Path) -> None:
    (base / "first" / "link").symlink_to(base / "secret" / "key")
    assert not roots.looks_like_path("link")


def test_a_loop_of_links_does_not_hide_a_link_behind_it(roots: DataRoots, base: Path) -> None:
    (base / "first" / "loop").symlink_to("loop")
    (base / "first" / "out").symlink_to(base / "secret")
    for path in ("loop/../out", "loop/../out/key", f"{base}/first/loop/../out/key"):
        with pytest.raises(OutsideDataRoots):
            roots.resolve(path)


PIECES = [
    "..",
    ".",
    "",
    "first",
    "second",
    "second real",
    "secret",
    "key",
    "sub",
    "out",
    "in",
    "loop",
    "iris.csv",
    "\0",
]


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=8), absolute=st.booleans())
def test_no_mixture_of_names_links_and_dots_leads_out(
    roots: DataRoots, base: Path, pieces: list[str], absolute: bool
) -> None:
    for name, target in {"out": base / "secret", "in": base / "first" / "sub", "loop": Path("loop")}.items():
        if not os.path.lexists(base / "first" / name):
            (base / "first" / name).symlink_to(target)
    path = "/".join(pieces)
    try:
        found = roots.resolve(f"{base}/{path}" if absolute else path)
    except OutsideDataRoots:
        return
    real = Path(os.path.realpath(found))
    assert real == found
    assert any(real.is_relative_to(base / root) for root in ("first", "second real"))
