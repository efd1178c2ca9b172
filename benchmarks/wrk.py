"""wrk, the load generator of Debian's package of that name: how it is called and what it prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3.6e6}


class Unreadable(ValueError):
    """wrk printed something else than its figures."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk found.

    rate : answers per second. p50_ms, p99_ms : latency in ms.
    errors : answers of status 400 and above, and connections that were refused, broken or waited for too long.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


def missing() -> str | None:
    """What to install when wrk is not there, else None."""
    return None if shutil.which("wrk") else "wrk is not installed; on Debian and Ubuntu: apt-get install wrk"


def parse(printed: str) -> Load:
    """The figures among the lines that `wrk --latency` prints.

    Raises Unreadable when rate or latencies are not among them.
    """
    rate = re.search(r"^Requests/sec:\s+([\d.]+)\s*$", printed, re.MULTILINE)
    shares = dict(re.findall(r"^\s+(50|99)%\s+(\S+)\s*$", printed, re.MULTILINE))
    if rate is None or shares.keys() != {"50", "99"}:
        raise Unreadable(f"wrk gave no figures: {printed.strip()[-500:]!r}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    broken = re.search(r"Socket errors: (.*)$", printed, re.MULTILINE)
    errors = int(refused[1]) if refused else 0
    if broken:
        errors += sum(map(int, re.findall(r"\d+", broken[1])))
    return Load(float(rate[1]), _ms(shares["50"]), _ms(shares["99"]), errors)


def _ms(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)([a-z]+)", text)
    if found is None or found[2] not in _UNITS_MS:
        raise Unreadable(f"wrk gave a latency that is none: {text!r}")
    return float(found[1]) * _UNITS_MS[found[2]]


def post(url: str, body: bytes, headers: Mapping[str, str], *, connections: int, seconds: float) -> Load:
    """Post `body` again and again over some connections from one thread.

    seconds : of the run, rounded up to whole ones, as wrk takes no others.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_script(body, headers))
        script.flush()
        whole = max(1, -int(-seconds // 1))
        command: Sequence[str | Path] = [
            "wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s", "--latency", "-s", script.name, url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 60)
    return parse(done.stdout + done.stderr)


def _script(body: bytes, headers: Mapping[str, str]) -> str:
    given = "".join(f"wrk.headers[{_quoted(name)}] = {_quoted(value)}\n" for name, value in headers.items())
    return f'wrk.method = "POST"\nwrk.body = {_quoted(body.decode("ascii"))}\n{given}'


def _quoted(text: str) -> str:
    # The escapes of JSON are also Lua's as long as all is ASCII without control characters.
    if not text.isascii() or not text.isprintable():
        raise ValueError("only printable ASCII goes into a script of wrk")
    return json.dumps(text)
