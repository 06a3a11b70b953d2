"""Checkpoint folders in Hugging Face's format, written without its library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe
from worker.models.checkpoints import Checkpoint, load
from worker.models.sources import catalogue

Tensors = dict[str, NDArray[Any]]
#: All sizes differ. UNTIED also has an untied head, and a head width that GPT-2's format cannot express.
SMALL = Config(n_layer=2, n_head=3, n_embd=24, n_inner=40, n_positions=9, vocab_size=17)
UNTIED = Config(**(SMALL.to_mapping() | {"tie_word_embeddings": False, "d_head": 5}))


def values(config: Config, seed: int = 0) -> Tensors:
    """Return random float32 tensors for a model's file, which does not contain a tied head."""
    random = np.random.default_rng(seed)
    shapes = dict(catalogue(config))
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return {name: random.normal(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}


def prefixed(tensors: Tensors) -> Tensors:
    """Return tensors named as in a model with a head: all but the head's with the prefix `transformer.`."""
    return {name if name.startswith("lm_head") else f"transformer.{name}": array for name, array in tensors.items()}


def bfloat16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Return float32 values as bfloat16, rounded toward zero."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 values as float32."""
    return np.stack([np.zeros_like(halves), halves], -1).view(np.float32)[..., 0]


def write_raw(path: Path, tensors: Tensors, *, pad: int = 0, **entries: Any) -> None:
    """Write a safetensors file byte by byte: uint16 as bfloat16, with `entries` added to its header."""
    names = {"float32": "F32", "float16": "F16", "uint16": "BF16", "float64": "F64", "int32": "I32"}
    header: dict[str, Any] = {}
    offset = 0
    for name, array in tensors.items():
        offsets = [offset, offset := offset + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header | entries).encode()
    text += b" " * (-len(text) % 8 + pad)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))


def write_config(folder: Path, config: Config = SMALL, **changes: Any) -> None:
    """Write a config.json with changed fields; a field changed to None is omitted."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]} | config.to_mapping()
    if config.d_head * config.n_head == config.n_embd:
        del fields["d_head"]
    fields = {name: value for name, value in (fields | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(fields))


def write(folder: Path, tensors: Tensors | None = None, config: Config = SMALL, **changes: Any) -> Tensors:
    """Write a checkpoint with one file of tensors, by default random float32; return the tensors."""
    tensors = values(config) if tensors is None else tensors
    write_config(folder, config, **changes)
    if any(array.dtype == np.uint16 for array in tensors.values()):
        write_raw(folder / "model.safetensors", tensors)
    else:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def write_sparse(folder: Path, config: Config) -> int:
    """Write a checkpoint of zeros that takes no room on the disk; return the size of its file."""
    write_config(folder, config)
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in catalogue(config).items():
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            offsets = [offset, offset := offset + 4 * prod(shape)]
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        return file.truncate(8 + len(text) + offset)


def write_shards(folder: Path, tensors: Tensors, config: Config = SMALL, count: int = 3) -> Mapping[str, str]:
    """Write a checkpoint with an index and `count` files; return the file of each tensor."""
    write_config(folder, config)
    where = {name: f"model-{at % count + 1:05}-of-{count:05}.safetensors" for at, name in enumerate(tensors)}
    for file in set(where.values()):
        save_file({name: array for name, array in tensors.items() if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": sum(array.nbytes for array in tensors.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return where


def loaded(folder: Path) -> Checkpoint:
    """Load the checkpoint in a folder."""
    return load(folder.name, str(folder.parent))


def assert_holds(found: Checkpoint, wanted: Tensors) -> None:
    """Assert that the weights are `wanted` (float32), and a tied head the embedding."""
    weights = found.weights()
    if describe(found.config).weights[-1].alias_of:
        wanted = wanted | {"lm_head.weight": wanted["wte.weight"]}
    assert set(wanted) == set(catalogue(found.config))
    for name, array in wanted.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name, strict=True)
