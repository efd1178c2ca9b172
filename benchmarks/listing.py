"""Listing and polling with 100,000 task rows in the records, on SQLite."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import insert

from benchmarks.yard import Client, idle_trainer, median, running_stack
from storage.records import Records
from storage.records.schema import tasks

ROWS, REPEATS = 100_000, 15


def _ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def fill(records: Records, rows: int) -> None:
    """Ended tasks of the local account, and every hundredth one queued on a queue that nobody serves."""
    account = records.accounts.ensure("local")
    with records.database.write() as connection:
        for start in range(0, rows, 5000):
            connection.execute(
                insert(tasks),
                [
                    {
                        "account_id": account.id,
                        "kind": "train",
                        "queue": "train.gpu",
                        "state": "queued" if number % 100 == 0 else "finished",
                        "spec": {"data": ["a.csv"]},
                        "warnings": [],
                        "finished_at": None if number % 100 == 0 else 1.0,
                        "sent_at": time.time() + 3600,
                        "cleaned_at": 1.0,
                    }
                    for number in range(start, start + 5000)
                ],
            )


def main() -> None:
    """Print milliseconds per call, few rows against many."""
    with running_stack() as (stack, settings, client), idle_trainer(stack):
        records = Records.connect(settings.database_url)
        few: dict[str, float] = {}
        for rows in (1_000, ROWS):
            fill(records, rows - (1_000 if few else 0))
            last = records.tasks.page(records.accounts.ensure("local").id, limit=1)[0].id
            cursor = client.call("GET", "/tasks?limit=50")["next_cursor"]
            paths = {
                "first page of 50": "/tasks?limit=50",
                "a page by its cursor": f"/tasks?limit=50&cursor={cursor}",
                "queued ones": "/tasks?limit=50&state=queued",
                "one task": f"/tasks/{last}",
                "1,000 tasks": "/tasks?ids=" + ",".join(str(last - back) for back in range(1000)),
            }
            for name, path in paths.items():
                took = _time(client, path)
                if rows == ROWS:
                    before, times = few[name], took / few[name]
                    print(f"{name}: {took:.1f} ms with {ROWS:,} rows, {before:.1f} ms with 1,000: {times:.2f}")
                else:
                    few[name] = took
        records.close()


def _time(client: Client, path: str) -> float:
    return _ms(lambda: client.call("GET", path))


if __name__ == "__main__":
    main()
