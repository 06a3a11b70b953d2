"""The reader of checkpoints, in this process and in a real worker."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import worker.reader as reader
import worker.store.digests as store
import worker.weights.digests as digests
from tests.checkpoints import SMALL, values, write, write_sparse
from tests.conftest import Servers, running_worker
from tests.processes import eventually
from worker.families.gpt2 import GPT2Config as Config
from worker.store.connection import connect
from worker.store.digests import CheckpointFile, State

#: 105 MB, more than digests.SMALL.
LARGE = Config(n_layer=1, n_head=1, n_embd=256, n_positions=8, vocab_size=100_000)


@pytest.fixture
def queue(idle_servers: Servers) -> Any:
    return connect(idle_servers.queue_url)


def file_of(folder: Path, name: str = "model.safetensors") -> CheckpointFile:
    stamp = digests.stamp(folder / name)
    assert stamp is not None
    return CheckpointFile(folder.name, name, stamp)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_stores_the_digest_of_a_file_and_remembers_it_on_disk(
    queue: Any, folder: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, values(SMALL))
    for _ in range(2):
        found = reader.read(queue, str(folder.parent), file_of(folder))
        assert found == store.find(queue, file_of(folder)) == State(sha256=sha256(folder / "model.safetensors"))
    assert reads == [folder / "model.safetensors"]


def test_it_reports_how_much_of_a_slow_file_is_read(queue: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, values(SMALL))
    size, seen = file_of(folder).stamp.size, list[State | None]()
    original = store.put

    def recorded(queue: Any, file: CheckpointFile, state: State) -> State | None:
        seen.append(state)
        return original(queue, file, state)

    monkeypatch.setattr(digests, "_BLOCK", -(-size // 4))
    monkeypatch.setattr(reader, "_INTERVAL", 0.0)
    monkeypatch.setattr(store, "put", recorded)
    reader.read(queue, str(folder.parent), file_of(folder))
    done = [state.done for state in seen[:-1] if state]
    assert done == [min(n * -(-size // 4), size) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("change", ["another version", "missing", "a link out of the folder", "a folder above"])
def test_it_refuses_a_file_that_it_does_not_have(queue: Any, folder: Path, change: str) -> None:
    write(folder, values(SMALL))
    file = file_of(folder)
    if change == "another version":
        file = replace(file, stamp=file.stamp._replace(inode=file.stamp.inode + 1))
    elif change == "missing":
        (folder / file.name).unlink()
    elif change == "a link out of the folder":
        (folder / file.name).unlink()
        (folder / file.name).symlink_to("/etc/hostname")
    else:
        file = replace(file, folder="..", name="secret/model.safetensors")
    assert reader.read(queue, str(folder.parent), file).refused
    assert store.find(queue, file) != State()


def test_a_worker_reads_what_is_requested_and_its_reader_is_replaced_if_it_dies(
    idle_servers: Servers, queue: Any, folder: Path
) -> None:
    write_sparse(folder, LARGE)
    file = file_of(folder)
    with running_worker(replace(idle_servers, models_dir=str(folder.parent))) as worker:
        before = worker.children()
        assert len(before) == 3  # for small jobs, large jobs and checkpoints
        before[-1].kill()
        eventually(lambda: len(worker.children()) == 3 and before[-1] not in worker.children())
        store.request(queue, file)
        found = eventually(lambda: (state := store.find(queue, file)) and state.sha256)
        assert found == sha256(folder / file.name)


def test_two_workers_read_a_file_once(idle_servers: Servers, queue: Any, folder: Path) -> None:
    write_sparse(folder, LARGE)
    servers = replace(idle_servers, models_dir=str(folder.parent))
    with running_worker(servers, "small"), running_worker(servers, "large"):
        store.request(queue, file_of(folder))
        eventually(lambda: (state := store.find(queue, file_of(folder))) and state.sha256)
    record = json.loads((folder / ".model.safetensors.sha256.json").read_bytes())
    assert record["sha256"] == sha256(folder / "model.safetensors")
    assert queue.zcard("digests:wanted") == 0


def test_without_a_models_folder_there_is_no_reader(idle_servers: Servers) -> None:
    assert os.path.basename(idle_servers.models_dir) == ""
    with running_worker(idle_servers) as worker:
        assert len(worker.children()) == 2
