"""GET /info: what this server is, and its services."""

from __future__ import annotations

from functools import cache
from importlib import metadata

from flask import Blueprint, Response, request

from api import services
from api.answers import envelope
from api.parts import account, parts
from api.query import flag
from api.roles import needs
from storage.records import Role

blueprint = Blueprint("info", __name__)


@cache
def version() -> str:
    """Version of the server, as it was installed."""
    try:
        return metadata.version("modelyard")
    except metadata.PackageNotFoundError:  # run from a folder that nobody installed
        return "unknown"


@blueprint.get("/info")
@needs(Role.READ)
def info() -> Response:
    """Version and services; with `status=true` their jobs as well."""
    with_jobs = flag(request.args, "status", default=False)
    found = parts().records.services.all_of(account().id)
    head = {
        "method": "/info",
        "build-type": "release",
        "version": version(),
        "branch": "main",
        "commit": "unknown",
        "compile_flags": "",
        "deps_version": "",
        "services": services.describe(parts(), found, with_jobs=with_jobs),
    }
    return envelope(head=head)
