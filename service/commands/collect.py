"""`cutaway batch`: have a file of requests computed by a Cutaway, and collect what becomes of them in a folder.

The folder's index.jsonl has a line for each that has ended. A file has its name only when it is whole, so whatever is
there when the command is given again is neither computed nor downloaded again.
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

from service.commands.remote import Refused, Remote, RemoteError

INDEX = "index.jsonl"
MOST = 10_000  # requests that the service takes in one batch
MOST_BYTES = 4 << 20  # in one batch
SAFETENSORS = "application/x-safetensors"
LAYOUTS = {"glb": "model/gltf-binary", "safetensors": SAFETENSORS}
_AT_ONCE = 4  # downloads
_WAITING = 64  # traces that have ended and wait to be downloaded: the stream of events waits, too


class CollectError(Exception):
    """It cannot be done; the message is for the user."""


class Stopped(Exception):
    """The user stopped it; the message is one line for the user."""


@dataclass(frozen=True)
class Line:
    """A request by its number in the file, from 1."""

    number: int
    text: bytes

    @property
    def digest(self) -> str:
        """What the request is known by in the index: the lines of the file may move."""
        return hashlib.sha256(json.dumps(json.loads(self.text), sort_keys=True).encode()).hexdigest()


def collect(
    file: Path, out: Path, url: str, layouts: str | None = None, api_key: str | None = None
) -> tuple[str, list[str]]:
    """Have every request of `file` computed, and its files brought to `out`. What is there now as a line for the user,
    and a line for each that failed. Raises CollectError, RemoteError and Stopped.
    """
    try:
        lines = _lines(file)
        with _own(out):
            for part in out.glob("*.part"):  # a crash cut these off
                part.unlink()
            known = _known(out, lines, layouts)
            missing = [line for line in lines if line.number not in known]
            here = len(lines) - len(missing)
            with (out / INDEX).open("a") as index:
                bar = _Bar(len(lines), here, f"{file} into {out}")
                collector = _Collector(Remote(url, api_key), out, layouts, index, bar)
                try:
                    known |= collector.run(missing)
                except KeyboardInterrupt:
                    kept = f"{here + collector.ended} of {len(lines)} are here"
                    raise Stopped(f"Stopped. {kept}; the same command goes on from there.") from None
            _rewrite(out, [known[line.number] for line in lines])
    except OSError as error:
        raise CollectError(f"{error.filename or out}: {error.strerror or error}") from None
    failed = [entry for entry in known.values() if entry["status"] != "done"]
    said = f"{out}: {len(lines) - len(failed)} of {len(lines)} requests are done ({here} were before)"
    return said, [f"line {entry['line']}: {entry['status']}: {entry['reason']}" for entry in failed]


def _lines(file: Path) -> list[Line]:
    lines = [Line(n, text) for n, text in enumerate(file.read_bytes().splitlines(), start=1) if text.strip()]
    for line in lines:
        try:
            json.loads(line.text)
        except ValueError as error:
            raise CollectError(f"{file}, line {line.number}: it is not JSON: {error}") from None
    if not lines:
        raise CollectError(f"{file} is empty: a request a line is expected.")
    return lines


def _known(out: Path, lines: list[Line], layouts: str | None) -> dict[int, dict[str, Any]]:
    """What an earlier run has finished, by the lines as they are now."""
    if not (out / INDEX).exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for text in (out / INDEX).read_text().splitlines():
        try:
            entry = json.loads(text)
            found[entry["request"]] = entry
        except (ValueError, LookupError, TypeError):
            continue  # the process was killed as it wrote this
    wanted = 2 if layouts else 1
    known = {}
    for line in lines:
        entry = found.get(line.digest)
        if entry and entry["status"] == "done" and len(entry["files"]) >= wanted:
            suffixes = (".safetensors", f".layout.{layouts}")[:wanted]
            files = [name for name in entry["files"] if name.endswith(suffixes)]
            if len(files) >= wanted and all((out / name).is_file() for name in files):
                known[line.number] = entry | {"line": line.number}
    return known


def _rewrite(out: Path, entries: list[dict[str, Any]]) -> None:
    """The index in the order of the lines, without what was said before."""
    part = out / f"{INDEX}.part"
    part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    part.replace(out / INDEX)


@contextmanager
def _own(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    held = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CollectError(f"Another batch into {out} is under way.") from None
    finally:
        os.close(held)


class _Collector:
    """One run: batches asked for, watched, and what has ended brought here."""

    def __init__(self, remote: Remote, out: Path, layouts: str | None, index: Any, bar: _Bar) -> None:
        self.remote, self.out, self.layouts, self.index, self.bar = remote, out, layouts, index, bar
        self.entries: dict[int, dict[str, Any]] = {}
        self.ended = 0
        self.one_at_a_time = threading.Lock()  # at the index and the bar

    def run(self, lines: list[Line]) -> dict[int, dict[str, Any]]:
        """The index's entries by the lines' numbers."""
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            with self.bar.bar:
                for portion in _portions(lines):
                    self._batch(portion, pool)
        finally:
            pool.shutdown(cancel_futures=True)
        return self.entries

    def _batch(self, lines: list[Line], pool: ThreadPoolExecutor) -> None:
        try:
            body = b"\n".join(line.text for line in lines)
            batch = self.remote.json("/v1/batches", body, "application/x-ndjson")
        except Refused as error:
            raise CollectError(_refusal(error, lines)) from None
        at: dict[str, list[Line]] = {}
        for line, trace in zip(lines, batch["traces"], strict=True):
            at.setdefault(trace["id"], []).append(line)
        under_way: set[Future[None]] = set()
        for name, data in self.remote.events(f"/v1/batches/{batch['id']}/events"):
            same = at.pop(data["id"], None) if name == "trace" else None
            if same:
                under_way.add(pool.submit(self._take, data["id"], data["status"], same))
            under_way = _settled(under_way, _WAITING)
        for trace in self.remote.json(f"/v1/batches/{batch['id']}")["traces"] if at else []:  # it was not told of
            if trace["id"] in at:
                under_way.add(pool.submit(self._take, trace["id"], trace["status"], at.pop(trace["id"])))
        _settled(under_way, 0)

    def _take(self, id: str, status: str, lines: list[Line]) -> None:
        """Bring the files of a trace that has ended, and note it in the index."""
        files, reason = [], None
        try:
            if status == "done":
                files.append(self._bring(f"/v1/traces/{id}/safetensors", f"{id}.safetensors", SAFETENSORS))
                if self.layouts:
                    path = self.remote.json(f"/v1/traces/{id}")["layout"]
                    name = f"{path.rpartition('/')[2]}.layout.{self.layouts}"
                    files.append(self._bring(path, name, LAYOUTS[self.layouts]))
            else:
                reason = self.remote.json(f"/v1/traces/{id}").get("error", {}).get("detail", f"It was {status}.")
        except RemoteError as error:
            status, reason = "failed", str(error)
        with self.one_at_a_time:
            self._note(lines, id, status, files, reason)

    def _note(self, lines: list[Line], id: str, status: str, files: list[str], reason: str | None) -> None:
        for line in lines:
            entry = {"line": line.number, "request": line.digest, "id": id, "status": status, "files": files}
            self.entries[line.number] = entry | ({"reason": reason} if reason else {})
            self.index.write(json.dumps(self.entries[line.number]) + "\n")
        self.index.flush()
        self.ended += len(lines)
        self.bar(len(lines))

    def _bring(self, path: str, name: str, media_type: str) -> str:
        """A file, under its name only when it is whole; one that is here is whole."""
        target = self.out / name
        if not target.exists():
            part = self.out / f"{name}.{time.monotonic_ns()}.part"  # two traces may have one layout
            part.write_bytes(self.remote.read(path, media_type))
            part.replace(target)
        return name


def _settled(under_way: set[Future[None]], most: int) -> set[Future[None]]:
    """Those that are still under way, once they are at most `most`. Raises what any of them raised."""
    ended = {future for future in under_way if future.done()}
    while len(under_way) - len(ended) > most:
        ended |= wait(under_way - ended, return_when=FIRST_COMPLETED).done
    for future in ended:
        future.result()
    return under_way - ended


def _portions(lines: list[Line]) -> Iterator[list[Line]]:
    portion: list[Line] = []
    size = 0
    for line in lines:
        if portion and (len(portion) == MOST or size + len(line.text) > MOST_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(line)
        size += len(line.text) + 1
    if portion:
        yield portion


def _refusal(error: Refused, lines: list[Line]) -> str:
    """What is wrong with which lines of the file."""
    said = []
    for field, texts in error.errors.items():
        _, _, path = field.partition("requests.")
        number, _, rest = path.partition(".")
        where = f"line {lines[int(number)].number}" + (f", {rest}" if rest else "") if number.isdigit() else field
        said.append(f"{where}: {' '.join(texts)}")
    return "\n".join(["Nothing was asked for:", *said]) if said else str(error)


class _Bar:
    """A bar on standard error. Rate and time left are of what came in this run, and not of what was here before."""

    def __init__(self, count: int, here: int, label: str) -> None:
        self.count, self.left, self.came, self.started = count, count - here, 0, time.monotonic()
        self.bar: Any = click.progressbar(
            length=count,
            label=label,
            file=sys.stderr,
            show_eta=False,
            show_pos=True,
            item_show_func=lambda _: self._text(),
            update_min_steps=max(1, count // 1000),
        )
        self.bar.update(here)

    def __call__(self, count: int) -> None:
        self.came += count
        self.bar.update(count)

    def _text(self) -> str:
        if not self.came:
            return ""
        rate = self.came / max(time.monotonic() - self.started, 1e-3)
        minutes, seconds = divmod(round((self.left - self.came) / rate), 60)
        return f"{rate:.0f}/s, {minutes}:{seconds:02} left"
