"""Checkpoints: reading, configuration, digests and changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.checkpoints import (
    SMALL,
    UNTIED,
    Tensors,
    assert_holds,
    bfloat16,
    from_bfloat16,
    loaded,
    prefixed,
    values,
    write,
    write_config,
    write_shards,
)  # fmt: skip
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt2 import forward
from worker.models.checkpoints import CheckpointError, read_config
from worker.trace.arena import Arena, plan
from worker.weights.base import CachedWeights, Weights
from worker.weights.digests import ChangedError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

pytestmark = pytest.mark.usefixtures("temporary")


# ---------------------------------------------------------------------------------------------------- the format


@pytest.mark.parametrize("config", [SMALL, UNTIED], ids=["tied", "untied, a d_head of its own"])
@pytest.mark.parametrize("prefix", [False, True], ids=["bare names", "transformer."])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_folder_of_the_format_is_read(folder: Path, config: Config, prefix: bool, dtype: str) -> None:
    stored = values(config)
    if dtype == "F16":
        stored = {name: array.astype(np.float16) for name, array in stored.items()}
    if dtype == "BF16":
        stored = {name: bfloat16(array) for name, array in stored.items()}
    write(folder, prefixed(stored) if prefix else stored, config)
    meant = {name: from_bfloat16(a) if dtype == "BF16" else a.astype(np.float32) for name, a in stored.items()}
    found = loaded(folder)
    assert found.config == config == read_config("mine", str(folder.parent))
    assert_holds(found, meant)
    assert {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype] in found.note


def test_tensors_may_have_different_types(folder: Path) -> None:
    stored = values(SMALL)
    halves = {name: array.astype(np.float16) if name.startswith("h.") else array for name, array in stored.items()}
    write(folder, halves)
    assert_holds(loaded(folder), {name: array.astype(np.float32) for name, array in halves.items()})


def test_shards_are_one_model(folder: Path) -> None:
    stored = values(UNTIED)
    write_shards(folder, prefixed(stored), UNTIED)
    assert_holds(loaded(folder), stored)


def test_a_single_file_takes_precedence_over_an_index(folder: Path) -> None:
    write_shards(folder, values(SMALL, 1))
    stored = write(folder)
    assert_holds(loaded(folder), stored)


@pytest.mark.parametrize("prefix", [False, True], ids=["bare names", "transformer."])
def test_other_tensors_and_files_are_ignored(folder: Path, prefix: bool) -> None:
    stored = values(SMALL)
    masks: Tensors = {f"h.{n}.attn.bias": np.tri(9, dtype=np.float32).reshape(1, 1, 9, 9) for n in range(2)}
    masks |= {f"h.{n}.attn.masked_bias": np.array(-1e4, np.float64) for n in range(2)} | {"score": np.ones((2, 2))}
    write(folder, prefixed(stored | masks) if prefix else stored | masks)
    for other in ("tokenizer.json", "pytorch_model.bin", "rust_model.ot"):
        (folder / other).write_bytes(b"not looked at")
    assert_holds(loaded(folder), stored)


@pytest.mark.parametrize("kept", ["wte.weight", "lm_head.weight", "both"])
def test_a_tied_head_may_be_stored_in_either_place(folder: Path, kept: str) -> None:
    stored = values(SMALL)
    table = stored.pop("wte.weight")
    names = ["wte.weight", "lm_head.weight"] if kept == "both" else [kept]
    write(folder, stored | {name: table.copy() for name in names})
    assert_holds(loaded(folder), stored | {"wte.weight": table})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"n_inner": None}, {"n_inner": 96}),
        ({"activation_function": "relu"}, {"activation_function": "relu"}),
        ({"activation_function": "gelu"}, {"activation_function": "gelu"}),
        ({"activation_function": "silu"}, {"activation_function": "silu"}),
        ({"activation_function": "swish"}, {"activation_function": "silu"}),
        ({"activation_function": "gelu_pytorch_tanh"}, {"activation_function": "gelu_new"}),
        ({"activation_function": "gelu_python_tanh"}, {"activation_function": "gelu_new"}),
        ({"activation_function": "gelu_fast"}, {"activation_function": "gelu_new"}),
        ({"activation_function": "gelu_accurate"}, {"activation_function": "gelu_new"}),
        ({"activation_function": "gelu_python"}, {"activation_function": "gelu"}),
        ({"layer_norm_epsilon": 0.03}, {"layer_norm_epsilon": 0.03}),
        ({"n_embd": None, "hidden_size": 24, "n_layer": None, "num_hidden_layers": 2}, {}),
        ({"tie_word_embeddings": None, "model_type": None, "layer_norm_epsilon": None}, {}),
        ({"scale_attn_weights": True, "reorder_and_upcast_attn": False, "n_ctx": 3, "dtype": "float16"}, {}),
    ],
    ids=str,
)
def test_the_configuration_is_read_as_by_hugging_face(
    folder: Path, said: dict[str, Any], meant: dict[str, Any]
) -> None:
    config = Config(**(SMALL.to_mapping() | meant))
    write(folder, values(config), config, **said)
    assert loaded(folder).config == config


def test_a_float64_checkpoint_computes_as_its_values_in_float32(folder: Path) -> None:
    stored = {name: array.astype(np.float64) / 3 for name, array in values(UNTIED).items()}
    write(folder, stored, UNTIED)
    found = loaded(folder)
    assert_holds(found, {name: array.astype(np.float32) for name, array in stored.items()})
    assert found.note == "From the checkpoint in the folder 'mine': float64, converted to float32 when read."


@pytest.mark.parametrize("held", [False, True], ids=["as it is read", "held"])
def test_a_16_bit_checkpoint_computes_as_its_values_in_float32(folder: Path, held: bool) -> None:
    stored = {name: bfloat16(array) for name, array in values(UNTIED).items()}
    write(folder, stored, UNTIED)

    def run(weights: Weights) -> Arena:
        arena = Arena(plan(UNTIED, 5))
        arena["tokens"][...] = [3, 1, 4, 1, 5]
        forward(UNTIED, Engine(weights), arena, slice(0, 5))
        return arena

    weights = loaded(folder).weights()
    found = run(CachedWeights(weights) if held else weights)
    wanted = run(CachedWeights({name: from_bfloat16(array) for name, array in stored.items()}))
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


# ----------------------------------------------------------------------------------------------------- the digest


def test_an_unchanged_checkpoint_is_opened_and_read_once(folder: Path, reads: list[Path]) -> None:
    write(folder)
    first = loaded(folder)
    assert [loaded(folder).digest for _ in range(3)] == [first.digest] * 3
    assert loaded(folder) is first
    assert reads == [folder / WEIGHTS]


def test_equal_folders_have_equal_digests(folder: Path) -> None:
    for name in ("mine", "yours"):
        write(folder.parent / name)
        (folder.parent / name / "README.md").write_text(name)
    assert loaded(folder).digest == loaded(folder.parent / "yours").digest


def other_values(folder: Path) -> None:
    write(folder, values(SMALL, 1))


def replaced(folder: Path) -> None:
    save_file(values(SMALL, 1), folder / "new")
    (folder / "new").replace(folder / WEIGHTS)


def other_arithmetic(folder: Path) -> None:
    write_config(folder, layer_norm_epsilon=1e-3)


@pytest.mark.parametrize("change", [other_values, replaced, other_arithmetic])
def test_a_changed_checkpoint_has_another_digest(folder: Path, change: Callable[[Path], object]) -> None:
    write(folder)
    before = loaded(folder)
    first = before.digest
    change(folder)
    assert not before.is_unchanged()
    assert loaded(folder).digest != first
    assert loaded(folder).is_unchanged()


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", INDEX])
def test_every_shard_affects_the_digest(folder: Path, name: str) -> None:
    write_shards(folder, values(SMALL))
    first = loaded(folder).digest
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content + b" " if name == INDEX else content[:-1] + bytes([content[-1] ^ 1]))
    assert loaded(folder).digest != first
    (folder / name).write_bytes(content)
    assert loaded(folder).digest == first


def test_other_files_do_not_affect_the_digest(folder: Path, reads: list[Path]) -> None:
    write(folder)
    first = loaded(folder).digest
    write_config(folder, resid_pdrop=0.3, transformers_version="5.0")
    (folder / "tokenizer.json").write_text("{}")
    assert loaded(folder).digest == first
    assert reads == [folder / WEIGHTS]


def test_an_open_checkpoint_that_is_replaced_is_read_no_more_but_keeps_its_values_if_it_is_mapped(folder: Path) -> None:
    stored = write(folder)
    before = loaded(folder)
    mapped = before.mapped_weights()
    replaced(folder)
    for name, array in stored.items():
        np.testing.assert_array_equal(mapped[name], array)
        with pytest.raises(ChangedError, match=r"model\.safetensors changed while it was read"):
            before.weights().read(name, (0,))
    with pytest.raises(CheckpointError, match="cannot be used"):
        before.mapped_weights()
    with pytest.raises(CheckpointError, match="changed while it was read: try again"):
        _ = before.digest


def test_a_repaired_checkpoint_can_be_used(folder: Path) -> None:
    write(folder)
    os.truncate(folder / WEIGHTS, 999)
    with pytest.raises(CheckpointError, match="is truncated"):
        loaded(folder)
    stored = write(folder)
    assert_holds(loaded(folder), stored)


def test_a_deleted_checkpoint_is_released(folder: Path) -> None:
    write(folder)
    write(folder.parent / "yours")
    loaded(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        loaded(folder)
    assert loaded(folder.parent / "yours").is_unchanged()
