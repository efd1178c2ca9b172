"""What comes in beside the body, read or refused in words of ours: queries, cursors, headers, messages of workers."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from api.access import _hostname, _name_of, _secret
from api.event_stream import Place, read_place
from api.query import as_object, check_known, flag
from api.refusals import BadHeader, BadQuery
from api.schemas.dataset import checksum_of
from api.schemas.paging import Place as PageEnd
from api.schemas.paging import cursor_after, cursor_before, cursor_of, limit_of, path_of
from api.schemas.task import read_query
from tests.refusing import refusing
from workers.asked import Asked

TEXT = st.text(max_size=60)
ENCODED = st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="))
CURSORS = (
    TEXT
    | ENCODED
    | st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=9), st.lists, max_leaves=4).map(
        lambda value: base64.urlsafe_b64encode(json.dumps({"before": value, "after": value}).encode()).decode()
    )
)


@given(pairs=st.lists(st.tuples(st.text(alphabet="ab._[]", max_size=30), TEXT), max_size=10))
def test_any_query_is_an_object_of_few_levels(pairs: list[tuple[str, str]]):
    found: Any = as_object(pairs)
    assert json.dumps(found) is not None
    depth, level = 0, [found]
    while level:
        depth += 1
        level = [each for one in level for each in one.values() if isinstance(each, dict)]
    assert depth <= 9


@given(value=TEXT)
@example(value="1" * 5000)
@example(value="\u0661")
def test_any_text_for_a_number_is_one_or_refused(value: str):
    for read in (limit_of, lambda text: flag({"a": text}, "a", default=False)):
        with refusing(BadQuery, 300):
            read(value)


@given(name=TEXT)
def test_any_unknown_name_is_told_briefly(name: str):
    with refusing(BadQuery, 600):
        check_known([name], ("limit", "cursor"))


@given(cursor=CURSORS)
@example(cursor="[" * 5000)
@example(cursor=base64.urlsafe_b64encode(b"[" * 100_000).decode())
@example(cursor=base64.urlsafe_b64encode(b'{"before":1e400}').decode())
@example(cursor=base64.urlsafe_b64encode(b'{"before":' + b"9" * 5000 + b"}").decode())
@example(cursor=base64.urlsafe_b64encode(b'{"after":"\\ud800"}').decode())
@example(cursor=base64.urlsafe_b64encode(b'{"before":true}').decode())
def test_any_cursor_is_one_or_refused(cursor: str):
    with refusing(BadQuery, 300):
        assert isinstance(cursor_of(cursor), PageEnd)
    with refusing(BadQuery, 300):
        path_of(cursor).encode()


@given(
    number=st.integers(1, 2**63 - 1),
    at=st.floats(allow_nan=False, allow_infinity=False),
    path=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1),
)
def test_our_own_cursors_come_back(number: int, at: float, path: str):
    assert cursor_of(cursor_before(number, at)) == PageEnd(number, at)
    assert path_of(cursor_after(path)) == path


@given(query=st.dictionaries(st.sampled_from(["ids", "state", "kind", "service", "limit", "cursor", "x"]), TEXT))
def test_any_list_of_tasks_is_asked_for_or_refused(query: dict[str, str]):
    with refusing(BadQuery, 600):
        read_query(query)


@given(text=TEXT | st.text(alphabet="0123456789-end\u0661 ", max_size=40))
@example(text="9" * 100_000)
def test_any_place_in_a_stream_is_one_or_refused(text: str):
    with refusing(BadHeader, 300):
        found = read_place(text)
        assert found is None or read_place(str(found)) == found


@given(attempt=st.integers(0, 10**9 - 1), measures=st.integers(0, 10**12 - 1), is_end=st.booleans())
def test_our_own_places_come_back(attempt: int, measures: int, is_end: bool):
    place = Place(attempt, measures, is_end)
    assert read_place(str(place)) == place


@given(text=TEXT)
def test_any_checksum_is_one_or_refused(text: str):
    with refusing(BadHeader, 300):
        assert len(checksum_of(text)) == 64


@given(data=st.binary(max_size=100), head=st.binary(max_size=50).filter(lambda head: b"\n" not in head))
def test_question_of_a_message_comes_back_whatever_it_holds(data: bytes, head: bytes):
    data = orjson.dumps([data.hex()])
    assert Asked.split(Asked(head, data).joined()) == Asked(head, data)
    assert Asked.split(Asked(head, data, "00-ab").joined()) == Asked(head, data, "00-ab")


@given(
    name=st.sampled_from(["authorization", "x-api-key", "Authorization"]),
    kind=st.sampled_from(["", "Basic ", "basic ", "Bearer ", "Digest "]),
    rest=TEXT | ENCODED,
)
def test_any_header_with_a_key_holds_a_text_or_none(name: str, kind: str, rest: str):
    secret = _secret({name: kind + rest})
    if secret is not None:
        _name_of(secret)


@given(url=TEXT | TEXT.map(lambda rest: f"http://{rest}"))
def test_any_origin_has_a_host_or_none(url: str):
    assert _hostname(url) is None or isinstance(_hostname(url), str)
