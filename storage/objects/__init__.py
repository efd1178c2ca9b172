"""The object store: artifacts under keys that are written once."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from storage.errors import StoreUnavailable
from storage.objects.base import Content, Listed, Objects, Stored
from storage.objects.folder import FolderObjects

__all__ = ["Content", "Listed", "Objects", "Stored", "connect"]


def connect(
    url: str,
    endpoint_url: str | None = None,
    *,
    region: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
) -> Objects:
    """The object store at `url`: `file:///absolute/folder`, which is created, or `s3://bucket/prefix`.

    endpoint_url : address of an S3-compatible server; None for AWS.
    region, access_key_id, secret_access_key : None to have boto3 find them (AWS_* variables, files, roles).
    Raises ValueError when an address cannot be understood; StoreUnavailable when the folder cannot be created
    or boto3 is not installed. An S3 server is not asked anything yet: `check` does.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        # Taken as it stands: the address is made from a path, in which a percent sign means itself.
        folder = Path(rest)
        if not folder.is_absolute() or "\0" in rest:
            raise ValueError(f"object store {url!r}: file:// needs an absolute folder, as in file:///srv/objects")
        return FolderObjects(folder)
    if scheme != "s3":
        raise ValueError(f"object store {url!r} is unknown; use file:///absolute/folder or s3://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ValueError(f"object store {url!r} names no bucket; use s3://bucket/prefix")
    if endpoint_url is not None:
        address = urlsplit(endpoint_url)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise ValueError(f"S3 endpoint {endpoint_url!r} must be an address such as https://s3.example.org")
    try:
        from storage.objects.s3 import S3Objects, S3Options
    except ImportError as error:
        if error.name not in {"boto3", "botocore"}:
            raise
        raise StoreUnavailable("s3:// needs boto3; install modelyard[s3]") from error
    options = S3Options(
        endpoint_url=endpoint_url,
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
    )
    return S3Objects(bucket, prefix.strip("/"), options)
