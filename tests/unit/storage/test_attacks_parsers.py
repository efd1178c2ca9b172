"""What is read from Redis, from stores and from addresses is what was written there, or is refused in words of ours.

Whoever can write to Redis or to the object store can do much (docs/security.md says what); to crash or to hold up those
who read is no part of it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.dataset_names import check_path, split_address
from storage.errors import BadDatasetName, ChecksumMismatch, FetchForbidden
from storage.live.lane import replies_in
from storage.objects.manifest import Manifest
from storage.remote_address import check, shown
from tests.refusing import refusing

TEXT = st.text(max_size=80) | st.text(alphabet=":/@%[]?#.\\ -0aé\u2025\uff0f", max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FILE = {"name": "a/b", "key": "attempts/1/a", "size": 3, "sha256": "0" * 64}


@given(
    told=st.binary(max_size=200)
    | st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=20))).map(
        lambda pairs: b"".join(b"%b\t%d\n%b" % (name, len(reply), reply) for name, reply in pairs)
    )
)
@example(told=b"a\t99999999999999999999\n")
@example(told=b"a\t0\n" * 1000)
@example(told=b"a\t-5\nb")
def test_any_bytes_in_a_list_of_replies_come_to_an_end(told: bytes):
    assert sum(len(reply) for _, reply in replies_in(told)) <= len(told)


@given(replies=st.lists(st.tuples(st.from_regex(rb"[0-9a-f]{1,32}", fullmatch=True), st.binary(max_size=40))))
def test_replies_come_back_as_they_were_told(replies: list[tuple[bytes, bytes]]):
    told = b"".join(b"%b\t%d\n%b" % (name, len(reply), reply) for name, reply in replies)
    assert list(replies_in(told)) == replies


@given(given=JSON | JSON.map(lambda each: {"complete": True, "files": each}))
def test_any_json_is_a_manifest_or_damaged(given: Any):
    try:
        found = Manifest.from_json(given)
    except ChecksumMismatch:
        return
    assert Manifest.from_json(found.to_json()) == found


@given(change=st.sampled_from(sorted(FILE)), value=JSON)
def test_any_member_of_a_manifest_is_sound_or_damaged(change: str, value: Any):
    try:
        [file] = Manifest.from_json({"complete": True, "files": [{**FILE, change: value}]}).files
    except ChecksumMismatch:
        return
    assert ".." not in file.name.split("/")
    assert not file.name.startswith("/")
    assert file.size >= 0


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a\\b", "a\0", "..", "", "a//b", "a\nb"])
def test_name_in_a_manifest_leads_nowhere(name: str):
    with pytest.raises(ChecksumMismatch):
        Manifest.from_json({"complete": True, "files": [{**FILE, "name": name}]})


@given(address=TEXT.map(lambda text: f"dataset://{text}") | TEXT)
def test_any_address_of_a_data_set_is_one_or_refused(address: str):
    try:
        name, path = split_address(address)
    except BadDatasetName:
        return
    assert "/" not in name
    assert name not in {".", ".."}
    assert path == "" or check_path(path) == path


@given(scheme=st.sampled_from(["http://", "https://", "s3://"]), rest=TEXT)
def test_any_address_of_another_host_is_one_or_refused_and_can_be_told(scheme: str, rest: str):
    address = scheme + rest
    told = shown(address)
    assert len(told) <= 300
    assert json.dumps(told)
    with refusing(FetchForbidden, 2000):
        check(address, ["bucket"])
