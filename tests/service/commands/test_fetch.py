"""`cutaway fetch` against a stub hub on loopback."""

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
    error_line,
    finish,
)

REMEDY = "set HF_TOKEN to the token of an account with access."
INFO, RESOLVE = f"/api/models/{REPO}", f"/{REPO}/resolve"


def test_only_the_checkpoint_is_downloaded(hub: StubHub, models: Path, run: Run) -> None:
    result = run(REPO)

    assert (result.exit_code, result.stdout) == (0, f"{models}/gpt2 is complete: {REPO} at 607a30d, 3.0 MB\n")
    assert os.listdir(models) == ["gpt2"]
    assert content(models / "gpt2") == WANTED
    assert not [request.path for request in hub.requests if any(name in request.path for name in OTHERS)]


def test_revision_and_name_can_be_chosen(hub: StubHub, models: Path, run: Run) -> None:
    assert run(REPO, "--revision", "refs/pr/1", "--name", "tried").exit_code == 0
    assert hub.requests[0].path == f"/api/models/{REPO}/revision/refs/pr/1"
    assert {request.path.split("/")[4] for request in hub.requests if "/resolve/" in request.path} == {COMMIT}
    assert os.listdir(models) == ["tried"]


def test_the_token_is_sent_to_the_hub_only(hub: StubHub, run: Run) -> None:
    run(REPO, **{"HF_TOKEN": "a token"})
    assert {(request.host.partition(":")[0], request.token) for request in hub.requests} == {
        ("127.0.0.1", "Bearer a token"),
        ("localhost", None),
    }


def test_a_complete_shard_is_not_downloaded_again(hub: StubHub, models: Path, start: Start) -> None:
    hub.repos[REPO] = SHARDED
    first, second = SHARDS
    assert finish(start(REPO))[0] == 0
    shutil.move(models / "gpt2", models / "before")
    hub.requests.clear()

    staged = models / ".fetching" / "gpt2"
    staged.mkdir(parents=True)
    shutil.copy(models / "before" / first, staged / f"{first}.{hashlib.sha256(SHARDS[first]).hexdigest()}")
    (staged / f"{second}.of-another-commit").write_bytes(b"old")

    assert finish(start(REPO))[0] == 0
    assert [request.path for request in hub.downloads()] == [f"/storage/{second}"]
    assert content(models / "gpt2") == content(models / "before")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nobody/nothing"], f"nobody/nothing does not exist on HUB; if it is private, {REMEDY}"),
        ([REPO, "--revision", "v9"], f"{REPO} has no revision 'v9'."),
        (["../gpt2"], "Invalid repository '../gpt2': use a name such as openai-community/gpt2."),
        (["a/b/c"], "Invalid repository 'a/b/c': use a name such as openai-community/gpt2."),
        (
            ["https://huggingface.co/gpt2"],
            "Invalid repository 'https://huggingface.co/gpt2': use a name such as openai-community/gpt2.",
        ),
        ([""], "Invalid repository '': use a name such as openai-community/gpt2."),
        (
            [REPO, "--name", "../gpt2"],
            "Invalid folder name '../gpt2': use letters, digits and '_', with '-' and '.' only inside.",
        ),
        (
            [REPO, "--name", ".fetching"],
            "Invalid folder name '.fetching': use letters, digits and '_', with '-' and '.' only inside.",
        ),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    hub: StubHub, models: Path, run: Run, words: list[str], line: str
) -> None:
    assert error_line(run(*words)).replace(hub.url, "HUB") == line
    assert not models.exists()


@pytest.mark.parametrize(
    ("path", "status", "code", "line"),
    [
        (RESOLVE, 403, "GatedRepo", f"{REPO} is gated: accept its terms at HUB/{REPO}, then {REMEDY}"),
        (RESOLVE, 401, "GatedRepo", f"{REPO} is gated: accept its terms at HUB/{REPO}, then {REMEDY}"),
        (INFO, 401, "", f"HUB denies access to {REPO} (401): {REMEDY}"),
        (INFO, 403, "", f"HUB denies access to {REPO} (403): {REMEDY}"),
        (INFO, 404, "", f"{REPO} does not exist on HUB; if it is private, {REMEDY}"),
        (INFO, 429, "", "HUB returned 429 Too Many Requests."),
        (INFO, 500, "", "HUB returned 500 Internal Server Error."),
        (RESOLVE, 404, "EntryNotFound", "HUB returned 404 Not Found."),
        (INFO, 200, "", "HUB does not respond like a Hugging Face hub."),
    ],
)
def test_errors_of_the_hub_are_reported_in_one_line(
    hub: StubHub, models: Path, run: Run, path: str, status: int, code: str, line: str
) -> None:
    hub.refuses[path] = (status, code)
    assert error_line(run(REPO)).replace(hub.url, "HUB") == line
    assert not models.exists()


@pytest.mark.parametrize("endpoint", ["hub.example.com", "file:///etc", "http://"])
def test_the_endpoint_must_be_an_http_url(run: Run, endpoint: str) -> None:
    line = f"HF_ENDPOINT must be a URL such as https://huggingface.co, not {endpoint!r}."
    assert error_line(run(REPO, HF_ENDPOINT=endpoint)) == line


def test_an_unreachable_hub_is_reported(start: Start, variables: dict[str, str]) -> None:
    variables["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert finish(start(REPO)) == (1, "", "Error: http://127.0.0.1:9 cannot be reached: Connection refused.\n")


def test_a_download_larger_than_the_free_space_is_not_started(hub: StubHub, models: Path, run: Run) -> None:
    hub.stated["model.safetensors"] = (10**18, "0" * 64)
    line = error_line(run(REPO))
    assert line.startswith(f"The download needs 1000000000.0 GB, but {models} has ")
    assert hub.downloads() == []
    assert list(models.iterdir()) == []


def test_the_service_does_not_import_it() -> None:
    source = "import service.app, sys; service.app.create_app(); sys.exit('service.commands.fetch' in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)
