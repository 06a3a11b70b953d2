"""The standby process: RQ's work horse, forked in advance.

Forking, copying the pages that the process first writes to, and connecting to Redis take several times as long as a
small trace. A standby process does all of that while the worker is idle.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

import orjson

from worker.process import die_with_parent

log = logging.getLogger("worker")
_BUSY = 0.005  # seconds within which the next job comes if jobs are waiting: then preparing would only delay it


class StandbyProcess:
    """A forked process that waits for one job, runs it and exits. It also exits with its parent."""

    def __init__(self, prepare: Callable[[], None], run: Callable[[Any], None]) -> None:
        parent, (receiver, self._sender) = os.getpid(), Pipe(duplex=False)
        self.pid = os.fork()
        if self.pid:
            receiver.close()
            return
        try:
            os.setpgrp()  # RQ stops a job by killing its process group
            die_with_parent(signal.SIGKILL, parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._sender.close()
            if not receiver.poll(_BUSY):
                prepare()
            run(orjson.loads(receiver.recv_bytes()))  # exits the process
        except BaseException:
            log.exception("the standby process failed before its job started")
        finally:
            os._exit(1)

    def kill(self) -> None:
        """Kill the process, which has no job yet."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._sender.close()

    def send(self, job: Any) -> bool:
        """Send the job to the process as JSON. Return False if the process has died."""
        try:
            self._sender.send_bytes(orjson.dumps(job))
        except BrokenPipeError:
            os.waitpid(self.pid, 0)
            return False
        finally:
            self._sender.close()
        return True
