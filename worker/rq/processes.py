"""The worker's processes: one for each job size, and for reading checkpoints."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping

from worker.process import die_with_parent

log = logging.getLogger("worker")
_RESTART_DELAY = 1.0  # seconds
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Processes:
    """Forks a process for each kind of work, by its name, and replaces those that die.

    With a process for each size, a job of ten minutes never delays one of milliseconds. The processes share what this
    one has loaded, and end with it.
    """

    def __init__(self, work: Mapping[str, Callable[[], None]]) -> None:
        self.to_start, self.work = list(work), work
        self.running: dict[int, str] = {}  # by process id
        self.stopping = False

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop the processes, which finish their jobs first."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._stop)
        while True:
            while self.to_start and not self.stopping:
                self._fork(self.to_start.pop(0))
            if not self.running:
                return
            pid, status = os.wait()
            name = self.running.pop(pid)
            if not self.stopping:
                exit_code = os.waitstatus_to_exitcode(status)
                log.error("the process for %s exited with code %d, restarting it", name, exit_code)
                self.to_start.append(name)
                time.sleep(_RESTART_DELAY)

    def _fork(self, name: str) -> None:
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # so that both processes get a signal
        pid = os.fork()
        if pid:
            self.running[pid] = name
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            if self.stopping:  # the handler ran before the process was in self.running
                os.kill(pid, signal.SIGTERM)
            return
        code = 1
        try:
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            die_with_parent(signal.SIGKILL, parent)
            self.work[name]()
            code = 0
        except BaseException:
            log.exception("the process for %s failed", name)
        finally:
            os._exit(code)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        for pid in self.running:
            os.kill(pid, signal.SIGTERM)
