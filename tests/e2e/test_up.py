"""`modelyard up` as a user meets it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services import free_port

pytestmark = pytest.mark.servers

UP = [sys.executable, "-m", "cli.main", "up"]
Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MODELYARD_HOME": str(tmp_path / "home"),
        "MODELYARD_PORT": str(free_port()),
        "MODELYARD_FLOWER_PORT": str(free_port()),
        "MODELYARD_THREADS": "1",
    }


@contextmanager
def running(environment: Environment, *words: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], bool]]]:
    """The stack, and a function that waits until its output holds some words."""
    with subprocess.Popen(
        [*UP, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        said: list[str] = []
        news = threading.Condition()

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                with news:
                    said.append(line)
                    news.notify_all()

        def says(words: str) -> bool:
            with news:
                return news.wait_for(lambda: any(words in line for line in said), 90)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield process, says
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(90)
            listener.join()
            assert carrying(environment["MODELYARD_HOME"]) == [], said


def carrying(home: str) -> list[int]:
    """Processes that were told of this home."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if home.encode() in file.read_bytes():
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.timeout(240)
def test_up_tells_when_it_is_ready_refuses_a_second_one_and_ctrl_c_ends_it(environment: Environment):
    with running(environment) as (process, says):
        assert says("ready")
        url = f"http://127.0.0.1:{environment['MODELYARD_PORT']}"
        assert says(url)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/healthz", timeout=10) as answer:
            assert answer.status == 200
        flower = f"http://127.0.0.1:{environment['MODELYARD_FLOWER_PORT']}/workers"
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(flower, timeout=10)
        refused.value.close()
        assert refused.value.code == 401
        # The ready table says where the login is.
        login = Path(environment["MODELYARD_HOME"], "flower-login")
        assert says(str(login))
        known = {"Authorization": "Basic " + base64.b64encode(login.read_bytes().strip()).decode()}
        with opener.open(urllib.request.Request(flower, headers=known), timeout=10) as answer:
            assert answer.status == 200
        second = subprocess.run(UP, env=environment, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert "already runs" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0
        assert says("nothing is left running")


@pytest.mark.timeout(240)
def test_up_is_not_opened_to_others_without_a_key(environment: Environment):
    ended = subprocess.run(
        UP, env={**environment, "MODELYARD_HOST": "0.0.0.0"}, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "modelyard keys create --account NAME" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert carrying(environment["MODELYARD_HOME"]) == []


@pytest.mark.timeout(240)
def test_up_says_which_database_it_cannot_reach(environment: Environment):
    nowhere = f"postgresql+psycopg://127.0.0.1:{free_port()}/nothing"
    ended = subprocess.run(
        UP, env={**environment, "MODELYARD_DATABASE_URL": nowhere}, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "prepare failed" in ended.stderr
    assert "Traceback" not in ended.stderr


SERVICE = {
    "mllib": "xgboost",
    "model": {"repository": "iris"},
    "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}},
}


@pytest.mark.timeout(240)
def test_up_begins_with_the_services_of_a_list_and_ends_when_a_line_fails(environment: Environment, tmp_path: Path):
    path = tmp_path / "services.list"
    path.write_text(f"service_create;iris;{json.dumps(SERVICE)}\nservice_predict;{{}}\nservice_create;more;{{}}\n")
    with running({**environment, "MODELYARD_SERVICE_START_LIST": str(path)}) as (process, says):
        assert says("service_create iris: created")
        assert says("service_predict (line 2) failed: 400: service is missing")
        assert process.wait(90) == 1
        assert says(f"{path} could not be done, so the server stops")
    with running(environment, "--service-start-list", str(path), "--service-start-list-no-exit-on-failure") as (
        process,
        says,
    ):
        assert says("service_create iris: exists already")
        assert says("service_create more (line 3) failed: 400")
        url = f"http://127.0.0.1:{environment['MODELYARD_PORT']}/services/iris"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
