"""GGUF files as checkpoints: the configuration and the weights of Hugging Face's checkpoints, or a clear reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.models.lookup as models
from tests.gguf_files import Stored, Typed, blocks, write_gguf
from tests.tokenizers import write_tokenizer
from worker.describe.config import Config
from worker.engine.compiled import engine
from worker.families.registry import FAMILIES, config_from_mapping, family_of
from worker.models.checkpoints import Checkpoint, CheckpointError, load, names, read_config
from worker.models.sources import catalogue, synthetic
from worker.trace.arena import Arena, plan
from worker.weights.base import CachedWeights, Weights

Array = NDArray[Any]
Tensors = dict[str, Array]

pytestmark = pytest.mark.usefixtures("temporary")

# ------------------------------------------------------------------------- as llama.cpp's converter writes checkpoints


def as_neighbours(weight: Array, heads: int) -> Array:
    """Return rows of queries or keys in the order of llama.cpp's rotation."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def convert_gpt2(config: Any, weights: Tensors) -> tuple[dict[str, Any], Tensors]:
    renamed = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
    for n in range(config.n_layer):
        pairs = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
                 "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}  # fmt: skip
        renamed |= {f"h.{n}.{name}": f"blk.{n}.{other}" for name, other in pairs.items()}
    tensors = {}
    for name, weight in weights.items():
        module, _, suffix = name.rpartition(".")
        turned = suffix == "weight" and ".c_" in name
        tensors[f"{renamed[module]}.{suffix}"] = np.ascontiguousarray(weight.T) if turned else weight
    keys = {
        "block_count": config.n_layer, "context_length": config.n_positions, "embedding_length": config.n_embd,
        "feed_forward_length": config.n_inner, "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }  # fmt: skip
    return keys, tensors


def convert_rms(config: Any, weights: Tensors) -> tuple[dict[str, Any], Tensors]:
    renamed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for n in range(config.num_hidden_layers):
        pairs = {
            "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
            "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        }  # fmt: skip
        renamed |= {f"model.layers.{n}.{name}": f"blk.{n}.{other}" for name, other in pairs.items()}
    tensors = {}
    for name, weight in weights.items():
        module, _, suffix = name.rpartition(".")
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(module.rpartition(".")[2]) if config.model_type == "llama" else None
        tensors[f"{renamed[module]}.{suffix}"] = as_neighbours(weight, count) if count else weight
    keys = {
        "block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": config.rope_theta,
        "rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size,
    }  # fmt: skip
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        keys |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    return keys, tensors


CONVERT: dict[str, Callable[[Any, Tensors], tuple[dict[str, Any], Tensors]]] = {
    "gpt2": convert_gpt2,
    "llama": convert_rms,
    "qwen2": convert_rms,
    "qwen3": convert_rms,
}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_head": 3, "n_embd": 96, "n_inner": 160, "n_positions": 9, "vocab_size": 37},
    "llama": {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64,
              "intermediate_size": 96, "max_position_embeddings": 32, "vocab_size": 37},
}  # fmt: skip
SIZES |= {"qwen2": SIZES["llama"], "qwen3": SIZES["llama"]}
CASES = [
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False}),
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "rope_theta": 5e5, "head_dim": 32, "rms_norm_eps": 1e-6}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("qwen2", {"rms_norm_eps": 1e-6, "rope_theta": 1e6}),
    ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
]
cases = pytest.mark.parametrize(("family", "changes"), CASES, ids=str)


def config_of(family: str, **changes: Any) -> Config:
    return config_from_mapping({"model_type": family, **SIZES[family], **changes})


def random(config: Config) -> Tensors:
    """Return random weights of the checkpoint, which has no tied head."""
    generator, shapes = np.random.default_rng(0), catalogue(config)
    own = {name: shape for name, shape in shapes.items() if shapes.source(name) == name}
    return {name: generator.normal(size=shape).astype(np.float32) / 4 for name, shape in own.items()}


def architecture(config: Config) -> str:
    format = FAMILIES[config.model_type].gguf
    assert format is not None
    return format.architecture


def write(path: Path, config: Config, weights: Tensors, quantize: str | None = None, **changes: Any) -> None:
    """Write weights as llama.cpp's converter does; with `quantize`, matrices have random blocks of that type.

    A changed key that is None is left out; `tensors` replaces or adds some, None removes one.
    """
    keys, tensors = CONVERT[config.model_type](config, weights)
    replaced: dict[str, Any] = changes.pop("tensors", {})
    metadata = {f"{architecture(config)}.{key}": value for key, value in keys.items()}
    metadata = {"general.architecture": architecture(config), **metadata, **changes}
    stored: dict[str, Any] = dict(tensors)
    for at, (name, array) in enumerate(tensors.items() if quantize else ()):
        if array.ndim == 2:
            stored[name] = blocks(str(quantize), array.shape, seed=at)
    stored |= replaced
    write_gguf(
        path,
        {name: value for name, value in metadata.items() if value is not None},
        {name: tensor for name, tensor in stored.items() if tensor is not None},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def opened(folder: Path, id: str = "mine.gguf") -> Checkpoint:
    return load(id, str(folder))


def run(config: Config, weights: Weights, cached: bool = False) -> Arena:
    arena = Arena(plan(config, 5))
    arena["tokens"][...] = [3, 1, 4, 1, 5]
    family_of(config).forward(config, engine(weights, cache_weights=cached), arena, slice(0, 5), lambda: None)
    return arena


# ---------------------------------------------------------------------------------------------------------- values


@cases
def test_a_file_has_the_configuration_and_the_weights_of_its_checkpoint(
    folder: Path, family: str, changes: dict[str, Any]
) -> None:
    config = config_of(family, **changes)
    meant = random(config)
    write(folder / "mine.gguf", config, meant)
    found = opened(folder)
    assert found.config == read_config("mine.gguf", str(folder)) == config
    weights, shapes = found.weights(), catalogue(config)
    for name in shapes:
        wanted = meant[shapes.source(name)]
        np.testing.assert_array_equal(weights[name], wanted, err_msg=name, strict=True)
        np.testing.assert_array_equal(weights.read(name, (slice(1, None, 3),)), wanted[1::3], err_msg=name)


@cases
@pytest.mark.parametrize("cached", [False, True], ids=["as it is read", "cached"])
def test_a_trace_is_that_of_the_checkpoint(folder: Path, family: str, changes: dict[str, Any], cached: bool) -> None:
    config = config_of(family, **changes)
    meant = random(config)
    write(folder / "mine.gguf", config, meant)
    shapes = catalogue(config)
    wanted = run(config, CachedWeights({name: meant[shapes.source(name)] for name in shapes}))
    found = run(config, opened(folder).mapped_weights(), cached)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("type", ["Q4_0", "Q5_1", "Q8_0"])
def test_a_quantized_file_computes_as_its_values(folder: Path, family: str, type: str) -> None:
    config = config_of(family)
    write(folder / "mine.gguf", config, random(config), type)
    found = opened(folder)
    weights = found.weights()
    meant = {name: weights[name] for name in catalogue(config)}
    assert found.dtypes == [type, "float32"]
    assert found.format == "gguf"
    assert (
        found.note
        == f"From the checkpoint in the file 'mine.gguf': {type} and float32, converted to float32 when read."
    )
    a, b = run(config, CachedWeights(meant)), run(config, found.mapped_weights())
    for name in a:
        np.testing.assert_allclose(b[name], a[name], rtol=1e-4, atol=1e-4, err_msg=name)


# -------------------------------------------------------------------------------------------------- where files are


def test_the_only_gguf_file_of_a_folder_is_its_model(folder: Path) -> None:
    config = config_of("llama")
    write(folder / "one" / "any name.gguf", config, random(config))
    write(folder / "mine.gguf", config, random(config))
    assert names(str(folder)) == ["mine.gguf", "one"]
    assert opened(folder, "one").config == config
    assert opened(folder, "one").digest == opened(folder).digest
    assert [models.find(id, str(folder)).source for id in names(str(folder))] == ["checkpoint"] * 2


def test_a_digest_identifies_the_content(folder: Path) -> None:
    config = config_of("llama")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        weights = {key: np.float32(seed) + array for key, array in random(config).items()}
        write(folder / f"{name}.gguf", config, weights)
    a, b, c = (opened(folder, f"{name}.gguf").digest for name in "abc")
    assert a == b != c


def test_several_gguf_files_in_a_folder_are_rejected(folder: Path) -> None:
    config = config_of("llama")
    for name in ("a", "b"):
        write(folder / "two" / f"{name}.gguf", config, random(config))
    with pytest.raises(CheckpointError, match=r"it has 2 GGUF files, a\.gguf and others: keep one"):
        opened(folder, "two")


def test_a_changed_file_is_read_again(folder: Path) -> None:
    first, second = config_of("llama"), config_of("llama", num_hidden_layers=1)
    write(folder / "mine.gguf", first, random(first))
    found = opened(folder)
    assert opened(folder) is found
    write(folder / "mine.gguf", second, random(second))
    assert not found.is_unchanged()
    assert opened(folder).config == second


def test_a_link_out_of_the_folder_is_rejected(folder: Path, tmp_path: Path) -> None:
    config = config_of("llama")
    write(tmp_path / "secret.gguf", config, random(config))
    (folder / "mine.gguf").symlink_to(tmp_path / "secret.gguf")
    with pytest.raises(CheckpointError, match=r"mine\.gguf is a link out of the models folder, and is not followed"):
        opened(folder)


# -------------------------------------------------------------------------------------------------- what is wrong

ONES = np.ones(8, np.float32)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no architecture": ({"general.architecture": None}, "has general.architecture: null, and only gpt2, "),
    "another architecture": ({"general.architecture": "mamba"}, 'has general.architecture: "mamba", and only gpt2, '),
    "a list of architectures": ({"general.architecture": Typed("STRING", ["llama"])}, "architecture: a list, and only"),
    "one of several files": ({"split.count": 3}, "is one of several parts, which are not supported"),
    "no number of layers": ({"llama.block_count": None}, "mine.gguf has no llama.block_count"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, "has no llama.attention.layer_norm_rms_epsilon"),
    "layers in words": ({"llama.block_count": "two"}, "mine.gguf gives num_hidden_layers: "),
    "too many layers": ({"llama.block_count": 2**31}, "mine.gguf gives num_hidden_layers: 2147483648 is not allowed"),
    "a missing layer": (
        {"llama.block_count": 3},
        "has no tensor blk.2.attn_norm.weight, which is model.layers.2.input",
    ),
    "no heads": ({"llama.attention.head_count": 0}, "mine.gguf gives num_attention_heads: 0 is not allowed"),
    "heads that differ": (
        {"llama.attention.head_count_kv": Typed("UINT32", [2, 1])},
        "head_count_kv by layer, and only",
    ),
    "an epsilon of NaN": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "mine.gguf gives rms_norm_eps: "),
    "experts": ({"llama.expert_count": 8}, "has llama.expert_count: 8, and that is not supported"),
    "a window": (
        {"llama.attention.sliding_window": 4},
        "has llama.attention.sliding_window: 4, and that is not supported",
    ),
    "both directions": (
        {"llama.attention.causal": False},
        "has llama.attention.causal: false, and only true is supported",
    ),
    "a part of a head rotated": (
        {"llama.rope.dimension_count": 8},
        "has rope.dimension_count: 8, and only the head width 16",
    ),
    "another width of values": (
        {"llama.attention.value_length": 8},
        "has attention.value_length: 8, and only the head",
    ),
    "a scaling unknown": ({"llama.rope.scaling.type": "longrope"}, "rope_scaling"),
    "no embedding": ({"tensors": {"token_embd.weight": None}}, "has no tensor token_embd.weight"),
    "no norm": (
        {"tensors": {"output_norm.weight": None}},
        "has no tensor output_norm.weight, which is model.norm.weight",
    ),
    "another tensor": (
        {"tensors": {"blk.0.attn_sinks.weight": ONES}},
        "has the tensor blk.0.attn_sinks.weight, which llama",
    ),
    "another shape": (
        {"tensors": {"output_norm.weight": ONES}},
        "has the tensor output_norm.weight with the shape [8], and",
    ),
    "an unsupported type": (
        {"tensors": {"output_norm.weight": Stored("I32", (64,), bytes(256))}},
        "the tensor output_norm.weight is I32: must be one of F64, F32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_numbers_is_rejected_by_name(folder: Path, case: str) -> None:
    changes, reason = REFUSED[case]
    config = config_of("llama")
    write(folder / "mine.gguf", config, random(config), **changes)
    with pytest.raises(CheckpointError) as error:
        opened(folder)
    assert reason in str(error.value)
    assert str(error.value).startswith("The checkpoint in the file 'mine.gguf' cannot be used: ")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(100), os.urandom(1000)], ids=range(4))
def test_an_invalid_file_is_a_problem_of_its_own(folder: Path, content: bytes) -> None:
    (folder / "mine.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"mine\.gguf is "):
        opened(folder)


def test_equal_numbers_of_all_layers_and_settings_that_are_off_are_read(folder: Path) -> None:
    config = config_of("llama")
    same: dict[str, Any] = {"llama.attention.head_count_kv": Typed("UINT32", [2, 2]), "llama.expert_count": 0}
    off: dict[str, Any] = {
        "llama.rope.scaling.type": "none",
        "llama.attention.sliding_window": 0,
        "llama.attention.causal": True,
    }
    write(folder / "mine.gguf", config, random(config), **same, **off)
    assert opened(folder).config == config


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 8, "yarn_beta_fast": 16.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 16.0},
        ),
    ],
)
def test_the_scaling_of_rotary_positions_is_read(folder: Path, keys: dict[str, Any], scaling: dict[str, Any]) -> None:
    config = config_of("llama", rope_parameters=scaling)
    changes = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    write(folder / "mine.gguf", config, random(config), **changes)
    assert opened(folder).config == config


def test_synthetic_weights_of_its_sizes_can_be_had_instead(folder: Path) -> None:
    config = config_of("llama")
    write(folder / "mine.gguf", config, random(config))
    found = models.resolve("mine.gguf", str(folder), synthetic_seed=7)
    name = "model.layers.1.mlp.up_proj.weight"
    assert (found.config, found.source) == (config, "synthetic")
    np.testing.assert_array_equal(found.weights()[name], synthetic(config, 7)[name])


def test_text_needs_a_tokenizer_in_the_folder_of_the_file(folder: Path) -> None:
    config = config_of("llama")
    write(folder / "mine.gguf", config, random(config))
    write_tokenizer(folder, "byte_level")  # of no model: it is not in the folder of one
    write(folder / "one" / "mine.gguf", config, random(config))
    write_tokenizer(folder / "one", "byte_level")
    assert models.find("mine.gguf", str(folder)).vocabulary.kind == "ids"
    assert models.find("one", str(folder)).vocabulary.problem  # it is read: it has more tokens than this small model
