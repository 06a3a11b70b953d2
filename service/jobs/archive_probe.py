"""Whether the trace store can be written to, found out by a thread: one that hangs holds up no health check."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from worker.store.stored_bytes import Missing, Unavailable

if TYPE_CHECKING:
    from worker.store.archive import Archive

_GOOD = 10.0  # seconds for which it counts as writable: each look is a write, which a bucket's owner pays for


class Probe:
    """Looks at an archive, once at a time."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._lock = threading.Lock()
        self._looking = threading.Thread()
        self._wrong = ""
        self._good_until = 0.0

    def begin(self) -> None:
        """Look, unless somebody does or found it to be writable a moment ago."""
        with self._lock:
            if not self._looking.is_alive() and time.monotonic() >= self._good_until:
                self._looking = threading.Thread(target=self._look, name="probe", daemon=True)
                self._looking.start()

    def wrong(self, patience: float) -> str:
        """What keeps it from its work, after so many seconds at most; nothing where all is well."""
        if time.monotonic() < self._good_until:
            return ""
        self._looking.join(patience)
        return "the trace store does not answer" if self._looking.is_alive() else self._wrong

    def _look(self) -> None:
        try:
            self.archive.check()
        except Missing:
            self._wrong = "the trace store is not there"
        except Unavailable:
            self._wrong = "the trace store cannot be written to"
        else:
            self._wrong, self._good_until = "", time.monotonic() + _GOOD
