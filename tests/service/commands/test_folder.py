"""The folder of a downloaded model: its record, conflicts, damage and locking."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from tests.hub import (
    COMMIT,
    CONFIG,
    REPO,
    SECONDS,
    WANTED,
    WEIGHTS,
    WHOLE,
    Run,
    Start,
    StubHub,
    content,
    error_line,
    finish,
)


def test_origin_and_digests_are_recorded(models: Path, run: Run) -> None:
    run(REPO)

    record = json.loads((models / "gpt2" / ".fetched.json").read_text())
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    files = {"model.safetensors": {"size": len(WEIGHTS), "sha256": digest}}
    assert record == {"repo": REPO, "revision": "main", "commit": COMMIT, "files": files}


def test_a_second_fetch_sends_no_request(hub: StubHub, models: Path, run: Run) -> None:
    run(REPO)
    hub.requests.clear()
    for again in (run(REPO), run(REPO, "--revision", COMMIT)):
        assert (again.exit_code, again.output) == (0, f"{models}/gpt2 is already complete: {REPO} at 607a30d\n")
    assert hub.requests == []


def test_an_empty_folder_is_replaced(models: Path, run: Run) -> None:
    (models / "gpt2").mkdir(parents=True)
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_an_existing_folder_is_not_changed(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos["me/gpt2"] = WHOLE
    run(REPO)
    hub.requests.clear()
    remedy = "use another --name, or remove it first."
    other = f"{models}/gpt2 already exists with {REPO} at main (607a30d): {remedy}"
    foreign = "already exists and was not created by `cutaway fetch`"
    assert error_line(run("me/gpt2")) == other
    assert error_line(run(REPO, "--revision", "refs/pr/1")) == other
    (models / "mine").mkdir()
    (models / "mine" / "config.json").write_bytes(CONFIG)
    assert error_line(run(REPO, "--name", "mine")) == f"{models}/mine {foreign}: {remedy}"
    (models / "file").write_text("")
    assert error_line(run(REPO, "--name", "file")) == f"{models}/file {foreign}: {remedy}"
    assert hub.requests == []


def test_a_damaged_model_is_reported(models: Path, run: Run) -> None:
    run(REPO)
    (models / "gpt2" / "model.safetensors").write_bytes(b"")
    line = f"{models}/gpt2 is damaged: model.safetensors is missing or has the wrong size. Remove the folder first."
    assert error_line(run(REPO)) == line


def test_a_second_fetch_into_the_same_folder_is_an_error(hub: StubHub, models: Path, start: Start, run: Run) -> None:
    hub.stops_at = 1_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    assert error_line(run(REPO)) == f"Another fetch is already writing to {models}/gpt2."
    hub.go_on.set()
    assert finish(process)[0] == 0
    assert content(models / "gpt2") == WANTED


def test_a_folder_created_during_the_download_is_not_changed(hub: StubHub, models: Path, start: Start) -> None:
    hub.stops_at = 1_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    (models / "gpt2").mkdir()
    (models / "gpt2" / "config.json").write_bytes(b"mine")
    hub.go_on.set()
    status, _, errors = finish(process)
    assert status == 1
    assert errors.splitlines()[-1].startswith(f"Error: {models}/gpt2 already exists and was created during")
    assert content(models / "gpt2") == {"config.json": b"mine"}

    shutil.rmtree(models / "gpt2")
    assert finish(start(REPO))[0] == 0
    assert len(hub.downloads()) == 1
    assert content(models / "gpt2") == WANTED


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    line = error_line(run(REPO, MODELS_DIR=str(tmp_path / "file")))
    assert line == f"{tmp_path}/file/.fetching/gpt2: Not a directory"
