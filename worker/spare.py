"""The process that the next job will run in, forked before the job comes.

A fork, the pages it copies when it first writes to them and its connections to Redis take several times
as long as a small trace. A spare process goes through all of it while the worker has nothing to do.
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
_BUSY = 0.005  # seconds in which an order comes if jobs are waiting: no time to prepare then


class Spare:
    """A forked process that waits for one order, carries it out and ends. It ends with its parent, too."""

    def __init__(self, prepare: Callable[[], None], carry_out: Callable[[Any], None]) -> None:
        parent, (orders, self._orders) = os.getpid(), Pipe(duplex=False)
        self.pid = os.fork()
        if self.pid:
            orders.close()
            return
        try:
            os.setpgrp()  # RQ stops a job by killing its process group
            die_with_parent(signal.SIGKILL, parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._orders.close()
            if not orders.poll(_BUSY):
                prepare()
            carry_out(orjson.loads(orders.recv_bytes()))  # which ends the process
        except BaseException:
            log.exception("the process for a job failed before it began")
        finally:
            os._exit(1)

    def dismiss(self) -> None:
        """End the process, which has no order."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._orders.close()

    def order(self, order: Any) -> bool:
        """Give it its order, which JSON can say; False if the process is no more."""
        try:
            self._orders.send_bytes(orjson.dumps(order))
        except BrokenPipeError:
            os.waitpid(self.pid, 0)
            return False
        finally:
            self._orders.close()
        return True
