"""Files that break off, stop, or are not what the hub states."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub import (
    REPO,
    SECONDS,
    WANTED,
    WEIGHTS,
    Run,
    Start,
    StubHub,
    content,
    ends,
    last_words,
)


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A terminal, and what was written to it."""
    ours, theirs = pty.openpty()
    written = b""

    def read() -> None:
        nonlocal written
        try:
            while piece := os.read(ours, 1 << 16):
                written += piece
        except OSError:
            pass  # its other side is closed

    reader = threading.Thread(target=read)
    reader.start()

    def all_of_it() -> str:
        os.close(theirs)
        reader.join(SECONDS)
        return written.decode()

    yield theirs, all_of_it
    os.close(ours)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_was_stopped_goes_on_where_it_was(
    hub: StubHub, models: Path, start: Start, number: signal.Signals
) -> None:
    hub.stops_at = 2_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    (folder,) = (models / ".fetching").iterdir()
    (part,) = folder.iterdir()
    deadline = time.monotonic() + SECONDS
    while part.stat().st_size < 1_900_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.listdir(models) == [".fetching"]

    process.send_signal(number)
    status, printed, said = ends(process)
    held = part.stat().st_size
    hub.go_on.set()

    assert printed == ""
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert status == 130
        assert said.splitlines()[-1] == "Stopped. 2.0 MB of 3.0 MB are here; the same command goes on from there."
    assert ends(start(REPO))[0] == 0
    again = hub.downloads()[1:]
    assert [(asked.range, asked.sent) for asked in again] == [(f"bytes={held}-", len(WEIGHTS) - held)]
    assert os.listdir(models) == ["gpt2"]
    assert content(models / "gpt2") == WANTED


def test_a_connection_that_breaks_is_taken_up_again(hub: StubHub, models: Path, run: Run) -> None:
    hub.breaks_at = [1_000_000, 2_500_000]
    assert run(REPO).exit_code == 0
    assert [asked.range for asked in hub.downloads()] == [None, "bytes=1000000-", "bytes=2500000-"]
    assert content(models / "gpt2") == WANTED


def test_a_hub_without_ranges_gives_the_file_anew(hub: StubHub, models: Path, run: Run) -> None:
    hub.ranges, hub.breaks_at = False, [1_000_000]
    assert run(REPO).exit_code == 0
    assert [asked.sent for asked in hub.downloads()] == [1_000_000, len(WEIGHTS)]
    assert content(models / "gpt2") == WANTED


def test_a_hub_that_goes_away_leaves_what_came(
    hub: StubHub, models: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.breaks_at = [1_000_000] + [0] * 50
    kept = "1.0 MB of 3.0 MB are here; the same command goes on from there."
    assert last_words(run(REPO)) == f"{hub.url} broke off in model.safetensors. {kept}"
    hub.refuses["/storage/"] = (503, "")
    assert last_words(run(REPO)) == f"{hub.url} answers 503 Service Unavailable. {kept}"
    assert os.listdir(models) == [".fetching"]
    hub.refuses.clear()
    hub.breaks_at.clear()
    assert run(REPO).exit_code == 0
    assert hub.downloads()[-1].range == "bytes=1000000-"


@pytest.mark.parametrize(
    "stated",
    [
        (len(WEIGHTS), "0" * 64),
        (len(WEIGHTS) - 1, hashlib.sha256(WEIGHTS).hexdigest()),
        (len(WEIGHTS) - 1, "not a digest"),
    ],
)
def test_what_is_not_what_the_hub_states_is_refused_and_deleted(
    hub: StubHub, models: Path, run: Run, stated: tuple[int, str]
) -> None:
    hub.stated["model.safetensors"] = stated
    line = f"model.safetensors is not what {hub.url} says it is, by its size or SHA-256; it is deleted."
    assert last_words(run(REPO)) == line
    assert [file.stat().st_size for file in models.rglob("*") if file.is_file()] in ([], [0])
    hub.stated.clear()
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_beginning_that_was_spoilt_meanwhile_is_noticed(hub: StubHub, models: Path, run: Run) -> None:
    staged = models / ".fetching" / "gpt2"
    staged.mkdir(parents=True)
    (staged / f"model.safetensors.{hashlib.sha256(WEIGHTS).hexdigest()}").write_bytes(b"spoilt")
    assert "SHA-256" in last_words(run(REPO))
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_hub_that_states_no_checksum_is_believed_the_size(hub: StubHub, models: Path, run: Run) -> None:
    hub.stated["model.safetensors"] = (len(WEIGHTS), "W/none")
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_file_that_cannot_be_written_is_one_line_and_goes_on_later(hub: StubHub, models: Path, start: Start) -> None:
    status, printed, said = ends(start(REPO, limit=2_000_000))
    assert (status, printed) == (1, "")
    kept = "2.0 MB of 3.0 MB are here; the same command goes on from there."
    assert said.splitlines()[1:] == [f"Error: {models}/.fetching/gpt2: File too large. {kept}"]
    assert ends(start(REPO))[0] == 0
    assert hub.downloads()[-1].range == "bytes=2000000-"
    assert content(models / "gpt2") == WANTED


def test_a_terminal_sees_a_bar(hub: StubHub, models: Path, variables: dict[str, str]) -> None:
    hub.breaks_at = [1_000_000]
    with terminal() as (file, written):
        subprocess.run(
            [sys.executable, "-m", "service", "fetch", REPO],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=file,
            check=True,
            timeout=SECONDS,
        )
        drawn = written().replace("\r\n", "\n").split("\r")
    assert any("1.0 MB, " in line for line in drawn)
    assert "100%  3.0 MB, " in drawn[-1]
