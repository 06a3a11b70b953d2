"""Full disks: requests are rejected with 503 until there is room again."""

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
from tests.processes import Body, Response, Stack, eventually
from worker.store.connection import connect


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 2 MB."""
    with tempfile.TemporaryDirectory(prefix="ct-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small file system cannot be mounted: that needs root, and permission in a container")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a disk to the last byte for the duration of the block."""
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


def rejection(response: Response) -> Response | None:
    """The response if it is an error.

    Until Redis notices that the disk is full, it accepts writes, which it tries to write to the disk each second.
    """
    return response if response.status >= 300 else None


def test_a_full_disk_is_503_until_there_is_room(disk: Path, slow_body: Body, request_body: Body) -> None:
    stack = Stack(disk)
    try:
        queue: Any = connect(stack.servers.queue_url)
        with stack.api() as api, stack.workers(1):
            running = api.submit(slow_body)
            api.wait_for_progress(running)
            with full(disk):
                rejected = eventually(lambda: rejection(api.request("POST", "/v1/traces", request_body)))
                assert rejected is not None
                assert (rejected.status, rejected.headers["Content-Type"]) == (503, "application/problem+json")
                assert int(rejected.headers["Retry-After"]) > 0
                assert api.request("GET", "/healthz").status == 200
                assert api.request("GET", "/readyz").status == 503
            assert api.wait(running)["status"] == "done"
            eventually(lambda: not rejection(api.request("POST", "/v1/traces", request_body)))  # Redis has noticed
            assert api.wait(api.submit(request_body))["status"] == "done"
            assert queue.info("persistence")["aof_last_write_status"] == "ok"
    finally:
        stack.stop()


def test_the_service_works_without_room_for_temporary_files(
    disk: Path, stack: Stack, tmp_path: Path, request_body: Body
) -> None:
    models = tmp_path / "models"
    write(models / "mine", values(SMALL))
    models.joinpath("mine").chmod(0o555)
    stack.servers = replace(stack.servers, models_dir=str(models))
    with stack.api(TMPDIR=str(disk)) as api, stack.workers(1), full(disk):
        [server] = api.process.children()
        for path in ("/v1/models/mine", "/metrics", "/v1/models/mine/tensors/wte.weight", "/v1/traces", "/docs"):
            assert api.request("GET", path).status == 200, path
        assert api.wait(api.submit({"model": "mine", "tokens": [1, 2]}))["status"] == "done"
        assert api.wait(api.submit(request_body))["status"] == "done"
        assert api.process.children() == [server]
