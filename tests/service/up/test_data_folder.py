"""`cutaway up` keeps what was accepted, with real processes that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

import service.up.data_folder as data_folder
from service.up.data_folder import DataFolderError
from tests.service.up.test_supervisor import SECONDS, Up, environment, eventually, failure, free_port

PROMPT = "CABBACABBA"
SHORT = {"model": "nano-gpt", "text": PROMPT}
LONG = {
    "model": {"n_layer": 24, "n_head": 2, "n_embd": 128, "n_positions": 512, "vocab_size": 500},
    "tokens": [1, 2, 3],
    "generate": {"max_new_tokens": 100},
    "capture": ["probs"],
}
JSON = {"Content-Type": "application/json"}
Body = dict[str, Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: pytest's folders are too long for a socket path."""
    with tempfile.TemporaryDirectory(prefix="ct-") as name:
        (Path(name) / "tmp").mkdir()
        yield Path(name)


@contextmanager
def running(folder: Path, port: int, *options: str) -> Iterator[Up]:
    """Run `cutaway up`; at the end, kill it and everything that it started at once, unless it has stopped."""
    command = [sys.executable, "-m", "service", "up", f"--port={port}", *options]
    with (folder / "printed").open("wb") as printed:
        process = subprocess.Popen(command, env=environment(folder), stdout=printed, stderr=printed)
    up = Up(process, port, folder)
    try:
        up.wait_for("ready at")
        yield up
    finally:
        with suppress(psutil.NoSuchProcess):
            everything = [psutil.Process(process.pid), *up.processes()]
            for one in everything:
                one.suspend()  # so that none reacts to the death of another
            for one in everything:
                one.kill()
        process.wait()


def call(up: Up, path: str, body: Body | None = None) -> Body:
    """Send a request, which must succeed; return the response."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"http://127.0.0.1:{up.port}{path}", data, JSON), timeout=SECONDS) as response:
        answer: Body = json.load(response)
    return answer


def status(up: Up, id: str) -> str:
    return str(call(up, f"/v1/traces/{id}")["status"])


def test_what_was_accepted_is_finished_after_everything_was_killed(folder: Path) -> None:
    port = free_port()
    with running(folder, port) as up:
        assert f"data in {folder / 'data'} (cutaway up --fresh forgets" in up.printed()
        finished = call(up, "/v1/traces", SHORT)["id"]
        eventually(lambda: status(up, finished) == "done", up.printed)
        before = call(up, f"/v1/traces/{finished}")
        ids = [call(up, "/v1/traces", LONG | {"tokens": [n]})["id"] for n in range(3)]
        batch = call(up, "/v1/batches", {"requests": [SHORT | {"text": PROMPT[n:]} for n in range(1, 6)]})["id"]
        eventually(lambda: status(up, ids[0]) == "running", up.printed)
    with running(folder, port) as up:
        assert call(up, f"/v1/traces/{finished}") == before  # not computed again
        eventually(lambda: {status(up, id) for id in ids} == {"done"}, up.printed)
        eventually(lambda: call(up, f"/v1/batches/{batch}")["done"] == 5, up.printed)
        up.process.send_signal(signal.SIGTERM)
        assert up.wait() == 0
    assert [
        path for path in (folder / "tmp").rglob("*") if path.is_file() and PROMPT.encode() in path.read_bytes()
    ] == []
    assert (folder / "data").stat().st_mode & 0o777 == 0o700
    with running(folder, port, "--fresh") as up:
        for id in (finished, *ids):
            with pytest.raises(HTTPError, match="404"):
                call(up, f"/v1/traces/{id}")
        assert call(up, "/v1/batches")["batches"] == []


def test_a_kill_leaves_no_folder_with_data_in_the_temporary_directory(folder: Path) -> None:
    with running(folder, free_port()) as up:
        call(up, "/v1/traces", SHORT)
    left = [path.name for path in (folder / "tmp").iterdir()]
    assert not [name for name in left if not name.startswith("cutaway-metrics-")]


def test_two_cannot_share_a_folder(folder: Path) -> None:
    with data_folder.opened(folder / "data", fresh=False):
        line = failure(folder, f"--port={free_port()}")
    assert line == (
        f"Error: {folder / 'data'} is in use by another cutaway up (choose another with --data-dir or DATA_DIR)"
    )


def test_a_folder_that_cannot_be_created_is_reported(folder: Path) -> None:
    (folder / "data").write_bytes(b"")
    with pytest.raises(DataFolderError, match=r"cannot be used for data: File exists \(choose another"):
        data_folder.opened(folder / "data", fresh=False).__enter__()


def test_the_default_is_a_folder_of_the_user_for_each_port(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(folder))
    assert data_folder.default(8000) == folder / ".local" / "share" / "cutaway" / "8000"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "xdg"))
    assert data_folder.default(9000) == folder / "xdg" / "cutaway" / "9000"


def test_fresh_removes_only_the_data_of_the_servers(folder: Path) -> None:
    for name in ("queue/queue.aof", "cache/cache.aof", "mine/letter"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"x")
    with data_folder.opened(folder, fresh=False):
        assert (folder / "queue").exists()
    with data_folder.opened(folder, fresh=True):
        assert not (folder / "queue").exists()
        assert not (folder / "cache").exists()
        assert (folder / "mine" / "letter").exists()
