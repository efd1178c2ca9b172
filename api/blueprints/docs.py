"""/openapi.json: the API as a document. /docs: the same as a page that can be browsed and tried out."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Flask, Response, current_app, send_file

from api.answers import dump, written
from api.blueprints import health
from api.blueprints.info import version
from api.parts import parts
from api.refusals import RouteNotFound

blueprint = Blueprint("docs", __name__)

OPEN = frozenset({"docs.document", "docs.page", "docs.asset"})
"""Endpoints that need no key: they show what every server can do, and a browser has no key to begin with."""

_OURS = Path(__file__).parents[1] / "pages"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/openapi.json")
def document() -> Response:
    """The OpenAPI document of this server."""
    # The app itself, not the stand-in for it, which would be the same for all of them.
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return written(_written(app, parts().access.needs_key()))


@blueprint.get("/docs")
def page() -> Response:
    """The page; all that it needs comes from this server."""
    response = send_file(_OURS / "docs.html", "text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


@blueprint.get("/docs/<file>")
def asset(file: str) -> Response:
    """A file of the page: one of a list, whatever its name says."""
    found = _assets().get(file)
    if found is None:
        raise RouteNotFound("there is no such file of the documentation")
    response = send_file(*found)
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


@lru_cache(maxsize=2)
def _written(app: Flask, needs_key: bool) -> bytes:
    # What makes it is loaded when somebody asks: most processes are never asked.
    from api.openapi.document import document as made

    return dump(made(app, version(), health.OPEN | OPEN, needs_key=needs_key))


@lru_cache(maxsize=1)
def _assets() -> dict[str, tuple[Path, str]]:
    """Path and content type of each file by its name."""
    swagger = Path(str(files("flask_swagger_ui") / "dist"))
    return {
        "docs.js": (_OURS / "docs.js", "text/javascript"),
        "docs.css": (_OURS / "docs.css", "text/css"),
        "swagger-ui-bundle.js": (swagger / "swagger-ui-bundle.js", "text/javascript"),
        "swagger-ui.css": (swagger / "swagger-ui.css", "text/css"),
        "favicon-32x32.png": (swagger / "favicon-32x32.png", "image/png"),
    }
