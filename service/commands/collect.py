"""`cutaway batch`: submit a file of requests and download the results.

The folder of the results has an index.jsonl with a line for each request that has ended. A file gets its name only when
it is complete, so a second run neither computes nor downloads it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cutaway.remote import ProblemError, Remote, RemoteError

INDEX = "index.jsonl"
MAX_REQUESTS = 10_000  # that the service accepts in one batch
MAX_BYTES = 4 << 20  # in one batch
SAFETENSORS = "application/x-safetensors"
LAYOUTS = {"glb": "model/gltf-binary", "safetensors": SAFETENSORS}
_DOWNLOADS = 4  # at a time
_MAX_WAITING = 64  # downloads that are queued or running; the event stream is not read while there are more


class CollectError(Exception):
    """The batch failed; the message is for the user."""


class Stopped(Exception):
    """The user interrupted the batch; the message is one line for the user."""


@dataclass(frozen=True)
class Line:
    """A request and its line number in the file, from 1."""

    number: int
    text: bytes

    @property
    def digest(self) -> str:
        """The request's key in the index: line numbers may change between runs."""
        return hashlib.sha256(json.dumps(json.loads(self.text), sort_keys=True).encode()).hexdigest()


def collect(
    file: Path, out: Path, url: str, layouts: str | None = None, api_key: str | None = None
) -> tuple[str, list[str]]:
    """Submit the requests in `file` and download their results into `out`.

    Return a summary line, and a line for each request that failed. Raises CollectError, RemoteError or Stopped.
    """
    try:
        lines = _lines(file)
        with _locked(out):
            for part in out.glob("*.part"):  # left by a crash
                part.unlink()
            entries = _finished(out, lines, layouts)
            missing = [line for line in lines if line.number not in entries]
            done_before = len(lines) - len(missing)
            with (out / INDEX).open("a") as index:
                bar = _ProgressBar(len(lines), done_before, f"{file} into {out}")
                collector = _Collector(Remote(url, api_key), out, layouts, index, bar)
                try:
                    entries |= collector.run(missing)
                except KeyboardInterrupt:
                    ended = f"{done_before + collector.ended} of {len(lines)} requests have ended"
                    raise Stopped(f"Stopped. {ended}; run the same command again to resume.") from None
            _write_index(out, [entries[line.number] for line in lines])
    except OSError as error:
        raise CollectError(f"{error.filename or out}: {error.strerror or error}") from None
    failed = [entry for entry in entries.values() if entry["status"] != "done"]
    summary = f"{out}: {len(lines) - len(failed)} of {len(lines)} requests are done ({done_before} from earlier runs)"
    return summary, [f"line {entry['line']}: {entry['status']}: {entry['reason']}" for entry in failed]


def _lines(file: Path) -> list[Line]:
    lines = [Line(n, text) for n, text in enumerate(file.read_bytes().splitlines(), start=1) if text.strip()]
    for line in lines:
        try:
            json.loads(line.text)
        except ValueError as error:
            raise CollectError(f"{file}, line {line.number}: invalid JSON: {error}") from None
    if not lines:
        raise CollectError(f"{file} is empty; it must have one request per line.")
    return lines


def _finished(out: Path, lines: list[Line], layouts: str | None) -> dict[int, dict[str, Any]]:
    """Return the entries of requests that earlier runs finished, by current line number."""
    if not (out / INDEX).exists():
        return {}
    recorded: dict[str, dict[str, Any]] = {}
    for text in (out / INDEX).read_text().splitlines():
        try:
            entry = json.loads(text)
            recorded[entry["request"]] = entry
        except (ValueError, LookupError, TypeError):
            continue  # the process was killed while it wrote this line
    count = 2 if layouts else 1
    finished = {}
    for line in lines:
        entry = recorded.get(line.digest)
        if entry and entry["status"] == "done" and len(entry["files"]) >= count:
            suffixes = (".safetensors", f".layout.{layouts}")[:count]
            files = [name for name in entry["files"] if name.endswith(suffixes)]
            if len(files) >= count and all((out / name).is_file() for name in files):
                finished[line.number] = entry | {"line": line.number}
    return finished


def _write_index(out: Path, entries: list[dict[str, Any]]) -> None:
    """Replace the index by these entries, without those of earlier runs."""
    part = out / f"{INDEX}.part"
    part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    part.replace(out / INDEX)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Create the folder and lock it, so that one process writes to it."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CollectError(f"Another batch is already writing to {out}.") from None
    finally:
        os.close(descriptor)


class _Collector:
    """One run: submit batches, follow their events, download finished traces."""

    def __init__(self, remote: Remote, out: Path, layouts: str | None, index: Any, bar: _ProgressBar) -> None:
        self.remote, self.out, self.layouts, self.index, self.bar = remote, out, layouts, index, bar
        self.entries: dict[int, dict[str, Any]] = {}
        self.ended = 0
        self.lock = threading.Lock()  # for the index and the bar

    def run(self, lines: list[Line]) -> dict[int, dict[str, Any]]:
        """Return the entries of the index by line number."""
        pool = ThreadPoolExecutor(_DOWNLOADS)
        try:
            with self.bar.bar:
                for batch in _batches(lines):
                    self._run_batch(batch, pool)
        finally:
            pool.shutdown(cancel_futures=True)
        return self.entries

    def _run_batch(self, lines: list[Line], pool: ThreadPoolExecutor) -> None:
        """Submit one batch and download each of its traces when it has ended."""
        try:
            body = b"\n".join(line.text for line in lines)
            batch = self.remote.json("/v1/batches", body, "application/x-ndjson")
        except ProblemError as error:
            raise CollectError(_describe_errors(error, lines)) from None
        waiting: dict[str, list[Line]] = {}
        for line, trace in zip(lines, batch["traces"], strict=True):
            waiting.setdefault(trace["id"], []).append(line)
        downloads: set[Future[None]] = set()
        for name, data in self.remote.events(f"/v1/batches/{batch['id']}/events"):
            ended = waiting.pop(data["id"], None) if name == "trace" else None
            if ended:
                downloads.add(pool.submit(self._download_trace, data["id"], data["status"], ended))
            downloads = _wait_until(downloads, _MAX_WAITING)
        # The stream may have ended without an event for some of them.
        for trace in self.remote.json(f"/v1/batches/{batch['id']}")["traces"] if waiting else []:
            if trace["id"] in waiting:
                downloads.add(pool.submit(self._download_trace, trace["id"], trace["status"], waiting.pop(trace["id"])))
        _wait_until(downloads, 0)

    def _download_trace(self, id: str, status: str, lines: list[Line]) -> None:
        """Download the files of a trace that has ended, and record it in the index."""
        files, reason = [], None
        try:
            if status == "done":
                files.append(self._download(f"/v1/traces/{id}/safetensors", f"{id}.safetensors", SAFETENSORS))
                if self.layouts:
                    path = self.remote.json(f"/v1/traces/{id}")["layout"]
                    name = f"{path.rpartition('/')[2]}.layout.{self.layouts}"
                    files.append(self._download(path, name, LAYOUTS[self.layouts]))
            else:
                reason = self.remote.json(f"/v1/traces/{id}").get("error", {}).get("detail", f"The trace is {status}.")
        except RemoteError as error:
            status, reason = "failed", str(error)
        with self.lock:
            self._record(lines, id, status, files, reason)

    def _record(self, lines: list[Line], id: str, status: str, files: list[str], reason: str | None) -> None:
        for line in lines:
            entry = {"line": line.number, "request": line.digest, "id": id, "status": status, "files": files}
            self.entries[line.number] = entry | ({"reason": reason} if reason else {})
            self.index.write(json.dumps(self.entries[line.number]) + "\n")
        self.index.flush()
        self.ended += len(lines)
        self.bar(len(lines))

    def _download(self, path: str, name: str, media_type: str) -> str:
        """Download a file unless it exists, and return its name; it gets the name only when it is complete."""
        target = self.out / name
        if not target.exists():
            self.remote.download(path, media_type, target)
        return name


def _wait_until(downloads: set[Future[None]], most: int) -> set[Future[None]]:
    """Wait until at most `most` are still running, and return those. Raises what any of them raised."""
    ended = {future for future in downloads if future.done()}
    while len(downloads) - len(ended) > most:
        ended |= wait(downloads - ended, return_when=FIRST_COMPLETED).done
    for future in ended:
        future.result()
    return downloads - ended


def _batches(lines: list[Line]) -> Iterator[list[Line]]:
    """Split the lines into batches that the service accepts."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == MAX_REQUESTS or size + len(line.text) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.text) + 1
    if batch:
        yield batch


def _describe_errors(error: ProblemError, lines: list[Line]) -> str:
    """Return the errors of the fields by line of the file."""
    errors = []
    for field, texts in error.errors.items():
        _, _, path = field.partition("requests.")
        number, _, rest = path.partition(".")
        where = f"line {lines[int(number)].number}" + (f", {rest}" if rest else "") if number.isdigit() else field
        errors.append(f"{where}: {' '.join(texts)}")
    return "\n".join(["The service rejected the batch:", *errors]) if errors else str(error)


class _ProgressBar:
    """A progress bar on standard error. The rate and the time left count only this run's requests."""

    def __init__(self, count: int, done_before: int, label: str) -> None:
        self.count, self.left, self.ended, self.started = count, count - done_before, 0, time.monotonic()
        self.bar: Any = click.progressbar(
            length=count,
            label=label,
            file=sys.stderr,
            show_eta=False,
            show_pos=True,
            item_show_func=lambda _: self._text(),
            update_min_steps=max(1, count // 1000),
        )
        self.bar.update(done_before)

    def __call__(self, count: int) -> None:
        self.ended += count
        self.bar.update(count)

    def _text(self) -> str:
        if not self.ended:
            return ""
        rate = self.ended / max(time.monotonic() - self.started, 1e-3)
        minutes, seconds = divmod(round((self.left - self.ended) / rate), 60)
        return f"{rate:.0f}/s, {minutes}:{seconds:02} left"
