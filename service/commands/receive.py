"""Download a file of a hub: resume, verify, show progress."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any, BinaryIO

import click

from service.commands.hub import PIECE, FetchError, File, Hub, TemporaryError

TRIES = 4  # in a row that receive no byte


def receive(hub: Hub, commit: str, file: File, sink: BinaryIO, bar: ProgressBar | None = None) -> str:
    """Download a file into `sink`, which may hold the beginning of it; return its SHA-256.

    Raises FetchError if the size or the SHA-256 does not match; `sink` is empty then.
    """
    digest, position, tries = hashlib.sha256(), 0, 0

    def start_again() -> None:
        nonlocal digest, position
        sink.seek(0)
        sink.truncate()
        if bar:
            bar(-position)
        digest, position = hashlib.sha256(), 0

    def add(piece: bytes, received: bool) -> None:
        nonlocal position
        digest.update(piece)
        position += len(piece)
        if bar:
            bar(len(piece), len(piece) * received)

    while piece := sink.read(PIECE):
        add(piece, received=False)
    if position > file.size:
        start_again()
    while position < file.size:
        before = position
        try:
            for start, piece in hub.pieces(commit, file.name, position):
                if start != position:
                    start_again()
                sink.write(piece)
                add(piece, received=True)
                if position > file.size:  # the response may be endless
                    break
            if position < file.size:
                raise TemporaryError(f"{hub.endpoint} closed the connection during {file.name}.")
        except TemporaryError:
            tries = 0 if position > before else tries + 1
            if tries == TRIES:
                raise
            time.sleep(0.5 * 2**tries)
    if position > file.size or (file.sha256 or digest.hexdigest()) != digest.hexdigest():
        start_again()
        raise FetchError(f"{file.name} does not have the size or SHA-256 from {hub.endpoint}; it is deleted.")
    return digest.hexdigest()


class ProgressBar:
    """A progress bar on standard error. It computes the rate itself, as click counts bytes from earlier runs."""

    def __init__(self, size: int, label: str) -> None:
        self.done = self.received = 0
        self.started = time.monotonic()
        self.bar: Any = click.progressbar(
            length=size,
            label=label,
            file=sys.stderr,
            show_eta=False,
            item_show_func=lambda _: self._text(),
            update_min_steps=max(1, size // 1000),
        )

    def __call__(self, nbytes: int, received: int = 0) -> None:
        self.done += nbytes
        self.received += received
        self.bar.update(nbytes)

    def _text(self) -> str:
        return f"{format_size(self.done)}, {format_size(self.received / max(time.monotonic() - self.started, 1))}/s"


def format_size(nbytes: float) -> str:
    """Return a number of bytes in a readable unit."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1, "bytes")) if nbytes >= u or u == 1)
    return f"{nbytes / unit:.{0 if unit == 1 else 1}f} {name}"
