"""Disks that are full: what cannot be written down is refused, and all goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import SMALL, values, write
from tests.processes import Answer, Body, Stack, eventually
from worker.store.connection import connect


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk."""
    with tempfile.TemporaryDirectory(prefix="ct-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("only root may mount a small disk, and not everywhere")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Without room for a byte, for a time."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 8, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    yield
    filling.unlink()


def refused(answer: Answer) -> Answer | None:
    """A refusal. Before Redis notices, it accepts, and tries each second to write down what it has accepted."""
    return answer if answer.status >= 300 else None


def test_what_cannot_be_written_down_is_503_until_there_is_room(disk: Path, seconds: Body, request_body: Body) -> None:
    stack = Stack(disk)
    try:
        queue: Any = connect(stack.servers.queue_url)
        with stack.api() as api, stack.workers(1):
            running = api.trace(seconds)
            api.progressed(running)
            with full(disk):
                heard = eventually(lambda: refused(api.ask("POST", "/v1/traces", request_body)))
                assert heard is not None
                assert (heard.status, heard.headers["Content-Type"]) == (503, "application/problem+json")
                assert int(heard.headers["Retry-After"]) > 0
                assert api.ask("GET", "/healthz").status == 200
                assert api.ask("GET", "/readyz").status == 503
            assert api.ended(running)["status"] == "done"
            eventually(lambda: not refused(api.ask("POST", "/v1/traces", request_body)))  # Redis has noticed
            assert api.ended(api.trace(request_body))["status"] == "done"
            assert queue.info("persistence")["aof_last_write_status"] == "ok"
    finally:
        stack.stop()


def test_everything_works_without_room_for_temporary_files(
    disk: Path, stack: Stack, tmp_path: Path, request_body: Body
) -> None:
    models = tmp_path / "models"
    write(models / "mine", values(SMALL))
    models.joinpath("mine").chmod(0o555)
    stack.servers = replace(stack.servers, models_dir=str(models))
    with stack.api(TMPDIR=str(disk)) as api, stack.workers(1), full(disk):
        [answering] = api.process.children()
        for path in ("/v1/models/mine", "/metrics", "/v1/models/mine/tensors/wte.weight", "/v1/traces", "/docs"):
            assert api.ask("GET", path).status == 200, path
        assert api.ended(api.trace({"model": "mine", "tokens": [1, 2]}))["status"] == "done"
        assert api.ended(api.trace(request_body))["status"] == "done"
        assert api.process.children() == [answering]
