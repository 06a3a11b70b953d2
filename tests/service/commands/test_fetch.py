"""`cutaway fetch` against a hub on loopback that answers, and fails, as the real one does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import (
    COMMIT,
    OTHERS,
    REPO,
    SHARDED,
    SHARDS,
    WANTED,
    Run,
    Start,
    StubHub,
    content,
    ends,
    refused,
)

ASK = "set HF_TOKEN to the token of an account that may read it."
INFO, RESOLVE = f"/api/models/{REPO}", f"/{REPO}/resolve"


def test_a_checkpoint_comes_whole_and_nothing_else_with_it(hub: StubHub, models: Path, run: Run) -> None:
    result = run(REPO)

    assert (result.exit_code, result.stdout) == (0, f"{models}/gpt2 is complete: {REPO} at 607a30d, 3.0 MB\n")
    assert os.listdir(models) == ["gpt2"]
    assert content(models / "gpt2") == WANTED
    assert not [asked.path for asked in hub.asked if any(name in asked.path for name in OTHERS)]


def test_a_revision_and_a_name(hub: StubHub, models: Path, run: Run) -> None:
    assert run(REPO, "--revision", "refs/pr/1", "--name", "tried").exit_code == 0
    assert hub.asked[0].path == f"/api/models/{REPO}/revision/refs/pr/1"
    assert {asked.path.split("/")[4] for asked in hub.asked if "/resolve/" in asked.path} == {COMMIT}
    assert os.listdir(models) == ["tried"]


def test_only_the_hub_is_told_who_asks(hub: StubHub, run: Run) -> None:
    run(REPO, **{"HF_TOKEN": "a token"})
    assert {(asked.host.partition(":")[0], asked.token) for asked in hub.asked} == {
        ("127.0.0.1", "Bearer a token"),
        ("localhost", None),
    }


def test_a_shard_that_is_here_is_not_asked_for_again(hub: StubHub, models: Path, start: Start) -> None:
    hub.repos[REPO] = SHARDED
    first, second = SHARDS
    assert ends(start(REPO))[0] == 0
    shutil.move(models / "gpt2", models / "before")
    hub.asked.clear()

    staged = models / ".fetching" / "gpt2"
    staged.mkdir(parents=True)
    shutil.copy(models / "before" / first, staged / f"{first}.{hashlib.sha256(SHARDS[first]).hexdigest()}")
    (staged / f"{second}.of-another-commit").write_bytes(b"old")

    assert ends(start(REPO))[0] == 0
    assert [asked.path for asked in hub.downloads()] == [f"/storage/{second}"]
    assert content(models / "gpt2") == content(models / "before")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nobody/nothing"], f"HUB has no nobody/nothing; if it is private, {ASK}"),
        ([REPO, "--revision", "v9"], f"{REPO} has no revision 'v9'."),
        (["../gpt2"], "'../gpt2' is no repository: one is called like openai-community/gpt2."),
        (["a/b/c"], "'a/b/c' is no repository: one is called like openai-community/gpt2."),
        (
            ["https://huggingface.co/gpt2"],
            "'https://huggingface.co/gpt2' is no repository: one is called like openai-community/gpt2.",
        ),
        ([""], "'' is no repository: one is called like openai-community/gpt2."),
        (
            [REPO, "--name", "../gpt2"],
            "'../gpt2' cannot be the name of a model's folder: letters, digits, '-', '_' and '.' can.",
        ),
        (
            [REPO, "--name", ".fetching"],
            "'.fetching' cannot be the name of a model's folder: letters, digits, '-', '_' and '.' can.",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_line(
    hub: StubHub, models: Path, run: Run, words: list[str], line: str
) -> None:
    assert refused(run(*words)).replace(hub.url, "HUB") == line
    assert not models.exists()


@pytest.mark.parametrize(
    ("path", "status", "code", "line"),
    [
        (RESOLVE, 403, "GatedRepo", f"{REPO} is gated: accept its terms at HUB/{REPO}, then {ASK}"),
        (RESOLVE, 401, "GatedRepo", f"{REPO} is gated: accept its terms at HUB/{REPO}, then {ASK}"),
        (INFO, 401, "", f"HUB does not give {REPO} (401): if it is there, {ASK}"),
        (INFO, 403, "", f"HUB does not give {REPO} (403): if it is there, {ASK}"),
        (INFO, 404, "", f"HUB has no {REPO}; if it is private, {ASK}"),
        (INFO, 429, "", "HUB answers 429 Too Many Requests."),
        (INFO, 500, "", "HUB answers 500 Internal Server Error."),
        (RESOLVE, 404, "EntryNotFound", "HUB answers 404 Not Found."),
        (INFO, 200, "", "HUB does not answer as a Hugging Face hub does."),
    ],
)
def test_what_a_hub_refuses_is_said_in_a_line(
    hub: StubHub, models: Path, run: Run, path: str, status: int, code: str, line: str
) -> None:
    hub.refuses[path] = (status, code)
    assert refused(run(REPO)).replace(hub.url, "HUB") == line
    assert not models.exists()


@pytest.mark.parametrize("endpoint", ["hub.example.com", "file:///etc", "http://"])
def test_a_hub_is_an_address(run: Run, endpoint: str) -> None:
    line = f"HF_ENDPOINT={endpoint!r}: an address like https://huggingface.co is expected."
    assert refused(run(REPO, HF_ENDPOINT=endpoint)) == line


def test_without_a_network_it_says_so(start: Start, variables: dict[str, str]) -> None:
    variables["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert ends(start(REPO)) == (1, "", "Error: http://127.0.0.1:9 cannot be reached: Connection refused.\n")


def test_what_the_disk_has_no_room_for_is_not_begun(hub: StubHub, models: Path, run: Run) -> None:
    hub.stated["model.safetensors"] = (10**18, "0" * 64)
    line = refused(run(REPO))
    assert line.startswith(f"1000000000.0 GB are to come, and {models} has room for ")
    assert hub.downloads() == []
    assert list(models.iterdir()) == []


def test_the_service_starts_without_it() -> None:
    source = "import service.app, sys; service.app.create_app(); sys.exit('service.commands.fetch' in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)
