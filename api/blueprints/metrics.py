"""/metrics: figures for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response

from api.figures import CONTENT_TYPE
from api.parts import parts
from api.roles import needs
from storage.records import Role

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
@needs(Role.READ)
def metrics() -> Response:
    """The figures of all processes of this installation, this one included."""
    return Response(parts().figures.of_all(), content_type=CONTENT_TYPE)
