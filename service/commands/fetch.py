"""Bring a GPT-2 checkpoint from a Hugging Face hub into MODELS_DIR, where it appears only when it is whole.

A hub names the commit that a revision means and that commit's files; it states each file's size, and of large files the
SHA-256. What has come lies in MODELS_DIR/.fetching until everything is there and is what the hub stated, so that a
fetch that was stopped, however, goes on from the byte where it was.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from service.commands.hub import HUB, PIECE, SMALL, FetchError, File, Hub, Passing

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
RECORD = ".fetched.json"  # in a model's folder: where it came from, and each file's size and SHA-256
STAGING = ".fetching"  # in MODELS_DIR: what is not whole yet

TRIES = 4  # to go on with a file, without a byte more

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")


class Stopped(Exception):
    """The user stopped it; the message is one line for the user."""


@dataclass(frozen=True)
class Plan:
    """What a model's folder will hold: the small files, which are here already, and the weights, which are to come."""

    commit: str
    small: dict[str, bytes]
    weights: Sequence[File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.weights)


def fetch(
    repo: str, folder: Path, *, revision: str = "main", name: str | None = None, endpoint: str = HUB, token: str = ""
) -> str:
    """Bring the checkpoint `repo` into a folder of `folder`. Returns what is there now, as a line for the user.

    Raises FetchError and Stopped.
    """
    parts = repo.split("/")
    if len(parts) > 2 or not all(_is_name(part) for part in parts):
        raise FetchError(f"{repo!r} is no repository: one is called like openai-community/gpt2.")
    if name is not None and not _is_name(name):
        raise FetchError(f"{name!r} cannot be the name of a model's folder: letters, digits, '-', '_' and '.' can.")
    if not re.match(r"https?://[^/\s]", endpoint):
        raise FetchError(f"HF_ENDPOINT={endpoint!r}: an address like {HUB} is expected.")
    target = folder / (name or parts[-1])
    try:
        present = _present(target, repo, revision)
        if present:
            return f"{target} is complete already: {repo} at {present[:7]}"
        hub = Hub(endpoint.rstrip("/"), repo, revision, token)
        plan = make_plan(hub)
        with _staging(target) as staging:
            digests = _receive_all(hub, plan, staging, f"{repo} into {target}, {_size(plan.size)}")
            record = {"repo": repo, "revision": revision, "commit": plan.commit, "files": digests}
            _publish(plan, staging, target, record)
    except OSError as error:
        raise FetchError(f"{error.filename or folder}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise Stopped("Stopped before any of the weights came.") from None
    return f"{target} is complete: {repo} at {plan.commit[:7]}, {_size(plan.size)}"


def make_plan(hub: Hub) -> Plan:
    """What there is to fetch. Raises FetchError where it is no GPT-2 checkpoint in safetensors."""
    commit, names = hub.snapshot()
    if CONFIG not in names:
        raise FetchError(f"{hub.repo} is no checkpoint: it has no {CONFIG}.")
    if not names & {WEIGHTS, INDEX}:
        raise FetchError(f"{hub.repo} has no {WEIGHTS}; other formats are not read.")
    small = {CONFIG: _small(hub, commit, CONFIG)}
    kind = _json(hub, CONFIG, small[CONFIG]).get("model_type", "gpt2")
    if kind != "gpt2":
        raise FetchError(f"{hub.repo} is of the type {kind!r}: only 'gpt2' is read.")
    weights = [WEIGHTS]
    if WEIGHTS not in names:
        small[INDEX] = _small(hub, commit, INDEX)
        placed = _json(hub, INDEX, small[INDEX]).get("weight_map")
        weights = sorted(set(map(str, placed.values()))) if isinstance(placed, dict) else []
        absent = [name for name in weights if name not in names or not _SHARD.fullmatch(name)]
        if absent or not weights:
            raise FetchError(f"{hub.repo} is not whole: {INDEX} names {repr(absent[0]) if absent else 'no file'}.")
    return Plan(commit, small, [hub.describe(commit, name) for name in weights])


def _small(hub: Hub, commit: str, name: str) -> bytes:
    content, file = io.BytesIO(), hub.describe(commit, name)
    if file.size > SMALL:
        raise FetchError(f"{name} has {file.size:,} bytes: at most {SMALL:,} are read of it.")
    _receive(hub, commit, file, content)
    return content.getvalue()


def _json(hub: Hub, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{hub.repo} is no checkpoint: its {name} holds no JSON object.")
    return value


def _receive(hub: Hub, commit: str, file: File, sink: BinaryIO, bar: _Bar | None = None) -> str:
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


def _receive_all(hub: Hub, plan: Plan, staging: Path, label: str) -> dict[str, dict[str, Any]]:
    """Bring the weights, with a bar that shows how far they are. Returns each one's size and SHA-256."""
    parts = {_part(plan, file): file for file in plan.weights}
    for stranger in set(os.listdir(staging)) - set(parts):  # what was left of another commit or model
        (staging / stranger).unlink()
    missing, free = plan.size - _held(staging), shutil.disk_usage(staging).free
    if missing > free:
        raise FetchError(f"{_size(missing)} are to come, and {staging.parent.parent} has room for {_size(free)}.")

    received = {}
    try:
        bar = _Bar(plan.size, label)
        with bar.bar:
            for part, file in parts.items():
                with (staging / part).open("a+b") as sink:
                    sink.seek(0)
                    digest = _receive(hub, plan.commit, file, sink, bar)
                    sink.flush()
                    os.fsync(sink.fileno())
                received[file.name] = {"size": file.size, "sha256": digest}
    except Passing as error:
        raise FetchError(f"{error} {_kept(plan, staging)}") from None
    except OSError as error:
        raise FetchError(f"{error.filename or staging}: {error.strerror or error}. {_kept(plan, staging)}") from None
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. {_kept(plan, staging)}") from None
    return received


def _publish(plan: Plan, staging: Path, target: Path, record: dict[str, Any]) -> None:
    """Give every file its name, and the folder at last; where that is taken, what came stays for another fetch."""
    for file in plan.weights:
        (staging / _part(plan, file)).rename(staging / file.name)
    for name, content in (plan.small | {RECORD: json.dumps(record, indent=2).encode()}).items():
        with (staging / name).open("wb") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
    try:
        staging.rename(target)
    except OSError as error:
        for file in plan.weights:
            (staging / file.name).rename(staging / _part(plan, file))
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise _taken(target, "by something that came while this was fetched") from None


def _present(target: Path, repo: str, revision: str) -> str | None:
    """The commit of a model that was fetched before; None where nothing is. Raises FetchError where another one is."""
    if not target.exists() or (target.is_dir() and not os.listdir(target)):
        return None
    try:
        record = json.loads((target / RECORD).read_bytes())
        commit, sizes = str(record["commit"]), {name: file["size"] for name, file in record["files"].items()}
        holds, of = record["repo"], record["revision"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise _taken(target, "by something that was not fetched") from None
    if holds != repo or revision not in (of, commit):
        raise _taken(target, f"by {holds} at {of} ({commit[:7]})")
    for name, size in sizes.items():
        if not (target / name).is_file() or (target / name).stat().st_size != size:
            raise FetchError(f"{target} is not whole any more: {name} is missing or cut. Remove it first.")
    return commit


def _taken(target: Path, by: str) -> FetchError:
    return FetchError(f"{target} is taken {by}: give another --name, or remove it first.")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """The folder for what comes, which is this process' alone; removed where nothing came."""
    staging = target.parent / STAGING / target.name
    staging.mkdir(parents=True, exist_ok=True)
    held = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"Another fetch into {target} is under way.") from None
        yield staging
    finally:
        os.close(held)
        for folder in (staging, staging.parent):
            with suppress(OSError):
                folder.rmdir()


class _Bar:
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
        return f"{_size(self.done)}, {_size(self.came / max(time.monotonic() - self.started, 1))}/s"


def _part(plan: Plan, file: File) -> str:
    """What a file is called until it is whole: not the same for another content."""
    return f"{file.name}.{file.sha256 or plan.commit}"


def _held(staging: Path) -> int:
    return sum(file.stat().st_size for file in staging.iterdir())


def _kept(plan: Plan, staging: Path) -> str:
    return f"{_size(_held(staging))} of {_size(plan.size)} are here; the same command goes on from there."


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _size(nbytes: float) -> str:
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1, "bytes")) if nbytes >= u or u == 1)
    return f"{nbytes / unit:.{0 if unit == 1 else 1}f} {name}"
