"""The spare process, as real processes: it is there before its order, and it goes with whoever forked it."""

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

from worker.spare import Spare

SECONDS = 20
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # pytest-xdist's doing


@pytest.fixture
def told() -> Iterator[tuple[Connection, Connection]]:
    """Both ends of what a spare process tells the test."""
    ends = Pipe(duplex=False)
    yield ends
    for end in ends:
        end.close()


def spare(tell: Connection) -> Spare:
    def carry_out(order: Any) -> None:
        tell.send((os.getpid(), order))
        os._exit(0)

    return Spare(lambda: tell.send("prepared"), carry_out)


def ended(spare: Spare) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(spare.pid, 0)[1])


def test_the_process_is_prepared_and_then_carries_out_its_order(told: tuple[Connection, Connection]) -> None:
    hear, tell = told
    waiting = spare(tell)
    assert hear.poll(SECONDS)
    assert hear.recv() == "prepared"
    assert waiting.order(["any", 1])
    assert hear.recv() == (waiting.pid, ["any", 1])
    assert ended(waiting) == 0


def test_an_order_that_comes_at_once_is_not_kept_waiting(told: tuple[Connection, Connection]) -> None:
    hear, tell = told
    waiting = spare(tell)
    assert waiting.order("now")
    assert hear.recv() == (waiting.pid, "now")
    assert ended(waiting) == 0


def test_it_has_a_process_group_of_its_own_so_that_it_can_be_killed_with_all_it_starts(
    told: tuple[Connection, Connection],
) -> None:
    hear, tell = told
    waiting = spare(tell)
    hear.recv()
    assert os.getpgid(waiting.pid) == waiting.pid
    os.killpg(waiting.pid, signal.SIGKILL)
    assert ended(waiting) == -signal.SIGKILL


def test_one_that_was_killed_takes_no_order(told: tuple[Connection, Connection]) -> None:
    hear, tell = told
    waiting = spare(tell)
    hear.recv()
    os.kill(waiting.pid, signal.SIGKILL)
    os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
    assert not waiting.order("too late")
    assert not psutil.pid_exists(waiting.pid)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_forked_it(sig: signal.Signals) -> None:
    program = "import worker.spare as s, signal; print(s.Spare(int, print).pid, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        waiting = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(sig)
    assert psutil.wait_procs([waiting], timeout=SECONDS)[1] == []


def test_one_that_is_dismissed_is_gone(told: tuple[Connection, Connection]) -> None:
    waiting = spare(told[1])
    waiting.dismiss()
    assert not psutil.pid_exists(waiting.pid)
