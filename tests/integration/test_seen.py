"""`modelyard seen`, the health check of a worker, on a real Redis."""

from __future__ import annotations

import socket
from pathlib import Path

from click.testing import CliRunner

from cli.main import main
from storage.live import Heartbeat, Live


def test_worker_of_this_machine_is_seen_while_it_beats_and_others_are_not(redis_url: str):
    live = Live(redis_url)
    live.heartbeats.beat(Heartbeat(f"train1@{socket.gethostname()}", ("train.cpu",)))
    live.heartbeats.beat(Heartbeat("train2@elsewhere", ("train.cpu",)))
    run = CliRunner(env={"MODELYARD_REDIS_URL": redis_url})
    assert run.invoke(main, ["seen", "train1"]).exit_code == 0
    absent = run.invoke(main, ["seen", "train2"])
    assert absent.exit_code == 1
    assert "train2@elsewhere" in absent.output
    live.heartbeats.end(f"train1@{socket.gethostname()}")
    assert run.invoke(main, ["seen", "train1"]).exit_code == 1
    live.close()


def test_redis_that_does_not_answer_is_no_sign_of_life(tmp_path: Path):
    run = CliRunner(env={"MODELYARD_REDIS_URL": f"unix://{tmp_path / 'nothing.sock'}"})
    result = run.invoke(main, ["seen", "train1"])
    assert result.exit_code == 1
    assert "Redis" in result.output
