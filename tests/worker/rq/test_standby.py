"""The standby process, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from worker.rq.standby import StandbyProcess

SECONDS = 20
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # because of pytest-xdist


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    """Receiver and sender of a pipe from a standby process to the test."""
    ends = Pipe(duplex=False)
    yield ends
    for end in ends:
        end.close()


def standby(sender: Connection) -> StandbyProcess:
    def run(job: Any) -> None:
        sender.send((os.getpid(), job))
        os._exit(0)

    return StandbyProcess(lambda: sender.send("prepared"), run)


def exit_code(process: StandbyProcess) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])


def test_process_is_prepared_and_then_runs_its_job(pipe: tuple[Connection, Connection]) -> None:
    receiver, sender = pipe
    waiting = standby(sender)
    assert receiver.poll(SECONDS)
    assert receiver.recv() == "prepared"
    assert waiting.send(["any", 1])
    assert receiver.recv() == (waiting.pid, ["any", 1])
    assert exit_code(waiting) == 0


def test_job_that_comes_at_once_does_not_wait_for_the_preparation(pipe: tuple[Connection, Connection]) -> None:
    receiver, sender = pipe
    waiting = standby(sender)
    assert waiting.send("now")
    assert receiver.recv() == (waiting.pid, "now")
    assert exit_code(waiting) == 0


def test_process_has_its_own_group_and_can_be_killed_with_its_children(
    pipe: tuple[Connection, Connection],
) -> None:
    receiver, sender = pipe
    waiting = standby(sender)
    receiver.recv()
    assert os.getpgid(waiting.pid) == waiting.pid
    os.killpg(waiting.pid, signal.SIGKILL)
    assert exit_code(waiting) == -signal.SIGKILL


def test_dead_process_takes_no_job(pipe: tuple[Connection, Connection]) -> None:
    receiver, sender = pipe
    waiting = standby(sender)
    receiver.recv()
    os.kill(waiting.pid, signal.SIGKILL)
    os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
    assert not waiting.send("too late")
    assert not psutil.pid_exists(waiting.pid)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_process_dies_with_its_parent(sig: signal.Signals) -> None:
    program = "import worker.rq.standby as s, signal; print(s.StandbyProcess(int, id).pid, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        waiting = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(sig)
    assert psutil.wait_procs([waiting], timeout=SECONDS)[1] == []


def test_unneeded_process_can_be_killed(pipe: tuple[Connection, Connection]) -> None:
    waiting = standby(pipe[1])
    waiting.kill()
    assert not psutil.pid_exists(waiting.pid)
