"""Checkpoints that cannot be used: error messages, and no access outside the models folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import worker.weights.digests as digests
from tests.checkpoints import SMALL, Tensors, assert_holds, loaded, values, write, write_config, write_raw, write_shards
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import FAMILIES
from worker.models.checkpoints import CheckpointError, load, names

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        loaded(folder)
    assert str(error.value).startswith("The checkpoint in the folder 'mine' cannot be used: ")
    assert str(folder.parent.parent) not in str(error.value)  # absolute paths are not disclosed
    assert len(str(error.value)) < 400
    return str(error.value).partition("used: ")[2]


# ---------------------------------------------------------------------------------------------------- the folders


def test_names_are_the_folders(models_dir: Path) -> None:
    for name in ("b", "a", "with space", ".hidden", "not\nprintable"):
        (models_dir / name).mkdir()
    (models_dir / "a file").touch()
    os.mkdir(bytes(models_dir) + b"/\xff")  # no name in UTF-8
    assert names(str(models_dir)) == ["a", "b", "with space"]


@pytest.mark.parametrize("there", ["", "nowhere", "file"])
def test_a_missing_models_folder_has_no_models(tmp_path: Path, there: str) -> None:
    (tmp_path / "file").touch()
    assert names(there and str(tmp_path / there)) == []


def test_links_within_the_models_folder_are_followed(folder: Path) -> None:
    """As in the Hub's cache, whose folders have links to files named by digest."""
    stored = write(folder.parent / "blobs")
    folder.mkdir()
    for name in ("config.json", WEIGHTS):
        (folder / name).symlink_to(Path("..") / "blobs" / name)
    (folder.parent / "alias").symlink_to("mine")
    assert_holds(loaded(folder), stored)
    assert_holds(load("alias", str(folder.parent)), stored)


def test_the_models_folder_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    stored = write(folder)
    (tmp_path / "link").symlink_to(folder.parent)
    assert_holds(load("mine", str(tmp_path / "link")), stored)


@pytest.mark.parametrize("what", ["the folder", "config.json", WEIGHTS])
def test_a_link_out_of_the_models_folder_is_rejected(folder: Path, what: str) -> None:
    secret = folder.parent.parent / "secret"
    if what == "the folder":
        folder.symlink_to(secret)
    else:
        write(folder)
        (folder / what).unlink()
        (folder / what).symlink_to(secret / what)
    assert "is a link out of the models folder" in refused(folder)
    assert "mine" in names(str(folder.parent))


@pytest.mark.parametrize(
    "path", ["../../secret/model.safetensors", "/etc/hostname", "../mine/../../secret/config.json"]
)
def test_an_index_out_of_the_models_folder_is_rejected(folder: Path, path: str) -> None:
    write_config(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(values(SMALL), path)}))
    assert "is a link out of the models folder" in refused(folder)


@pytest.mark.parametrize("id", ["../secret", "..", "mine/..", "/etc", ""])
def test_only_folder_names_are_ids(folder: Path, id: str) -> None:
    write(folder)
    assert id not in names(str(folder.parent))


# -------------------------------------------------------------------------------------------------- what is wrong

Break = Callable[[Path], object]


def config(**said: Any) -> Break:
    return lambda folder: write_config(folder, **said)


def tensors(change: Callable[[Tensors], object], config: Config = SMALL) -> Break:
    def apply(folder: Path) -> None:
        changed = values(config)
        change(changed)
        write_config(folder, config)
        write_raw(folder / WEIGHTS, changed)

    return apply


def text(name: str, content: str) -> Break:
    return lambda folder: (folder / name).write_text(content)


def shards(change: Callable[[Path], object], **index: Any) -> Break:
    def apply(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        write_shards(folder, values(SMALL))
        if index:
            (folder / INDEX).write_text(json.dumps(index))
        change(folder)

    return apply


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def moved_shard(folder: Path) -> None:
    save_file({"other": np.ones(1, np.float32)}, folder / "model-00002-of-00003.safetensors")


def in_place_of(name: str, make: Callable[[Path], object]) -> Break:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return apply


def deep(**fields: Any) -> Break:
    """config.json with lists nested 1,000 deep in place of each "@": neither repr() nor the JSON encoder takes them."""

    def apply(folder: Path) -> None:
        write_config(folder, **fields)
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"@"', "[" * 1000 + "]" * 1000))

    return apply


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 548105171\n"

BROKEN: dict[str, tuple[Break, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "config no JSON": (text("config.json", "{"), "config.json is not JSON: "),
    "config no object": (text("config.json", "[1]"), "config.json is not a JSON object"),
    "another architecture": (
        config(model_type="rnn"),
        f'has model_type: "rnn", and only {", ".join(FAMILIES)} are supported',
    ),
    "scaled by layer": (
        config(scale_attn_by_inverse_layer_idx=True),
        "scale_attn_by_inverse_layer_idx: true, and only",
    ),
    "upcast": (config(reorder_and_upcast_attn=True), "reorder_and_upcast_attn: true, and only false"),
    "not scaled": (config(scale_attn_weights=False), "scale_attn_weights: false, and only true"),
    "cross attention": (config(add_cross_attention=True), "add_cross_attention: true, and only false"),
    "an unknown function": (
        config(activation_function="mish"),
        "'mish' is not allowed: must be one of gelu_new",
    ),
    "no function at all": (config(activation_function=["relu"]), "['relu'] is not allowed: must be one of gelu_new"),
    "an impossible size": (config(n_head=7), "config.json: n_head: 7 is not allowed: must be a divisor of n_embd = 24"),
    "a size as text": (config(n_layer="2"), "config.json: n_layer: '2' is not allowed: must be a whole number from 1"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"it has neither {WEIGHTS} nor {INDEX}"),
    "a pickle": (pickled, "it has pytorch_model.bin and no model.safetensors: a pickle can run code"),
    "cut short": (cut, "model.safetensors is truncated: its tensors have"),
    "empty": (text(WEIGHTS, ""), "model.safetensors is truncated or not a safetensors file: it has 0 bytes"),
    "a web page": (text(WEIGHTS, "<!DOCTYPE html>" * 9), "model.safetensors is truncated or not a safetensors file"),
    "a tensor missing": (
        tensors(lambda t: t.pop("h.1.ln_2.bias")),
        "the tensor h.1.ln_2.bias is missing from model.safetensors",
    ),
    "tensors missing": (config(n_layer=3), "the tensors h.2.ln_1.weight and 11 more are missing from"),
    "thousands missing": (
        config(n_layer=10_000),
        "the tensors h.2.ln_1.weight and at least 119,975 more are missing from model.safetensors",
    ),
    "no head": (config(tie_word_embeddings=False), "the tensor lm_head.weight is missing from model.safetensors"),
    "another shape": (
        tensors(lambda t: t.update({"wpe.weight": np.ones((24, 9), np.float32)})),
        "the tensor wpe.weight has the shape [24, 9], but config.json requires [9, 24]",
    ),
    "another type": (
        tensors(lambda t: t.update({"ln_f.bias": np.ones(24, np.int32)})),
        "model.safetensors: the tensor ln_f.bias is I32: must be one of F64, F32, F16, BF16",
    ),
    "a Git LFS pointer": (
        text(WEIGHTS, POINTER),
        "model.safetensors is a Git LFS pointer, not the weights: run git lfs",
    ),
    "a pointer to config": (
        text("config.json", POINTER),
        "config.json is a Git LFS pointer, not the file: run git lfs",
    ),
    "a pointer to a shard": (
        shards(text("model-00002-of-00003.safetensors", POINTER)),
        "model-00002-of-00003.safetensors is a Git LFS pointer, not the weights",
    ),
    "a nested model_type": (deep(model_type="@"), "has model_type: [[[[...]]]], and only gpt2, llama, "),
    "a nested size": (deep(n_layer="@"), "config.json: n_layer: [[[[...]]]] is not allowed"),
    "a nested function": (deep(activation_function="@"), "activation_function: [[[[...]]]] is not allowed"),
    "a nested flag": (deep(scale_attn_weights="@"), "has scale_attn_weights: [[[[...]]]], and only true"),
    "nested beyond JSON": (text("config.json", "[" * 100_000), "config.json is not JSON: "),
    "a long value": (config(n_layer="9" * 900_000), "config.json: n_layer: '999"),
    "a long flag": (config(scale_attn_weights="9" * 900_000), 'has scale_attn_weights: "999'),
    "a config of 20 MB": (config(n_layer="9" * 20_000_000), "config.json is larger than 1,048,576 bytes"),
    "rotary positions in a list": (
        config(model_type="llama", rope_scaling=[1]),
        "has rope_scaling: [1], which must be",
    ),
    "nested rotary positions": (
        deep(model_type="llama", rope_scaling={"type": "@"}),
        "has rope_scaling: {'type': [[[...]]]}: rope_type [[[[...]]]] is not allowed: must be one of default, linear",
    ),
    "weights with 64 axes": (
        tensors(lambda t: t.update({"ln_f.bias": np.ones((24, *(1,) * 63), np.float32)})),
        "the tensor ln_f.bias has the shape [24, 1, 1",
    ),
    "a folder of weights": (in_place_of(WEIGHTS, Path.mkdir), "model.safetensors is not a regular file"),
    "a FIFO of weights": (in_place_of(WEIGHTS, os.mkfifo), "model.safetensors is not a regular file"),
    "a FIFO of config": (in_place_of("config.json", os.mkfifo), "config.json is not a regular file"),
    "tied, and not": (
        tensors(lambda t: t.update({"lm_head.weight": t["wte.weight"] + 1})),
        "config.json ties the head to wte.weight, but lm_head.weight differs from it",
    ),
    "a shard missing": (
        shards(lambda folder: (folder / "model-00002-of-00003.safetensors").unlink()),
        "it has no model-00002-of-00003.safetensors",
    ),
    "a shard cut short": (
        shards(lambda folder: os.truncate(folder / "model-00001-of-00003.safetensors", 99)),
        "model-00001-of-00003.safetensors is truncated",
    ),
    "a shard without its tensors": (shards(moved_shard), f"has no tensor wpe.weight, although {INDEX} lists it"),
    "an index no JSON": (shards(text(INDEX, "nonsense")), f"{INDEX} is not JSON"),
    "an index of nothing": (shards(lambda folder: None, weight_map={}), f"{INDEX} has no weight_map"),
    "an index of numbers": (shards(lambda folder: None, weight_map={"wte.weight": 1}), f"{INDEX} has no weight_map"),
    "an index to no name": (shards(lambda folder: None, weight_map={"wte.weight": "a\0b"}), "cannot be found"),
    "an index to a long name": (shards(lambda folder: None, weight_map={"wte.weight": "a" * 5000}), "cannot be found"),
    "an index to the folder": (shards(lambda folder: None, weight_map={"wte.weight": "."}), ". is not a regular file"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_error_names_the_problem(folder: Path, broken: str) -> None:
    write(folder)
    apply, said = BROKEN[broken]
    apply(folder)
    assert said in refused(folder)


def test_a_digest_is_not_read_from_a_fifo(folder: Path) -> None:
    write(folder)
    digest = loaded(folder).digest
    (folder / f".{WEIGHTS}.sha256.json").unlink()
    os.mkfifo(folder / f".{WEIGHTS}.sha256.json")
    digests._known.clear()  # as in a new process
    assert loaded(folder).digest == digest


def test_an_unexpected_error_is_a_problem_of_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    monkeypatch.setattr("worker.models.safetensors_files.StoredFile", lambda path: 1 / 0)
    assert refused(folder) == "it cannot be read (ZeroDivisionError)."


@pytest.mark.parametrize("target", ["nowhere", "mine", "../models/a file"])
def test_a_link_that_is_not_to_a_folder_is_rejected(folder: Path, target: str) -> None:
    (folder.parent / "a file").touch()
    folder.symlink_to(target)
    assert refused(folder)


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may read everything")
def test_an_unreadable_file_is_rejected(folder: Path) -> None:
    write(folder)
    (folder / WEIGHTS).chmod(0)
    assert "it cannot be read (Permission denied)" in refused(folder)
