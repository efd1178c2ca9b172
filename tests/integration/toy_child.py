"""A training process that learns nothing: it speaks the protocol of `ml.training.run` and misbehaves as it is told.

The `mllib` parameters of the specification are its script: `iterations`, `pause_s` between them, `checkpoint_every`,
`deaf` (ignores commands), `deaf_to_term`, `die_at` with `signal`, `exit_at`, `fail_at`, `slow_read_s`, `slow_save_s`,
`hold_at` (waits there for the file `gate`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

signal.signal(signal.SIGTERM, signal.SIG_DFL)
commands: list[str] = []


def tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def listen() -> None:
    for line in sys.stdin:
        commands.append(json.loads(line)["command"])
    os._exit(1)


def wait_for(gate: Path) -> None:
    until = time.monotonic() + 60  # a test that failed opens no gate
    while not gate.exists() and time.monotonic() < until:
        time.sleep(0.02)


def save(folder: Path, iteration: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"iteration": iteration}))
    return str(folder)


def main() -> None:
    tell(event="ready")
    spec = json.loads(sys.stdin.readline())
    script = spec["parameters"]["mllib"]
    scratch = Path(spec["scratch"])
    threading.Thread(target=listen, daemon=True).start()
    if script.get("deaf_to_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(event="phase", phase="reading")
    if script.get("fail_at") == "reading":
        tell(event="error", kind="bad_input", message="cannot find label column x", section="input", phase="reading")
        sys.exit(3)
    time.sleep(script.get("slow_read_s", 0.0))
    if commands[:1] == ["cancel"] and not script.get("deaf"):
        tell(event="cancelled", iteration=-1, model_folder=None, description=None, report=None)
        return
    first = 0
    if spec["resume"] is not None:
        first = json.loads((Path(spec["resume"]) / "state.json").read_text())["iteration"] + 1
        tell(event="history", hist={"iteration_hist": list(range(first)), "acc_hist": [0.5] * first})
    tell(event="phase", phase="training")
    print(f"log line of {spec['task']}", file=sys.stderr, flush=True)
    total = script["iterations"]
    ending = "finished"
    iteration = first - 1
    for iteration in range(first, total):
        if iteration == script.get("die_at") and (spec["resume"] is None or script.get("die_again")):
            os.kill(os.getpid(), getattr(signal, script.get("signal", "SIGKILL")))
            time.sleep(60)
        if iteration == script.get("exit_at"):
            os._exit(7)
        if iteration == script.get("hold_at"):
            wait_for(Path(script["gate"]))
        time.sleep(script.get("pause_s", 0.0))
        tell(event="measures", iteration=iteration, hist={"iteration": iteration, "acc": 0.5})
        tell(
            event="progress",
            iteration=iteration,
            done=iteration + 1,
            iterations=total,
            measure={"iteration": iteration, "remain_time": 1.0},
        )
        if script.get("checkpoint_every") and (iteration + 1) % script["checkpoint_every"] == 0:
            tell(
                event="checkpoint",
                iteration=iteration,
                folder=save(scratch / "checkpoints" / str(iteration), iteration),
            )
        if commands and not script.get("deaf"):
            if commands[0] == "pause":
                tell(event="paused", iteration=iteration, folder=save(scratch / "checkpoints" / "pause", iteration))
                return
            ending = "cancelled"
            break
    tell(event="phase", phase="saving")
    time.sleep(script.get("slow_save_s", 0.0))
    model = scratch / "model"
    model.mkdir()
    (model / "0001.model").write_text(f"{spec['task'].rpartition('-')[0]} {iteration}")
    tell(
        event=ending,
        iteration=iteration,
        model_folder=str(model),
        description={"backend": "xgboost", "mltype": "classification"},
        report={
            "measure": {"iteration": iteration},
            "measures": [],
            "measure_hist": {},
            "parameters": {},
            "mltype": "x",
        },
        peak_bytes=1,
    )


main()
