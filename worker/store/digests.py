"""Digests of checkpoint files, which one worker computes for every process that needs them.

The files that are wanted are a sorted set, small ones first. The state of a file is a key, which the reader renews: if
the reader dies, the key expires and the file can be requested again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from worker.weights.digests import Stamp

_WANTED = "digests:wanted"
_READING_SECONDS = 10  # without progress, after which another reader may start
_REFUSED_SECONDS = 60  # after which workers are asked again
_KNOWN_SECONDS = 7 * 86400  # processes also store digests on disk


@dataclass(frozen=True)
class CheckpointFile:
    """A file of a checkpoint, in a version that its stamp identifies on every machine that mounts the folder."""

    folder: str
    name: str
    stamp: Stamp

    @classmethod
    def of(cls, path: Path, models_dir: str, stamp: Stamp) -> CheckpointFile:
        """Return the file at a path below `models_dir`; a file directly in it has the folder "."."""
        return cls(os.path.relpath(path.parent, os.path.realpath(models_dir)), path.name, stamp)

    def to_json(self) -> str:
        """Return the file as JSON."""
        return json.dumps([self.folder, self.name, *self.stamp])

    @classmethod
    def from_json(cls, text: bytes) -> CheckpointFile:
        """Parse a file from JSON."""
        folder, name, *stamp = json.loads(text)
        return cls(folder, name, Stamp(*stamp))


@dataclass(frozen=True)
class State:
    """What is known about a file: its digest, or how many of its bytes are read, or why no worker reads it."""

    sha256: str | None = None
    done: int = 0
    refused: str | None = None


def find(queue: Redis, file: CheckpointFile) -> State | None:
    """Return the state of a file, or None if it is not being read."""
    content: Any = queue.get(_key(file))
    return None if content is None else State(**json.loads(content))


def request(queue: Redis, file: CheckpointFile) -> None:
    """Have a worker read a file; requesting it several times is the same as once."""
    queue.zadd(_WANTED, {file.to_json(): file.stamp.size})


def take(queue: Redis, seconds: float) -> CheckpointFile | None:
    """Return the smallest file that is wanted, or None if there was none for so many seconds."""
    found: Any = queue.bzpopmin(_WANTED, seconds)
    if not found:
        return None
    file = CheckpointFile.from_json(found[1])
    put(queue, file, State())
    return file


def put(queue: Redis, file: CheckpointFile, state: State) -> State | None:
    """Store the state of a file and return the one before."""
    seconds = _KNOWN_SECONDS if state.sha256 else _REFUSED_SECONDS if state.refused else _READING_SECONDS
    before: Any = queue.set(_key(file), json.dumps(vars(state)), ex=seconds, get=True)
    return None if before is None else State(**json.loads(before))


def _key(file: CheckpointFile) -> str:
    return f"digest:{file.to_json()}"
