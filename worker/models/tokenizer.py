"""Tokenizers of checkpoints, each read by a process of its own.

The files come from anywhere: a pattern can backtrack for years, a template can loop forever or fill the memory, a
parser can crash. That ends the process, and the next question starts another.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess  # nosec B404
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

import worker.weights.digests as digests
from worker.models.pieces import PieceTable
from worker.weights.digests import Stamp

log = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"
FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
_SECONDS = 15  # of processor time for an answer; a vocabulary of 262,144 takes 3 to be read
_BYTES = 768 << 20  # of memory; a vocabulary of 262,144 takes up to 500 MB while it is read
_PROCESSES = 3  # at once
_MAX_ANSWER = 1 << 30  # bytes
_VARIABLES = {"PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ"}


class TokenizerError(ValueError):
    """A tokenizer that cannot be used, or that refuses an input; the message says why."""


class TokenizerBusyError(RuntimeError):
    """Other requests have occupied a tokenizer for too long."""

    def __init__(self) -> None:
        super().__init__(f"Other requests have occupied this model's tokenizer for {_SECONDS} seconds.")


@dataclass(frozen=True)
class Source:
    """The files of a checkpoint's tokenizer, as of their stamps; None for a file that does not exist."""

    folder: Path
    stamps: tuple[Stamp | None, ...]

    @classmethod
    def find(cls, folder: Path) -> Source | None:
        """Return the tokenizer in a folder; None if it has none."""
        stamps = tuple(_stamp(folder / name) for name in FILES)
        return cls(folder, stamps) if stamps[FILES.index(TOKENIZER)] is not None else None


def _stamp(path: Path) -> Stamp | None:
    try:
        return digests.stamp(path)
    except OSError:
        return None


_NO_PIECES = PieceTable(b"", b"")


@dataclass(frozen=True)
class Description:
    """A tokenizer's kind (gpt2: those of GPT-2; tokenizer.json: others) and, of others, the tokens."""

    kind: str
    size: int = 0  # of the vocabulary that a model needs; further tokens are in a text only if it names them
    special: frozenset[int] = frozenset()
    pieces: PieceTable = _NO_PIECES
    first_pieces: PieceTable = _NO_PIECES  # at the beginning of a text


def describe(source: Source) -> Description:
    """Return the description of a tokenizer. Raises TokenizerError and TokenizerBusyError."""
    found = _described(source)
    if isinstance(found, str):
        raise TokenizerError(found)
    return found


def encode(source: Source, text: str, add_special_tokens: bool) -> list[int]:
    """Return the tokens of a text. Raises TokenizerError and TokenizerBusyError."""
    found, _ = _process(source).ask("encode", text=text, add_special_tokens=add_special_tokens)
    return list(found["tokens"])


def chat(source: Source, messages: Sequence[Any], add_special_tokens: bool, max_bytes: int) -> list[int]:
    """Return the tokens of a conversation, rendered with its chat template to at most `max_bytes`.

    Raises TokenizerError and TokenizerBusyError.
    """
    question = {"messages": list(messages), "add_special_tokens": add_special_tokens, "max_bytes": max_bytes}
    found, _ = _process(source).ask("chat", **question)
    return list(found["tokens"])


@lru_cache(maxsize=32)
def _described(source: Source) -> Description | str:
    """Return the description of a tokenizer, or why it cannot be used."""
    try:
        found, parts = _process(source).ask("describe")
    except TokenizerError as error:
        log.warning("the tokenizer in %s cannot be used: %s", source.folder, error)
        return str(error)
    if not parts:
        return Description(found["kind"])
    tables = [PieceTable(content, ends) for content, ends in zip(parts[::2], parts[1::2], strict=True)]
    return Description(found["kind"], found["size"], frozenset(found["special"]), tables[0], tables[-1])


@lru_cache(maxsize=_PROCESSES)
def _process(source: Source) -> _Process:
    return _Process(source.folder)


class _Process:
    """Asks a process about the tokenizer in a folder. It is started for the first question, and again if it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._started: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._stop: Any = None

    def ask(self, operation: str, **arguments: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Return the answer to a question and its binary parts. Raises TokenizerError and TokenizerBusyError."""
        if not self._lock.acquire(timeout=_SECONDS):
            raise TokenizerBusyError
        try:
            process, pipe = self._started or self._start()
            try:
                pipe.send_bytes(orjson.dumps({"operation": operation} | arguments))
                found: dict[str, Any] = orjson.loads(pipe.recv_bytes(_MAX_ANSWER))
                parts = [pipe.recv_bytes(_MAX_ANSWER) for _ in range(found["parts"])]
            except (EOFError, OSError):
                self._stop()
                self._started = None
                raise TokenizerError(_reason(process.returncode)) from None
        finally:
            self._lock.release()
        if "error" in found:
            raise TokenizerError(found["error"])
        return found, parts

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = Pipe()
        with theirs:
            limits = (str(_SECONDS), str(_BYTES))
            where = (str(theirs.fileno()), self._folder.name, str(self._folder.parent))
            process = subprocess.Popen(  # nosec B603
                [sys.executable, "-m", "worker.models.tokenizer_process", *where, *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in a terminal ends the service, which ends this
                env=_environment(),
            )
        self._started = process, ours
        self._stop = weakref.finalize(self, _end, process, ours)
        return self._started


def _environment() -> dict[str, str]:
    """Return the variables that a process needs: no keys, and no addresses of other services."""
    needed = {name: value for name, value in os.environ.items() if name in _VARIABLES}
    return needed | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()
    try:
        process.wait(timeout=1)  # it ends when its pipe is closed, or has ended
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(code: int) -> str:
    """Return why a process ended."""
    if code == -signal.SIGPROF:
        return f"it takes more than {_SECONDS} seconds of processor time, the limit"
    return f"it crashes, or needs more than {_BYTES >> 20} MB of memory, the limit"
