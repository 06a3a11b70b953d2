"""The standby process, as real processes: it starts before its job comes, and ends with its parent."""

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
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # pytest-xdist's doing


@pytest.fixture
def told() -> Iterator[tuple[Connection, Connection]]:
    """Both ends of a pipe from a standby process to the test."""
    ends = Pipe(duplex=False)
    yield ends
    for end in ends:
        end.close()


def standby(tell: Connection) -> StandbyProcess:
    def run(job: Any) -> None:
        tell.send((os.getpid(), job))
        os._exit(0)

    return StandbyProcess(lambda: tell.send("prepared"), run)


def ended(process: StandbyProcess) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])


def test_the_process_is_prepared_and_then_runs_its_job(told: tuple[Connection, Connection]) -> None:
    hear, tell = told
    waiting = standby(tell)
    assert hear.poll(SECONDS)
    assert hear.recv() == "prepared"
    assert waiting.send(["any", 1])
    assert hear.recv() == (waiting.pid, ["any", 1])
    assert ended(waiting) == 0


def test_a_job_that_comes_at_once_does_not_wait_for_the_preparation(told: tuple[Connection, Connection]) -> None:
    hear, tell = told
    waiting = standby(tell)
    assert waiting.send("now")
    assert hear.recv() == (waiting.pid, "now")
    assert ended(waiting) == 0


def test_it_has_a_process_group_of_its_own_so_that_it_can_be_killed_with_all_it_starts(
    told: tuple[Connection, Connection],
) -> None:
    hear, tell = told
    waiting = standby(tell)
    hear.recv()
    assert os.getpgid(waiting.pid) == waiting.pid
    os.killpg(waiting.pid, signal.SIGKILL)
    assert ended(waiting) == -signal.SIGKILL


def test_a_process_that_died_takes_no_job(told: tuple[Connection, Connection]) -> None:
    hear, tell = told
    waiting = standby(tell)
    hear.recv()
    os.kill(waiting.pid, signal.SIGKILL)
    os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
    assert not waiting.send("too late")
    assert not psutil.pid_exists(waiting.pid)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_forked_it(sig: signal.Signals) -> None:
    program = "import worker.rq.standby as s, signal; print(s.StandbyProcess(int, id).pid, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        waiting = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(sig)
    assert psutil.wait_procs([waiting], timeout=SECONDS)[1] == []


def test_a_process_that_is_not_needed_is_killed(told: tuple[Connection, Connection]) -> None:
    waiting = standby(told[1])
    waiting.kill()
    assert not psutil.pid_exists(waiting.pid)
