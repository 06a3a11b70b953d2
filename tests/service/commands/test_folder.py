"""A model's folder: taken, recorded, lost, and one fetch's at a time."""

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
    ends,
    refused,
)


def test_what_came_from_where_is_recorded(models: Path, run: Run) -> None:
    run(REPO)

    record = json.loads((models / "gpt2" / ".fetched.json").read_text())
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    files = {"model.safetensors": {"size": len(WEIGHTS), "sha256": digest}}
    assert record == {"repo": REPO, "revision": "main", "commit": COMMIT, "files": files}


def test_a_second_fetch_asks_nobody(hub: StubHub, models: Path, run: Run) -> None:
    run(REPO)
    hub.asked.clear()
    for again in (run(REPO), run(REPO, "--revision", COMMIT)):
        assert (again.exit_code, again.output) == (0, f"{models}/gpt2 is complete already: {REPO} at 607a30d\n")
    assert hub.asked == []


def test_an_empty_folder_is_as_good_as_none(models: Path, run: Run) -> None:
    (models / "gpt2").mkdir(parents=True)
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_name_that_is_taken_stays_as_it_is(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos["me/gpt2"] = WHOLE
    run(REPO)
    hub.asked.clear()
    remedy = "give another --name, or remove it first."
    held = f"{models}/gpt2 is taken by {REPO} at main (607a30d): {remedy}"
    assert refused(run("me/gpt2")) == held
    assert refused(run(REPO, "--revision", "refs/pr/1")) == held
    (models / "mine").mkdir()
    (models / "mine" / "config.json").write_bytes(CONFIG)
    assert refused(run(REPO, "--name", "mine")) == f"{models}/mine is taken by something that was not fetched: {remedy}"
    (models / "file").write_text("")
    assert refused(run(REPO, "--name", "file")) == f"{models}/file is taken by something that was not fetched: {remedy}"
    assert hub.asked == []


def test_a_model_that_has_lost_a_file_is_not_called_complete(models: Path, run: Run) -> None:
    run(REPO)
    (models / "gpt2" / "model.safetensors").write_bytes(b"")
    line = f"{models}/gpt2 is not whole any more: model.safetensors is missing or cut. Remove it first."
    assert refused(run(REPO)) == line


def test_two_fetches_of_a_name_do_not_meet(hub: StubHub, models: Path, start: Start, run: Run) -> None:
    hub.stops_at = 1_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    assert refused(run(REPO)) == f"Another fetch into {models}/gpt2 is under way."
    hub.go_on.set()
    assert ends(process)[0] == 0
    assert content(models / "gpt2") == WANTED


def test_a_name_that_is_taken_meanwhile_stays_as_it_is(hub: StubHub, models: Path, start: Start) -> None:
    hub.stops_at = 1_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    (models / "gpt2").mkdir()
    (models / "gpt2" / "config.json").write_bytes(b"mine")
    hub.go_on.set()
    status, _, said = ends(process)
    assert status == 1
    assert said.splitlines()[-1].startswith(f"Error: {models}/gpt2 is taken by something that came while")
    assert content(models / "gpt2") == {"config.json": b"mine"}

    shutil.rmtree(models / "gpt2")
    assert ends(start(REPO))[0] == 0
    assert len(hub.downloads()) == 1
    assert content(models / "gpt2") == WANTED


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    line = refused(run(REPO, MODELS_DIR=str(tmp_path / "file")))
    assert line == f"{tmp_path}/file/.fetching/gpt2: Not a directory"
