"""Architectures: formulas give a trace's values, and blocks cover its tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gpt2 import CONFIGS
from tests.nano import nano as trained
from tests.worker.describe.reader import Array, Block, Reader, all_blocks, block_id, grid
from worker.describe.architecture import RESIDUAL
from worker.describe.config import Config as AnyConfig
from worker.describe.counts import parameters
from worker.describe.expression import Sizes
from worker.describe.index import Index
from worker.families.bloom import BloomConfig
from worker.families.gemma2 import Gemma2Config
from worker.families.gemma3 import Gemma3Config
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt_neox import GPTNeoXConfig
from worker.families.gptj import GPTJConfig
from worker.families.llama import LlamaConfig
from worker.families.mistral import MistralConfig
from worker.families.opt import OPTConfig
from worker.families.phi import PhiConfig
from worker.families.qwen2 import Qwen2Config
from worker.families.qwen3 import Qwen3Config
from worker.families.registry import describe

NANO = CONFIGS["nano-gpt"]
TWO = Config(n_layer=2)
DEEP = Config(n_layer=13, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
UNTIED = Config(**(DEEP.to_mapping() | {"tie_word_embeddings": False, "activation_function": "gelu"}))
LLAMA = LlamaConfig(
    num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, hidden_size=20, head_dim=4, intermediate_size=28,
    max_position_embeddings=9, vocab_size=17, rope_theta=50.0,
)  # fmt: skip
BIASED = LlamaConfig(
    num_hidden_layers=13, num_attention_heads=2, num_key_value_heads=2, hidden_size=12, intermediate_size=10,
    max_position_embeddings=9, vocab_size=17, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
    hidden_act="gelu",
)  # fmt: skip
GPTJ = GPTJConfig(n_layer=13, n_head=3, n_embd=24, n_inner=40, rotary_dim=4, n_positions=9, vocab_size=17)
NEOX = GPTNeoXConfig(
    num_hidden_layers=3, num_attention_heads=3, hidden_size=24, intermediate_size=28, max_position_embeddings=9,
    vocab_size=17, rotary_pct=0.5, rotary_emb_base=50.0,
)  # fmt: skip
SERIAL = replace(
    NEOX, num_hidden_layers=13, use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True,
    rotary_pct=1.0,
)  # fmt: skip
PHI = PhiConfig(
    num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, hidden_size=32, intermediate_size=28,
    max_position_embeddings=9, vocab_size=17, rope_theta=50.0, partial_rotary_factor=0.75,
)  # fmt: skip
OPT = OPTConfig(
    num_hidden_layers=3, num_attention_heads=3, hidden_size=24, ffn_dim=28, max_position_embeddings=9, vocab_size=17,
)  # fmt: skip
POST_NORM = replace(
    OPT, num_hidden_layers=13, do_layer_norm_before=False, word_embed_proj_dim=10, activation_function="gelu",
)  # fmt: skip
BLOOM = BloomConfig(n_layer=3, n_head=3, hidden_size=24, seq_length=9, vocab_size=17)
TINY: dict[str, Any] = {
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 20, "head_dim": 4,
    "intermediate_size": 28, "max_position_embeddings": 9, "vocab_size": 17,
}  # fmt: skip
RMS: dict[str, AnyConfig] = {
    "llama, scaled rotation": LlamaConfig.from_mapping(
        TINY | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}
    ),
    "mistral": MistralConfig(**TINY, sliding_window=3),
    "qwen2": Qwen2Config(**TINY, use_sliding_window=True, sliding_window=2, max_window_layers=1),
    "qwen3, deep": Qwen3Config(**TINY | {"num_hidden_layers": 13}, attention_bias=True, tie_word_embeddings=True),
    "gemma2": Gemma2Config(
        **TINY, sliding_window=3, query_pre_attn_scalar=7, attention_bias=True, hidden_activation="silu"
    ),
    "gemma2, deep, without caps": Gemma2Config(
        **TINY | {"num_hidden_layers": 14}, attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3": Gemma3Config(
        **TINY | {"num_hidden_layers": 7}, layer_types=("full_attention", *["sliding_attention"] * 6), sliding_window=2,
        final_logit_softcapping=0.5,
    ),
}  # fmt: skip
FAMILIES: dict[str, AnyConfig] = {
    "gpt2": DEEP,
    "gpt2, untied": UNTIED,
    "llama": LLAMA,
    "llama, biased": BIASED,
    "gpt_neox": NEOX,
    "gpt_neox, serial": SERIAL,
    "gpt_neox, scaled angles": GPTNeoXConfig.from_mapping(
        {name: value for name, value in NEOX.to_mapping().items() if name != "model_type"}
        | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}
    ),
    "gptj": GPTJ,
    "opt": OPT,
    "opt, norms after": POST_NORM,
    "opt, plain": replace(
        OPT, enable_bias=False, layer_norm_elementwise_affine=False, tie_word_embeddings=False, word_embed_proj_dim=10
    ),
    "opt, no final norm": replace(OPT, _remove_final_layer_norm=True),
    "bloom": BLOOM,
    "bloom, from the norms": replace(
        BLOOM, n_layer=13, n_head=4, apply_residual_connection_post_layernorm=True, tie_word_embeddings=False
    ),
    "phi": PHI,
    "phi, normed heads": replace(PHI, qk_layernorm=True, tie_word_embeddings=True),
    "phi, normed heads, deep": replace(PHI, qk_layernorm=True, num_hidden_layers=13, num_key_value_heads=4),
    **RMS,
}


def configs() -> st.SearchStrategy[Config]:
    limits = {"n_layer": 2, "n_head": 3, "n_embd": 5, "d_head": 3, "n_inner": 6, "n_positions": 4, "vocab_size": 5}
    ranges: Any = {name: st.integers(1, n) for name, n in limits.items()}
    return st.builds(Config, tie_word_embeddings=st.booleans(), **ranges)


def check_formula(read: Reader, block: Block, cell: list[Array]) -> None:
    """Compare the formula with the trace: −inf in the same places, the rest up to float32 rounding."""
    wanted, found = read.formula(block, *cell), read.cells(block, *cell)
    tensor = read.values[block.tensor]
    largest = float(np.abs(tensor[np.isfinite(tensor)]).max())
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6 * largest, err_msg=block.id)


# ---------------------------------------------------------------------------------------------------- formulas


@pytest.fixture(scope="module")
def nano(run_model: Any) -> Reader:
    weights = dict(trained())
    tokens = [[2, 1, 0, 1, 1, 2, 0, 1, 1, 1, 2]]
    return Reader(NANO, 11, 1, {**weights, **run_model(NANO, weights, tokens)})


@pytest.fixture(scope="module", params=[*FAMILIES.values()], ids=[*FAMILIES])
def deep(request: pytest.FixtureRequest, make_weights: Any, run_model: Any) -> Reader:
    weights = make_weights(request.param)
    tokens = np.random.default_rng(1).integers(0, 17, (3, 7))
    return Reader(request.param, 7, 3, {**weights, **run_model(request.param, weights, tokens)})


def computed(config: AnyConfig) -> list[str]:
    """The ids of the blocks that are neither weights nor inputs."""
    return [block.id for block in all_blocks(config) if block.kind.formula and block.kind.formula.op != "input"]


@pytest.mark.parametrize("id", computed(NANO))
def test_formulas_give_every_cell_of_nano_gpt(nano: Reader, id: str) -> None:
    block = nano.blocks[id]
    check_formula(nano, block, grid(nano.shape(block)))


def test_formulas_give_the_cells_of_every_family(deep: Reader) -> None:
    random = np.random.default_rng(2)
    for id in computed(deep.config):
        block = deep.blocks[id]
        check_formula(deep, block, [random.integers(0, size, 30) for size in deep.shape(block)])


@pytest.mark.parametrize("family", FAMILIES)
def test_values_have_formulas_and_weights_do_not(family: str) -> None:
    assert [
        kind.id for kind in describe(FAMILIES[family]).kinds if (kind.formula is None) != (kind.role == "weight")
    ] == []


# ------------------------------------------------------------------------------------------------------ blocks


def coverage(config: AnyConfig, tokens: int, batch: int) -> dict[str, Array]:
    """Count how often each element of each tensor is a cell of a block, by tensor name."""
    read = Reader(config, tokens, batch)
    tensors = dict(describe(config).all_weights()) | dict(describe(config).all_values())
    times: dict[str, Array] = {}
    for block in read.blocks.values():
        count = times.setdefault(block.tensor, np.zeros(tensors[block.tensor].shape(read.sizes), int))
        at = read.place(block, *grid(read.shape(block)))
        assert all(axis.min() >= 0 for axis in at), block.id
        np.add.at(count, tuple(at), 1)  # raises IndexError outside the tensor
    return times


def check_coverage(config: AnyConfig, tokens: int, batch: int) -> None:
    """Every cell is in one block; of a position table, the rows of these tokens, the last possible ones at its end."""
    times, context = coverage(config, tokens, batch), describe(config).fixed_sizes["N"]
    for table in [tensor.name for tensor in describe(config).weights if tensor.parts == ("position",)]:
        position = times.pop(table)
        rows = np.arange(len(position)) - (len(position) - context)
        used = (rows >= 0) & (rows < tokens)
        np.testing.assert_array_equal(position, used[:, None] + 0 * position)
    for name, count in times.items():
        np.testing.assert_array_equal(count, 1, err_msg=name)


@pytest.mark.parametrize("config", [NANO, *FAMILIES.values()], ids=["nano-gpt", *FAMILIES])
def test_blocks_cover_the_tensors_of_every_family_exactly_once(config: AnyConfig) -> None:
    check_coverage(config, 7, 2)


@settings(max_examples=30)
@given(configs(), st.data())
def test_blocks_cover_the_tensors_of_any_model_exactly_once(config: Config, data: st.DataObject) -> None:
    check_coverage(config, data.draw(st.integers(1, config.n_positions)), data.draw(st.integers(1, 3)))


def test_only_tensors_equal_to_another_have_no_block() -> None:
    names = {name for name, _ in (*describe(NANO).all_weights(), *describe(NANO).all_values())}
    repeats = {"embed", "pos_embed", "blocks.1.resid_pre", "blocks.2.resid_pre"}
    assert names - {block.tensor for block in all_blocks(NANO)} == repeats


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_have_the_roles_of_their_tensors(family: str) -> None:
    found = describe(FAMILIES[family])
    roles = {tensor.name: tensor.role for tensor in (*found.weights, *found.values)}
    roles["blocks.0.resid_pre"] = "activation"
    assert [kind.id for kind in found.kinds if kind.tensor is None or roles[kind.tensor] != kind.role] == []


@settings(max_examples=30)
@given(configs())
def test_block_ids_are_unique(config: Config) -> None:
    times = Counter(block.id for block in all_blocks(config))
    assert [id for id, n in times.items() if n > 1] == []


def test_kinds_are_found_by_their_ids() -> None:
    assert list(describe(NANO).kinds_by_id.values()) == list(describe(NANO).kinds)


@settings(max_examples=30)
@given(configs())
def test_formulas_read_blocks_that_exist(config: Config) -> None:
    ids = [block.id for block in all_blocks(config)]
    for block in all_blocks(config):
        for source in block.formula.inputs if block.formula else ():
            assert block_id(describe(config), source.block, block.layer, block.member) in ids


def weight_cells(config: Config, tokens: int) -> int:
    read = Reader(config, tokens)
    return sum(int(np.prod(read.shape(b))) for b in read.blocks.values() if b.kind.role == "weight")


@settings(max_examples=30)
@given(configs(), st.data())
def test_cells_of_weights_are_the_parameters(config: Config, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(1, config.n_positions))
    total = parameters(describe(config))["total"]
    assert isinstance(total, int)
    tied = config.vocab_size * config.n_embd if config.tie_word_embeddings else 0
    unused = (config.n_positions - tokens) * config.n_embd
    assert weight_cells(config, tokens) == total + tied - unused


@pytest.mark.parametrize(
    ("layer", "before"), [(0, "embedding"), (1, "blocks.0.resid_post"), (None, "blocks.2.resid_post")]
)
def test_the_residual_stream_comes_from_the_layer_before(layer: int | None, before: str) -> None:
    assert describe(NANO).block_id(RESIDUAL, layer) == before


# ----------------------------------------------------------------------------------------------------- indices


@pytest.mark.parametrize("text", ["i*j", "k s*s", "i j+2*i*k 0", "h*i*s", "i//2", "A//i"])
def test_a_nonlinear_index_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not linear in i, j, k and s"):
        Index(text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("k i h j", [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 1, 0, 0]]),
        ("i j+h*A", [[1, 0, 0, 0], [0, 1, 0, 10]]),
        ("j+2*HA+h*A", [[0, 1, 0, 40]]),
        ("A*i+i+7", [[6, 0, 0, 7]]),
        ("j-A i", [[0, 1, 0, -5], [1, 0, 0, 0]]),
        ("2*i-3*j+h//2", [[2, -3, 0, 1]]),
        ("j+(h-1)*A", [[0, 1, 0, 5]]),
        ("", []),
    ],
)
def test_an_index_is_evaluated_to_its_coefficients(text: str, rows: list[list[int]]) -> None:
    assert Index(text).rows(Sizes({"A": 5, "H": 3}), {"h": 2}) == rows


def test_the_summation_index_has_a_column_before_the_constant() -> None:
    assert Index("s+h*A j 0").rows(Sizes({"A": 5}), {"h": 1}, summed=True) == [
        [0, 0, 0, 1, 5],
        [0, 1, 0, 0, 0],
        [0] * 5,
    ]


# ------------------------------------------------------------------------------------------------------- names


def test_tensors_are_in_order_of_computation() -> None:
    names = [name for name, _ in describe(TWO).all_values()]
    assert names[:4] == ["tokens", "embed", "pos_embed", "blocks.0.resid_pre"]
    layer = [name.removeprefix("blocks.0.") for name in names if name.startswith("blocks.0.")]
    assert names[3:-7] == [f"blocks.{n}.{name}" for n in (0, 1) for name in layer]
    assert names[-7:] == [f"ln_final.{n}" for n in ("mean", "scale", "out")] + [
        "logits", "logits_max", "logits_sum", "probs",
    ]  # fmt: skip
