"""The table that `modelyard up` prints when everything answers."""

from __future__ import annotations

import os

from cli.environment import local_url
from settings import Settings


def ready_table(settings: Settings) -> str:
    """Where everything is, one thing a line."""
    rows = {
        "API": f"{local_url(settings)}  (/docs, /info, /readyz)",
        "Flower": _flower(settings) if settings.flower_port else "left out",
        "data roots": os.pathsep.join(str(root) for root in settings.data_roots),
        "artifacts": settings.objects_url,
        "records": without_password(settings.database_url),
        "Redis": without_password(settings.live_url),
        "logs": str(settings.home / "logs"),
    }
    width = max(len(name) for name in rows)
    lines = [f"  {name.ljust(width)}  {value}" for name, value in rows.items()]
    return "\n".join(["", "ready", *lines, "  Ctrl-C stops everything", ""])


def _flower(settings: Settings) -> str:
    where = "MODELYARD_FLOWER_LOGIN" if settings.flower_login else str(settings.flower_login_file)
    return f"http://127.0.0.1:{settings.flower_port}  (login in {where})"


def without_password(url: str) -> str:
    """An address fit to be shown."""
    scheme, mark, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}:…@{host}" if at and ":" in user else url
