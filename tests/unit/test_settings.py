"""Settings come from the environment, and wrong ones name their variable."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from settings import BadSetting, Settings


def test_empty_environment_gives_a_private_machine() -> None:
    settings = Settings.from_env({"MODELYARD_HOME": "/srv/yard"})
    assert settings.database_url == "sqlite:////srv/yard/records.db"
    assert settings.objects_url == "file:///srv/yard/objects"
    assert settings.data_roots == (Path("/srv/yard/data"),)
    assert settings.live_url == "unix:///srv/yard/redis/redis.sock"
    assert settings.broker_url == "redis+socket:///srv/yard/redis/redis.sock"
    assert settings.is_loopback


def test_every_setting_is_described_and_has_a_variable_of_its_own() -> None:
    variables = [each.metadata["variable"] for each in fields(Settings)]
    assert len(set(variables)) == len(variables)
    assert all(variable.startswith("MODELYARD_") for variable in variables)
    assert all(each.metadata["text"].endswith(".") for each in fields(Settings))


def test_settings_go_through_the_environment_unchanged() -> None:
    settings = Settings.from_env(
        {
            "MODELYARD_HOME": "/srv/yard",
            "MODELYARD_DATA_ROOTS": "/a:/b",
            "MODELYARD_REDIS_URL": "rediss://:secret@redis:6380/2",
            "MODELYARD_FETCH_ALLOW": "10.0.0.0/8, files.local, ::1,[fd00::1],fd00::/8",
            "MODELYARD_LEASE_S": "12.5",
            "MODELYARD_HOST": "0.0.0.0",
            "MODELYARD_PORT": "9000",
        }
    )
    assert settings.data_roots == (Path("/a"), Path("/b"))
    assert settings.fetch_allow == ("10.0.0.0/8", "files.local", "::1", "[fd00::1]", "fd00::/8")
    assert settings.live_url == "rediss://:secret@redis:6380/2"
    assert settings.broker_url == "rediss://:secret@redis:6380/2?ssl_cert_reqs=required"
    assert not settings.is_loopback
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODELYARD_PORT", "http"),
        ("MODELYARD_PORT", "70000"),
        ("MODELYARD_LEASE_S", "-1"),
        ("MODELYARD_LEASE_S", "nan"),
        ("MODELYARD_CHECKPOINT_S", "inf"),
        ("MODELYARD_TRAIN_WORKERS", "1.5"),
        ("MODELYARD_FETCH_ALLOW", "10.0.0.0/33"),
        ("MODELYARD_FETCH_ALLOW", "files.local/data"),
        ("MODELYARD_FETCH_ALLOW", "http://files.local"),
        ("MODELYARD_FETCH_ALLOW", "files.local 10.0.0.1"),
        ("MODELYARD_FLOWER_LOGIN", "nobody"),
        ("MODELYARD_FLOWER_LOGIN", "ada:short"),
        ("MODELYARD_FLOWER_LOGIN", "ada:with,a comma"),
    ],
)
def test_wrong_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable):
        Settings.from_env({variable: value})


def test_lease_shorter_than_two_renewals_is_refused() -> None:
    with pytest.raises(BadSetting, match="MODELYARD_RENEW_S"):
        Settings.from_env({"MODELYARD_LEASE_S": "6", "MODELYARD_RENEW_S": "5"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert Settings(home=Path("/srv"), host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.example.org", "10.0.0.1", "yard.example"])
def test_what_others_can_reach_is_no_loopback(host: str) -> None:
    assert not Settings(home=Path("/srv"), host=host).is_loopback


def test_bucket_of_the_platform_is_no_bucket_of_data():
    variables = {"MODELYARD_OBJECTS_URL": "s3://own/prefix", "MODELYARD_DATA_S3_BUCKETS": "data, own"}
    with pytest.raises(BadSetting, match="MODELYARD_DATA_S3_BUCKETS names own"):
        Settings.from_env(variables)
    variables["MODELYARD_DATA_S3_BUCKETS"] = "data,owned"
    assert Settings.from_env(variables).data_s3_buckets == ("data", "owned")


def test_buckets_of_data_lie_where_the_objects_lie_unless_it_is_said_otherwise():
    assert Settings().data_endpoint_url is None
    assert Settings(s3_endpoint_url="https://a").data_endpoint_url == "https://a"
    assert Settings(s3_endpoint_url="https://a", data_s3_endpoint_url="https://b").data_endpoint_url == "https://b"


def test_wrong_secret_is_not_told() -> None:
    with pytest.raises(BadSetting, match="MODELYARD_FLOWER_LOGIN") as refused:
        Settings.from_env({"MODELYARD_FLOWER_LOGIN": "ada:hunter2"})
    assert "hunter2" not in str(refused.value)
