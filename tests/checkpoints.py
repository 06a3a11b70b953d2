"""Folders as Hugging Face writes them, made here without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
#: No size equals another; an untied head and a width of the heads that GPT-2's format has no word for, on top.
SMALL = Config(n_layer=2, n_head=3, n_embd=24, n_inner=40, n_positions=9, vocab_size=17)
UNTIED = Config(**(SMALL.to_mapping() | {"tie_word_embeddings": False, "d_head": 5}))


def values(config: Config, seed: int = 0) -> Tensors:
    """Random tensors, float32, of all that a file of this model holds: a tied head is not in it."""
    random = np.random.default_rng(seed)
    shapes = dict(catalogue(config))
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return {name: random.normal(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}


def prefixed(tensors: Tensors) -> Tensors:
    """The names of a model with a head: all but the head's begin with `transformer.`."""
    return {name if name.startswith("lm_head") else f"transformer.{name}": array for name, array in tensors.items()}


def bfloat16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """The upper halves of float32 values: bfloat16, rounded toward zero."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def of_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 values from their upper halves."""
    return np.stack([np.zeros_like(halves), halves], -1).view(np.float32)[..., 0]


def raw(path: Path, tensors: Tensors, *, pad: int = 0, **said: Any) -> None:
    """A safetensors file by hand: uint16 is said to be bfloat16, `said` is said in the header besides."""
    names = {"float32": "F32", "float16": "F16", "uint16": "BF16", "float64": "F64", "int32": "I32"}
    header: dict[str, Any] = {}
    offset = 0
    for name, array in tensors.items():
        offsets = [offset, offset := offset + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header | said).encode()
    text += b" " * (-len(text) % 8 + pad)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))


def write_config(folder: Path, config: Config = SMALL, **said: Any) -> None:
    """config.json alone; what is said as None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]} | config.to_mapping()
    if config.d_head * config.n_head == config.n_embd:
        del told["d_head"]
    told = {name: value for name, value in (told | said).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(told))


def write(folder: Path, tensors: Tensors | None = None, config: Config = SMALL, **said: Any) -> Tensors:
    """A folder with one file of float32 (or whatever the tensors are); returns them."""
    tensors = values(config) if tensors is None else tensors
    write_config(folder, config, **said)
    if any(array.dtype == np.uint16 for array in tensors.values()):
        raw(folder / "model.safetensors", tensors)
    else:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def write_shards(folder: Path, tensors: Tensors, config: Config = SMALL, count: int = 3) -> Mapping[str, str]:
    """A folder with an index and some files; returns which tensor is in which."""
    write_config(folder, config)
    where = {name: f"model-{at % count + 1:05}-of-{count:05}.safetensors" for at, name in enumerate(tensors)}
    for file in set(where.values()):
        save_file({name: array for name, array in tensors.items() if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": sum(array.nbytes for array in tensors.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return where


def loaded(folder: Path) -> Checkpoint:
    """The checkpoint in a folder."""
    return load(folder.name, str(folder.parent))


def assert_holds(found: Checkpoint, wanted: Tensors) -> None:
    """The weights are `wanted` (float32), a tied head the embedding."""
    weights = found.weights()
    if describe(found.config).weights[-1].alias_of:
        wanted = wanted | {"lm_head.weight": wanted["wte.weight"]}
    assert set(wanted) == set(catalogue(found.config))
    for name, array in wanted.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name, strict=True)
