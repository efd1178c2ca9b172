"""Downloads over plain sockets: whole, slow, cut off, and taken to another place; and clients that send slowly."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import urllib3
from click.testing import CliRunner

from cli.main import main
from cli.stack import Stack
from settings import Settings
from storage.objects import connect
from storage.records import NewFile, Records
from tests.integration.fronted import ROW, Line, create, fronted, predict, processes, put_iris, train, until

pytestmark = pytest.mark.servers

LARGE_BYTES = 24 * 2**20
READERS = 4
IDLE_S, BODY_S = 2.0, 5.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_iris(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stack(data: Path) -> Iterator[Stack]:
    """A stack with a trained service, and a data set of two large files."""
    with fronted(data, api_threads=4, client_idle_s=IDLE_S, body_timeout_s=BODY_S) as stack:
        with closing(Line(stack.settings.port)) as line:
            create(line, "iris", data)
            train(line, "iris", data)
            assert line.ask("PUT", "/datasets/large").code == 201
        _fill(stack.settings)
        yield stack


@pytest.fixture(scope="module")
def port(stack: Stack) -> int:
    return stack.settings.port


def content_of(seed: int) -> bytes:
    return random.Random(seed).randbytes(LARGE_BYTES)


def _fill(settings: Settings) -> None:
    """Put the large files in place without sending them."""
    records, objects = Records.connect(settings.database_url), connect(settings.objects_url)
    [dataset] = records.datasets.page(1, limit=10)
    stored = [objects.put_bytes(f"datasets/{dataset.id}/large{seed}", content_of(seed)) for seed in (1, 2)]
    new = [NewFile(f"{place}.bin", each.key, each.size, each.sha256) for place, each in enumerate(stored, 1)]
    records.datasets.commit(dataset.id, records.datasets.stage(dataset.id, new))
    records.close()


def stored_at(settings: Settings, seed: int) -> Path:
    [found] = (settings.home / "objects").glob(f"datasets/*/large{seed}")
    return found


def get(port: int, path: str) -> urllib3.BaseHTTPResponse:
    return urllib3.PoolManager(retries=False).request("GET", f"http://127.0.0.1:{port}{path}", preload_content=False)


@contextlib.contextmanager
def asked(port: int, path: str) -> Iterator[socket.socket]:
    """A connection on which a file was asked for, and nothing is read; its window is small."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        made.settimeout(60)
        made.connect(("127.0.0.1", port))
        made.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        yield made


def read_all(line: socket.socket) -> bytes:
    whole = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := line.recv(1 << 20):
            whole += piece
    return bytes(whole)


def held_bytes(stack: Stack) -> int:
    """Memory of the API that nothing else shares or keeps in files."""
    found = 0
    for process in processes(stack):
        with contextlib.suppress(psutil.Error):
            found += process.memory_info().rss - process.memory_info().shared
    return found


def test_large_file_arrives_as_it_was_stored(port: int):
    answer = get(port, "/datasets/large/files/1.bin")
    digest = hashlib.sha256()
    for piece in answer.stream(1 << 20):
        digest.update(piece)
    assert answer.headers["ETag"].strip('"') == digest.hexdigest() == hashlib.sha256(content_of(1)).hexdigest()


def test_clients_that_read_nothing_cost_little_memory_and_no_thread(stack: Stack, port: int):
    assert len(get(port, "/datasets/large/files/2.bin").data) == LARGE_BYTES  # whatever the first time costs
    before = held_bytes(stack)
    with contextlib.ExitStack() as lines:
        readers = [lines.enter_context(asked(port, "/datasets/large/files/1.bin")) for _ in range(READERS)]
        heads = [each.recv(64, socket.MSG_PEEK) for each in readers]
        assert all(each.startswith(b"HTTP/1.1 200 OK") for each in heads)
        with closing(Line(port)) as line:
            for _ in range(20):  # in the meantime it would take all that it is given
                assert line.ask("GET", "/services/iris").code == 200
                assert line.ask("POST", "/predict", predict()).code == 200
        assert held_bytes(stack) - before < READERS * LARGE_BYTES // 4
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda each=each: found.append(read_all(each))) for each in readers]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    wanted = content_of(1)
    assert [each.partition(b"\r\n\r\n")[2] == wanted for each in found] == [True] * READERS


def test_clients_that_hang_up_leave_nothing_open(stack: Stack, port: int):
    def is_closed() -> bool:
        held = [file.path for process in processes(stack) for file in process.open_files()]
        return not any("/datasets/" in path for path in held)

    for path in ("/datasets/large/files/1.bin", "/datasets/large/archive"):
        with asked(port, path) as line:
            line.recv(100)
    until(is_closed)
    assert len(get(port, "/datasets/large/files/2.bin").data) == LARGE_BYTES


def test_archive_of_unknown_length_that_fails_does_not_end_as_if_it_was_whole(stack: Stack, port: int):
    path = stored_at(stack.settings, 2)
    kept = path.read_bytes()
    with asked(port, "/datasets/large/archive") as line:
        head = line.recv(64, socket.MSG_PEEK)
        assert head.startswith(b"HTTP/1.1 200 OK")
        path.unlink()
        whole = read_all(line)
    path.write_bytes(kept)
    assert b"transfer-encoding: chunked" in whole.partition(b"\r\n\r\n")[0].lower()
    assert not whole.endswith(b"0\r\n\r\n")
    assert len(whole) >= LARGE_BYTES  # the file before it came


def test_damaged_file_never_arrives_whole(stack: Stack, port: int):
    path = stored_at(stack.settings, 2)
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        with asked(port, "/datasets/large/files/2.bin") as line:
            body = read_all(line).partition(b"\r\n\r\n")[2]
    finally:
        path.write_bytes(kept)
    assert len(body) < LARGE_BYTES


# Clients that send slowly


def trickled(port: int, first: bytes, more: bytes) -> bytes:
    """What comes back when a request is sent a byte at a time, until somebody has enough of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as line:
        line.sendall(first)
        answer = bytearray()
        for _ in range(120):
            try:
                piece = line.recv(4096)
            except TimeoutError:
                with contextlib.suppress(ConnectionError):
                    line.sendall(more)
                continue
            except ConnectionError:
                piece = b""
            if not piece:
                return bytes(answer)
            answer += piece
    raise AssertionError(f"it was never ended: {answer!r}")


@pytest.mark.parametrize("size", [100, 100_000, 10_000_000])
@pytest.mark.parametrize("path", ["/predict", "/datasets/large/uploads"])
def test_body_that_stops_is_ended_with_408(port: int, path: str, size: int):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    answer = trickled(port, head + b'{"service"', b"")
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"the body did not come" in answer
    assert b"connection: close" in answer


def test_body_that_drips_is_ended_with_408(port: int):
    head = b"POST /train HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = trickled(port, head + b"1\r\n{\r\n", b"1\r\n \r\n")
    assert answer.startswith(b"HTTP/1.1 408 "), answer


def test_headers_that_drip_end_the_connection(port: int):
    answer = trickled(port, b"GET /healthz HTTP/1.1\r\nHost: local", b"h")
    assert not answer or answer.startswith(b"HTTP/1.1 408")


def test_slow_clients_hold_no_thread(port: int):
    head = b"POST /train HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    with contextlib.ExitStack() as lines:
        for _ in range(20):  # of 4 threads
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            line.sendall(head)
        with closing(Line(port)) as other:
            assert other.ask("GET", "/services/iris").code == 200


# Elsewhere


def command(port: int, *words: str) -> str:
    result = CliRunner().invoke(main, [*words, "--url", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 0, result.output
    return result.output


def test_commands_save_files_and_archives(port: int, tmp_path: Path):
    told = get(port, "/services/iris/files").json()["body"]["files"]
    folder = tmp_path / "model"
    assert f"{len(told)} files" in command(port, "services", "download", "iris", "--to", str(folder))
    for each in told:
        assert hashlib.sha256((folder / each["path"]).read_bytes()).hexdigest() == each["sha256"]
    (folder / told[0]["path"]).write_bytes(b"changed")
    again = command(port, "services", "download", "iris", "--to", str(folder))
    assert f"1 file is saved in {folder}, {told[0]['bytes']} bytes" in again
    assert f"{len(told) - 1} were there already" in again
    command(port, "services", "download", "iris", "--version", "1", "--to", str(tmp_path / "iris.zip"))
    with zipfile.ZipFile(tmp_path / "iris.zip") as packed:
        assert sorted(packed.namelist()) == [each["path"] for each in told]
    command(port, "tasks", "download", "1", "--to", str(tmp_path / "task"))
    assert json.loads((tmp_path / "task" / "report.json").read_text())["measure"]
    command(port, "datasets", "download", "large", "--to", str(tmp_path / "large"))
    assert (tmp_path / "large" / "2.bin").read_bytes() == content_of(2)


def test_downloaded_model_is_a_repository_elsewhere(port: int, data: Path):
    archive = get(port, "/services/iris/archive").data
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(data / "elsewhere", filter="data")
    with closing(Line(port)) as line:
        create(line, "elsewhere", data)
        rows = [ROW, "6.2,3.4,5.4,2.3", "5.9,3.0,4.2,1.5"]
        asked_for = {"data": rows, "parameters": {"output": {"best": 3}}}
        here = line.ask("POST", "/predict", predict(**asked_for))
        there = line.ask("POST", "/predict", json.dumps({"service": "elsewhere", **asked_for}).encode())
    assert there.code == 200, there.content
    assert there.json["body"] == here.json["body"]
