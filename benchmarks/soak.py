"""Predictions without a break while one training follows another: does anything grow?

wrk asks one model all the time. Beside it, a second service is trained again and again, and each new version is asked
once, so that models are loaded and given up all the while. Memory, open handles and threads of every service are
sampled, and the keys and memory of Redis. Two things are left out: the processes that train, which end with their
training, and the keys with the progress of trainings, which stay for an hour and so are as many as there were.

The first fifth of the samples is left out: pools, caches and allocators fill up then. A series is flat when the line
through the others (Theil-Sen: the median of the slopes between any two) rises by no more than 3 % of where it begins,
or by what is said at ALLOWED where that is more. In runs of less than five minutes pools may still fill.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import redis
from scipy.stats import theilslopes

from benchmarks import wrk
from benchmarks.training import write_data
from benchmarks.yard import Client, median, running_stack
from cli.stack import Stack
from settings import Settings
from workers.memory import anonymous_bytes

MINUTES, SAMPLES, CONNECTIONS, CHUNK_S = 10.0, 120, 4, 10.0
ITERATIONS = 150
CLIENTS = 32
WARM_UP, SHARE = 0.2, 0.03
#: What may be added to each kind of series whatever its size.
ALLOWED = {"memory": 2.0, "handles": 4.0, "threads": 2.0, "keys": 8.0}
_UNITS = {"memory": " MiB", "handles": "", "threads": "", "keys": ""}
# Reached by a few models, so that some are given up from then on.
_MODELS_BYTES = 8 * 2**20
_TRAINING, _PROGRESS = "ml.training.run", b"progress:"
Json = dict[str, Any]


@dataclass(frozen=True)
class Trend:
    """What became of a series once it was warm.

    first, last : medians of its first and last tenth. rise : of the line through it, from its begin to its end.
    per_hour : the slope of that line.
    """

    first: float
    last: float
    rise: float
    per_hour: float

    def is_flat(self, allowed: float) -> bool:
        """Whether it rises by no more than `allowed` or SHARE of where it began; falling is no growth."""
        return self.rise <= max(allowed, SHARE * self.first)


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """The trend of a series without its warm-up. Raises ValueError when fewer than two samples are left."""
    start = int(len(values) * WARM_UP)
    times, kept = list(times_s[start:]), list(values[start:])
    if len(kept) < 2:
        raise ValueError("too few samples for a trend; let it run for longer")
    slope = float(theilslopes(kept, times)[0])
    tenth = max(1, len(kept) // 10)
    return Trend(median(kept[:tenth]), median(kept[-tenth:]), slope * (times[-1] - times[0]), slope * 3600)


def main(minutes: float = MINUTES) -> None:
    """Print each series, first and last value and slope, and whether it is flat.

    minutes : how long it lasts.
    """
    if missing := wrk.missing():
        raise SystemExit(missing)
    with running_stack(api_workers=1, threads=1, models_limit_bytes=_MODELS_BYTES) as (stack, settings, client):
        soak = _Soak(stack, settings, client)
        soak.prepare()
        soak.run(minutes * 60)
        print("\n".join(soak.told()))


class _Soak:
    def __init__(self, stack: Stack, settings: Settings, client: Client) -> None:
        self._stack, self._settings, self._client = stack, settings, client
        self._data = settings.data_roots[0] / "soak.csv"
        self._redis = redis.Redis.from_url(settings.live_url)
        self._stop = threading.Event()
        self._asked: Json = {}
        self._loads: list[wrk.Load] = []
        self._trainings = 0
        self._times: list[float] = []
        #: By kind and by what it is of.
        self._series: dict[tuple[str, str], list[float]] = {}

    def prepare(self) -> None:
        """Train the model that is asked all the time."""
        write_data(self._data)
        lines = self._data.read_text(encoding="utf-8").splitlines()[:5001]
        self._data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name in ("asked", "trained"):
            self._client.create(name, "target", {"nclasses": 2})
        self._client.wait(self._train("asked"))
        row = lines[1].rpartition(",")[0]
        self._asked = {"parameters": {"input": {}, "mllib": {}, "output": {}}, "data": [row]}
        self._predict("asked")
        # The API takes a thread, with connections of its own, when more come at once than ever before; on a machine
        # that others use as well, that may be at any time.
        nobody = json.dumps({"service": "nobody", **self._asked}).encode()
        wrk.post(
            f"http://127.0.0.1:{self._settings.port}/predict",
            nobody,
            self._client.headers,
            connections=CLIENTS,
            seconds=2.0,
        )

    def run(self, seconds: float) -> None:
        """Let it run, and sample it."""
        began = time.monotonic()
        step_s = max(0.5, seconds / SAMPLES)
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(self._load, seconds)
            try:
                task = self._train("trained")
                while (passed := time.monotonic() - began) < seconds and not loading.done():
                    if self._has_ended(task):
                        self._predict("trained")
                        self._trainings += 1
                        task = self._train("trained")
                    if passed >= len(self._times) * step_s:
                        self._sample(passed)
                    time.sleep(min(step_s, 0.25))
            finally:
                self._stop.set()
            loading.result()
        self._client.call("DELETE", f"/tasks/{task}")

    def told(self) -> list[str]:
        """A line for the load, one for each series, and the verdict."""
        errors = sum(load.errors for load in self._loads)
        lines = [
            f"{self._times[-1] / 60:.1f} minutes, {len(self._times)} samples, the first fifth left out; "
            f"{median([load.rate for load in self._loads]):.0f} predictions/s, p99 at worst "
            f"{max(load.p99_ms for load in self._loads):.1f} ms, {errors} errors; {self._trainings} trainings beside"
        ]
        growing = [] if errors == 0 else [f"{errors} predictions failed"]
        for (kind, name), values in sorted(self._series.items()):
            found = trend(self._times, values)
            is_flat = found.is_flat(ALLOWED[kind])
            unit = _UNITS[kind]
            lines.append(
                f"{kind} of {name}: {found.first:.1f}{unit} to {found.last:.1f}{unit}, "
                f"{found.per_hour:+.2f}{unit} per hour: {'flat' if is_flat else 'GROWS'}"
            )
            if not is_flat:
                growing.append(f"{kind} of {name}")
        return [*lines, f"NOT FLAT: {', '.join(growing)}" if growing else "all flat"]

    # What is done all the while

    def _load(self, seconds: float) -> None:
        """Ask until the time is over or somebody says stop, in pieces."""
        url = f"http://127.0.0.1:{self._settings.port}/predict"
        body = json.dumps({"service": "asked", **self._asked}).encode()
        until = time.monotonic() + seconds
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0.5:
            seconds_ = max(1.0, min(CHUNK_S, left // 1))
            self._loads.append(wrk.post(url, body, self._client.headers, connections=CONNECTIONS, seconds=seconds_))

    def _train(self, name: str) -> int:
        return self._client.train(name, self._data, {"nclasses": 2, "iterations": ITERATIONS})

    def _has_ended(self, task: int) -> bool:
        found = self._client.call("GET", f"/tasks/{task}")
        if found["state"] in ("failed", "cancelled"):
            raise SystemExit(f"the training beside it ended otherwise: {found}")
        return bool(found["state"] == "finished")

    def _predict(self, name: str) -> None:
        self._client.call("POST", "/predict", {"service": name, **self._asked})

    # Samples

    def _sample(self, passed_s: float) -> None:
        found: dict[tuple[str, str], float] = {}
        for service in self._stack.services:
            pid = self._stack.pid_of(service.name)
            if pid is not None and service.name != "redis":
                memory, handles, threads = _held(pid)
                found["memory", service.name] = memory / 2**20
                found["handles", service.name] = handles
                found["threads", service.name] = threads
        info: Json = self._redis.info("memory")
        found["memory", "redis"] = info["used_memory"] / 2**20
        found["keys", "redis"] = sum(not key.startswith(_PROGRESS) for key in self._redis.scan_iter(count=1000))
        if self._series and found.keys() != self._series.keys():
            lost = {name for _, name in self._series.keys() - found.keys()}
            raise SystemExit(f"these do not run any more: {', '.join(sorted(lost))}")
        for key, value in found.items():
            self._series.setdefault(key, []).append(value)
        self._times.append(passed_s)


def _held(pid: int) -> tuple[int, int, int]:
    """Anonymous memory in bytes, open handles and threads of a service and its processes, but for trainings."""
    memory = handles = threads = 0
    service = psutil.Process(pid)
    for process in [service, *service.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it ended just now
            if _TRAINING in " ".join(process.cmdline()):
                continue
            memory += anonymous_bytes(process.pid) or 0
            handles += process.num_fds()
            threads += process.num_threads()
    return memory, handles, threads


if __name__ == "__main__":
    main()
