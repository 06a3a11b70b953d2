"""A file of a hub, taken up where it broke off, and held against what the hub states; and how far that is."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any, BinaryIO

import click

from service.commands.hub import PIECE, FetchError, File, Hub, Passing

TRIES = 4  # to go on with a file, without a byte more


def receive(hub: Hub, commit: str, file: File, sink: BinaryIO, bar: Bar | None = None) -> str:
    """Let `sink`, which may hold the beginning of a file, hold all of it. Returns its SHA-256."""
    digest, place, tries = hashlib.sha256(), 0, 0

    def start_again() -> None:
        nonlocal digest, place
        sink.seek(0)
        sink.truncate()
        if bar:
            bar(-place)
        digest, place = hashlib.sha256(), 0

    def take(piece: bytes, came: bool) -> None:
        nonlocal place
        digest.update(piece)
        place += len(piece)
        if bar:
            bar(len(piece), len(piece) * came)

    while piece := sink.read(PIECE):
        take(piece, came=False)
    if place > file.size:
        start_again()
    while place < file.size:
        before = place
        try:
            for at, piece in hub.pieces(commit, file.name, place):
                if at != place:
                    start_again()
                sink.write(piece)
                take(piece, came=True)
                if place > file.size:  # it may never end
                    break
            if place < file.size:
                raise Passing(f"{hub.endpoint} broke off in {file.name}.")
        except Passing:
            tries = 0 if place > before else tries + 1
            if tries == TRIES:
                raise
            time.sleep(0.5 * 2**tries)
    if place > file.size or (file.sha256 or digest.hexdigest()) != digest.hexdigest():
        start_again()
        raise FetchError(f"{file.name} is not what {hub.endpoint} says it is, by its size or SHA-256; it is deleted.")
    return digest.hexdigest()


class Bar:
    """A bar on standard error. The rate is its own: click's takes what lay here before for what came."""

    def __init__(self, size: int, label: str) -> None:
        self.done = self.came = 0
        self.started = time.monotonic()
        self.bar: Any = click.progressbar(
            length=size,
            label=label,
            file=sys.stderr,
            show_eta=False,
            item_show_func=lambda _: self._text(),
            update_min_steps=max(1, size // 1000),
        )

    def __call__(self, nbytes: int, came: int = 0) -> None:
        self.done += nbytes
        self.came += came
        self.bar.update(nbytes)

    def _text(self) -> str:
        return f"{readable(self.done)}, {readable(self.came / max(time.monotonic() - self.started, 1))}/s"


def readable(nbytes: float) -> str:
    """A number of bytes, for people."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1, "bytes")) if nbytes >= u or u == 1)
    return f"{nbytes / unit:.{0 if unit == 1 else 1}f} {name}"
