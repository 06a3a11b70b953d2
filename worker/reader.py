"""The process that reads checkpoints for their digests, so that no request and no job waits for it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from redis import Redis

import worker.store.digests as store
import worker.weights.digests as digests
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.digests import CheckpointFile, State
from worker.weights.digests import ChangedError, Stamp
from worker.weights.folder import FileError, Folder

log = logging.getLogger("worker")
_WAIT = 1.0  # seconds for which a request to Redis blocks
_INTERVAL = 0.5  # seconds between two reports of progress


def run(settings: Settings) -> None:
    """Read the requested files, one after another."""
    queue = connect(settings.queue_url)
    log.info("ready for checkpoints in %s", settings.models_dir)
    while True:
        file = store.take(queue, _WAIT)
        if file is not None:
            read(queue, settings.models_dir, file)


def read(queue: Redis, models_dir: str, file: CheckpointFile) -> State:
    """Read a file and store its digest, or the reason why it cannot be read here; return what was stored."""
    reported = began = time.monotonic()

    def report(done: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= _INTERVAL:
            store.put(queue, file, State(done=done))
            reported = time.monotonic()

    try:
        path = Folder(file.folder, models_dir).require(file.name)
        if digests.stamp(path) != file.stamp:
            raise ChangedError(f"{file.name} is another version of the file")
        state = State(sha256=digests.read(path, file.stamp, report))
    except (FileError, ChangedError, OSError) as error:
        state = State(refused=str(error))
    store.put(queue, file, state)
    result = f"not read: {state.refused}" if state.refused else f"read in {time.monotonic() - began:.1f} s"
    log.info("%s/%s %s", file.folder, file.name, result)
    return state


def known(settings: Settings, path: Path, stamp: Stamp) -> str | None:
    """Return the digest of a file if another process has stored it."""
    state = store.find(connect(settings.queue_url), CheckpointFile.of(path, settings.models_dir, stamp))
    return state.sha256 if state else None
