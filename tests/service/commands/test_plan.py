"""Which files of a repository are downloaded."""

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
    error_line,
    only,
)
from worker.families.registry import FAMILIES


def test_shards_are_downloaded_with_their_index(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos[REPO] = SHARDED
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == only(" ".join(("config.json model.safetensors.index.json", *SHARDS)), SHARDED)


def test_one_file_is_preferred_to_shards(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos[REPO] = SHARDED | WHOLE
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_the_tokenizer_and_the_chat_template_are_downloaded(hub: StubHub, models: Path, run: Run) -> None:
    names = (
        "tokenizer.json tokenizer_config.json special_tokens_map.json chat_template.jinja chat_template.json "
        "generation_config.json"
    )
    files = {name: f"the {name}".encode() for name in names.split()}
    hub.repos[REPO] = WHOLE | files | {"vocab.json": b"{}", "onnx/tokenizer.json": b"{}"}
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == only(f"config.json model.safetensors {names}", WHOLE | files)


def test_an_oversized_tokenizer_is_not_downloaded(
    hub: StubHub, models: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.commands.plan.SMALL", 100)
    hub.repos[REPO] = WHOLE | {"tokenizer.json": bytes(101)}
    assert error_line(run(REPO)) == "tokenizer.json must be at most 100 bytes, not 101."
    assert hub.downloads() == []


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (OTHERS, "is not a checkpoint: it has no config.json."),
        ({"config.json": CONFIG} | OTHERS, "has no model.safetensors; other formats are not supported."),
        (
            WHOLE | {"config.json": b'{"model_type": "rnn"}'},
            f"has model_type 'rnn', which must be one of {', '.join(FAMILIES)}.",
        ),
        (WHOLE | {"config.json": b"[]"}, "is not a checkpoint: its config.json is not a JSON object."),
        (WHOLE | {"config.json": b"\xff"}, "is not a checkpoint: its config.json is not a JSON object."),
        (
            {k: v for k, v in SHARDED.items() if "00002-of" not in k},
            "is incomplete: model.safetensors.index.json names "
            "'model-00002-of-00002.safetensors', which is not a file of it.",
        ),
        (
            SHARDED | {"model.safetensors.index.json": b'{"weight_map": {"wte.weight": "../gpt2/pytorch_model.bin"}}'},
            "is incomplete: model.safetensors.index.json names '../gpt2/pytorch_model.bin', which is not a file of it.",
        ),
        (
            SHARDED | {"model.safetensors.index.json": b'{"weight_map": {}}'},
            "is incomplete: model.safetensors.index.json names no file.",
        ),
    ],
)
def test_other_repositories_are_not_downloaded(
    hub: StubHub, models: Path, run: Run, files: dict[str, bytes], line: str
) -> None:
    hub.repos[REPO] = files
    assert error_line(run(REPO)) == f"{REPO} {line}"
    assert not models.exists()
    assert hub.downloads() == []
