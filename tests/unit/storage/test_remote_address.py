"""Addresses of other hosts: what may be read of them, and what may be told."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.errors import FetchForbidden
from storage.remote_address import Place, check, place_of, shown


@pytest.mark.parametrize(
    ("address", "place", "is_folder"),
    [
        ("s3://data/a.csv", Place("data", "a.csv"), False),
        ("s3://data/a b/ä.csv?x#y", Place("data", "a b/ä.csv?x#y"), False),
        ("s3://data/a/", Place("data", "a/"), True),
        ("s3://data/", Place("data", ""), True),
        ("s3://data", Place("data", ""), True),
    ],
)
def test_address_of_s3_is_a_bucket_and_a_key_as_it_stands(address: str, place: Place, is_folder: bool) -> None:
    found = place_of(address, ["data"])
    assert (found, found.is_folder) == (place, is_folder)


@pytest.mark.parametrize("address", ["s3://other/a", "s3://", "s3:///a", "s3://Data/a", "s3://data@other/a"])
def test_bucket_that_is_not_named_is_refused(address: str) -> None:
    with pytest.raises(FetchForbidden, match="MODELYARD_DATA_S3_BUCKETS"):
        place_of(address, ["data"])
    with pytest.raises(FetchForbidden, match="no bucket may be read here"):
        place_of("s3://data/a", [])


@pytest.mark.parametrize("key", ["a\nb", "a\0b", "x" * 1025, "ä" * 600])
def test_key_that_s3_would_not_take_is_refused(key: str) -> None:
    with pytest.raises(FetchForbidden, match="the key must be printable"):
        check(f"s3://data/{key}", ["data"])


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://host/a.csv", "https://host/a.csv"),
        ("https://me:secret@host:81/a.csv?X-Signature=secret#secret", "https://host:81/a.csv?…"),
        ("http://me:sec/ret@host/", "http://…"),
        ("http://me:secret@[odd/", "http://…"),
        ("http://me:12/secret@host/", "http://…"),
        ("http://me\\:secret@host/", "http://…"),
        ("https://host/of@june.csv", "https://host/of@june.csv"),
        ("s3://data/a.csv", "s3://data/a.csv"),
    ],
)
def test_addresses_are_told_without_credentials(address: str, told: str) -> None:
    assert shown(address) == told


@given(st.text(), st.text(st.characters(categories=["L", "Nd"]), min_size=6))
@example(user="0\\", password="000000")
@example(user="0/", password="000000")
@example(user="me@host/", password="000000")
def test_no_form_of_an_address_tells_a_password(user: str, password: str) -> None:
    secret = f"geheim{password}"
    for address in (f"http://{user}:{secret}@host/", f"https://host/?{user}={secret}", f"http://{secret}@host"):
        assert secret.lower() not in shown(address).lower()
