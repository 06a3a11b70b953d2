"""Digests of large checkpoint files: a worker reads them, and the API never waits for that."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from flask import has_app_context
from redis import Redis
from redis.exceptions import RedisError

import worker.reader as reader
import worker.store.digests as store
import worker.weights.digests as digests
from service.jobs.broker import broker
from worker.store.digests import CheckpointFile, State
from worker.weights.digests import ChangedError, Stamp, UnreadError


def register() -> None:
    """Have the digests of large files computed by a worker in every app of this process."""
    digests.look_elsewhere(_find)


#: Files that neither a worker nor this process could read, and why.
_refused: dict[CheckpointFile, str] = {}


def _find(path: Path, stamp: Stamp) -> str | None:
    """Return the digest of a file if a worker has read it. Otherwise raises UnreadError, after requesting it.

    If the workers do not have the file, as they may have copies of the checkpoints, a thread of this process reads it.
    Raises ChangedError if that failed.
    """
    if not has_app_context():  # a command, not the API
        return None
    queue, models_dir = broker().queue, broker().settings.models_dir
    file = CheckpointFile.of(path, models_dir, stamp)
    if file in _refused:
        raise ChangedError(_refused.pop(file))
    try:
        state = store.find(queue, file)
        if state is None:
            store.request(queue, file)
        elif state.refused:
            before = store.put(queue, file, State())
            if before is not None and before.refused:  # only one of several threads gets here
                Thread(target=_read, args=(queue, models_dir, file), daemon=True).start()
    except RedisError:  # traces need Redis, but the other models are listed without
        state = None
    if state is None or state.sha256 is None:
        raise UnreadError(state.done if state else 0)
    return state.sha256


def _read(queue: Redis, models_dir: str, file: CheckpointFile) -> None:
    state = reader.read(queue, models_dir, file)
    if state.refused:
        _refused[file] = state.refused
