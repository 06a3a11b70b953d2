"""Checks whether the trace store is writable, in a thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from worker.store.stored_bytes import Missing, Unavailable

if TYPE_CHECKING:
    from worker.store.archive import Archive

_VALID_SECONDS = 10.0  # how long a good result is reused: each check is a write, which a bucket's owner pays for


class ArchiveProbe:
    """Checks an archive, one check at a time. A check that hangs does not delay a health check."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._lock = threading.Lock()
        self._thread = threading.Thread()
        self._problem = ""
        self._valid_until = 0.0

    def start(self) -> None:
        """Start a check, unless one is running or the archive was writable a moment ago."""
        with self._lock:
            if not self._thread.is_alive() and time.monotonic() >= self._valid_until:
                self._thread = threading.Thread(target=self._check, name="probe", daemon=True)
                self._thread.start()

    def problem(self, timeout: float) -> str:
        """Return the problem found, or an empty string, after at most `timeout` seconds."""
        if time.monotonic() < self._valid_until:
            return ""
        self._thread.join(timeout)
        return "the trace store does not answer" if self._thread.is_alive() else self._problem

    def _check(self) -> None:
        try:
            self.archive.check()
        except Missing:
            self._problem = "the trace store does not exist"
        except Unavailable:
            self._problem = "the trace store cannot be written to"
        else:
            self._problem, self._valid_until = "", time.monotonic() + _VALID_SECONDS
