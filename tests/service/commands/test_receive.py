"""Interrupted downloads resume, and files are verified."""

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
    finish,
    last_error,
)


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A pseudo-terminal, and a function that closes it and returns what was written to it."""
    reading, writing = pty.openpty()
    written = b""

    def read() -> None:
        nonlocal written
        try:
            while piece := os.read(reading, 1 << 16):
                written += piece
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()

    def all_output() -> str:
        os.close(writing)
        reader.join(SECONDS)
        return written.decode()

    yield writing, all_output
    os.close(reading)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_download_resumes_where_it_ended(
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
    status, output, errors = finish(process)
    downloaded = part.stat().st_size
    hub.go_on.set()

    assert output == ""
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert status == 130
        assert (
            errors.splitlines()[-1] == "Stopped. 2.0 MB of 3.0 MB are downloaded; run the same command again to resume."
        )
    assert finish(start(REPO))[0] == 0
    again = hub.downloads()[1:]
    assert [(request.range, request.sent) for request in again] == [(f"bytes={downloaded}-", len(WEIGHTS) - downloaded)]
    assert os.listdir(models) == ["gpt2"]
    assert content(models / "gpt2") == WANTED


def test_a_broken_connection_is_retried(hub: StubHub, models: Path, run: Run) -> None:
    hub.breaks_at = [1_000_000, 2_500_000]
    assert run(REPO).exit_code == 0
    assert [request.range for request in hub.downloads()] == [None, "bytes=1000000-", "bytes=2500000-"]
    assert content(models / "gpt2") == WANTED


def test_a_hub_without_ranges_sends_the_file_again(hub: StubHub, models: Path, run: Run) -> None:
    hub.ranges, hub.breaks_at = False, [1_000_000]
    assert run(REPO).exit_code == 0
    assert [request.sent for request in hub.downloads()] == [1_000_000, len(WEIGHTS)]
    assert content(models / "gpt2") == WANTED


def test_a_partial_download_survives_a_failing_hub(
    hub: StubHub, models: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.breaks_at = [1_000_000] + [0] * 50
    progress = "1.0 MB of 3.0 MB are downloaded; run the same command again to resume."
    assert last_error(run(REPO)) == f"{hub.url} closed the connection during model.safetensors. {progress}"
    hub.refuses["/storage/"] = (503, "")
    assert last_error(run(REPO)) == f"{hub.url} returned 503 Service Unavailable. {progress}"
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
def test_a_file_with_another_size_or_digest_is_deleted(
    hub: StubHub, models: Path, run: Run, stated: tuple[int, str]
) -> None:
    hub.stated["model.safetensors"] = stated
    line = f"model.safetensors does not have the size or SHA-256 from {hub.url}; it is deleted."
    assert last_error(run(REPO)) == line
    assert [file.stat().st_size for file in models.rglob("*") if file.is_file()] in ([], [0])
    hub.stated.clear()
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_corrupt_partial_download_is_detected(hub: StubHub, models: Path, run: Run) -> None:
    staged = models / ".fetching" / "gpt2"
    staged.mkdir(parents=True)
    (staged / f"model.safetensors.{hashlib.sha256(WEIGHTS).hexdigest()}").write_bytes(b"corrupt")
    assert "SHA-256" in last_error(run(REPO))
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_without_a_digest_only_the_size_is_checked(hub: StubHub, models: Path, run: Run) -> None:
    hub.stated["model.safetensors"] = (len(WEIGHTS), "W/none")
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_write_error_is_reported_in_one_line_and_the_download_resumes(
    hub: StubHub, models: Path, start: Start
) -> None:
    status, output, errors = finish(start(REPO, limit=2_000_000))
    assert (status, output) == (1, "")
    progress = "2.0 MB of 3.0 MB are downloaded; run the same command again to resume."
    assert errors.splitlines()[1:] == [f"Error: {models}/.fetching/gpt2: File too large. {progress}"]
    assert finish(start(REPO))[0] == 0
    assert hub.downloads()[-1].range == "bytes=2000000-"
    assert content(models / "gpt2") == WANTED


def test_a_terminal_shows_a_progress_bar(hub: StubHub, models: Path, variables: dict[str, str]) -> None:
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
