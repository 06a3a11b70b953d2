"""The worker's processes: one for short jobs, one for long jobs."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable

from worker.process import die_with_parent
from worker.store.queues import JobSize

log = logging.getLogger("worker")
_RESTART_DELAY = 1.0  # seconds
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Processes:
    """A process for each job size, forked from this one, which has everything loaded.

    A job of ten minutes then never delays one of milliseconds. A process that dies is replaced; all end with this one.
    """

    def __init__(self, sizes: Iterable[JobSize], work: Callable[[JobSize], None]) -> None:
        self.to_start, self.work = list(sizes), work
        self.running: dict[int, JobSize] = {}  # by process id
        self.stopping = False

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, which is passed on to each process: it finishes its job first."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._stop)
        while True:
            while self.to_start and not self.stopping:
                self._fork(self.to_start.pop(0))
            if not self.running:
                return
            pid, status = os.wait()
            size = self.running.pop(pid)
            if not self.stopping:
                exit_code = os.waitstatus_to_exitcode(status)
                log.error("the process of %s jobs died (%d), starting another", size, exit_code)
                self.to_start.append(size)
                time.sleep(_RESTART_DELAY)

    def _fork(self, size: JobSize) -> None:
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # a signal that comes during the fork reaches both
        pid = os.fork()
        if pid:
            self.running[pid] = size
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            if self.stopping:  # the handler ran before this process was in the table
                os.kill(pid, signal.SIGTERM)
            return
        code = 1
        try:
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            die_with_parent(signal.SIGKILL, parent)
            self.work(size)
            code = 0
        except BaseException:
            log.exception("the process of %s jobs failed", size)
        finally:
            os._exit(code)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        for pid in self.running:
            os.kill(pid, signal.SIGTERM)
