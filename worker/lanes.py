"""A worker's processes: one a lane, so that a trace of ten minutes leaves another free for those of milliseconds."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job

from worker.process import die_with_parent
from worker.store.queues import Lane

log = logging.getLogger("worker")
_LOOK_AGAIN = 0.1  # seconds after which an idle process looks whether there is work of a low priority
_FORK_AGAIN = 1.0  # seconds
_STOPS = (signal.SIGTERM, signal.SIGINT)


class InTurn(Queue):
    """RQ's queue, taken from in turn with others.

    RQ takes from several by a command that loses the job if the worker is killed at that moment. This takes from each
    as RQ does from a single one: a job is moved to where it is found again.
    """

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, *args: Any, **kwargs: Any
    ) -> tuple[Job, Queue] | None:
        """The first job of the first queue that has one. Waits for one of the first queue, and looks after others."""
        first, *others = queues
        deadline = time.monotonic() + (timeout or 0)
        while True:
            for queue in (first, *others):
                found = super().dequeue_any([queue], None, connection, *args, **kwargs)
                if found is not None:
                    return found
            if timeout is None:
                return None
            try:
                return super().dequeue_any([first], _LOOK_AGAIN, connection, *args, **kwargs)  # type: ignore[arg-type]
            except DequeueTimeout:
                if time.monotonic() > deadline:
                    raise


class Lanes:
    """A process a lane, forked from this one, which is warm. One that dies is forked again; all end with this one."""

    def __init__(self, lanes: Iterable[Lane], work: Callable[[Lane], None]) -> None:
        self.waiting, self.work = list(lanes), work
        self.running: dict[int, Lane] = {}
        self.stopping = False

    def run(self) -> None:
        """Until SIGTERM or SIGINT, which each process hears, too: it finishes its job first."""
        for number in _STOPS:
            signal.signal(number, self._stop)
        while True:
            while self.waiting and not self.stopping:
                self._fork(self.waiting.pop(0))
            if not self.running:
                return
            pid, status = os.wait()
            lane = self.running.pop(pid)
            if not self.stopping:
                how = os.waitstatus_to_exitcode(status)
                log.error("the process of %s jobs died (%d), starting another", lane, how)
                self.waiting.append(lane)
                time.sleep(_FORK_AGAIN)

    def _fork(self, lane: Lane) -> None:
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # what comes now is for both to hear
        pid = os.fork()
        if pid:
            self.running[pid] = lane
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            if self.stopping:  # since before it was there to be told
                os.kill(pid, signal.SIGTERM)
            return
        code = 1
        try:
            for number in _STOPS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            die_with_parent(signal.SIGKILL, parent)
            self.work(lane)
            code = 0
        except BaseException:
            log.exception("the process of %s jobs failed", lane)
        finally:
            os._exit(code)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        for pid in self.running:
            os.kill(pid, signal.SIGTERM)
