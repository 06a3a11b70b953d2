"""What of a repository is fetched: a GPT-2 checkpoint in safetensors, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub import (
    CONFIG,
    OTHERS,
    REPO,
    SHARDED,
    SHARDS,
    WANTED,
    WHOLE,
    Run,
    StubHub,
    content,
    only,
    refused,
)


def test_shards_come_with_their_index(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos[REPO] = SHARDED
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == only(" ".join(("config.json model.safetensors.index.json", *SHARDS)), SHARDED)


def test_one_file_is_preferred_to_shards(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos[REPO] = SHARDED | WHOLE
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (OTHERS, "is no checkpoint: it has no config.json."),
        ({"config.json": CONFIG} | OTHERS, "has no model.safetensors; other formats are not read."),
        (
            WHOLE | {"config.json": b'{"model_type": "bert"}'},
            "is of the type 'bert': those that are read are gpt2, llama.",
        ),
        (WHOLE | {"config.json": b"[]"}, "is no checkpoint: its config.json holds no JSON object."),
        (WHOLE | {"config.json": b"\xff"}, "is no checkpoint: its config.json holds no JSON object."),
        (
            {k: v for k, v in SHARDED.items() if "00002-of" not in k},
            "is not whole: model.safetensors.index.json names 'model-00002-of-00002.safetensors'.",
        ),
        (
            SHARDED | {"model.safetensors.index.json": b'{"weight_map": {"wte.weight": "../gpt2/pytorch_model.bin"}}'},
            "is not whole: model.safetensors.index.json names '../gpt2/pytorch_model.bin'.",
        ),
        (
            SHARDED | {"model.safetensors.index.json": b'{"weight_map": {}}'},
            "is not whole: model.safetensors.index.json names no file.",
        ),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_not_fetched(
    hub: StubHub, models: Path, run: Run, files: dict[str, bytes], line: str
) -> None:
    hub.repos[REPO] = files
    assert refused(run(REPO)) == f"{REPO} {line}"
    assert not models.exists()
    assert hub.downloads() == []
