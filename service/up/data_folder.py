"""The folder in which the embedded Redis servers keep jobs and results."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_LOCK = "lock"
_OTHER = "choose another with --data-dir or DATA_DIR"
_LOCK_SECONDS = 5.0  # for the servers of a killed `cutaway up` to write what they have and exit


class DataFolderError(Exception):
    """The folder cannot be used; the message is one line for the user."""


def default(port: int) -> Path:
    """Return the folder for a port in the user's data directory."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "cutaway" / str(port)


@contextmanager
def opened(folder: Path, *, fresh: bool) -> Iterator[IO[bytes]]:
    """Open a folder for this process only, emptied if `fresh`; yield its lock, which the servers must inherit.

    Raises DataFolderError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("wb")
    except OSError as error:
        raise DataFolderError(f"{folder} cannot be used for data: {error.strerror} ({_OTHER})") from None
    with lock:
        _take(lock, folder)
        if fresh:
            _empty(folder)
        yield lock


def _take(lock: IO[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DataFolderError(f"{folder} is in use by another cutaway up ({_OTHER})") from None
        time.sleep(0.05)


def _empty(folder: Path) -> None:
    """Remove what the servers wrote, and nothing else: the folder may be one of the user's."""
    for role in ("queue", "cache"):
        if (folder / role).exists():
            shutil.rmtree(folder / role)
