"""Block positions: no overlaps, and equality with the original layout of LLM Visualization."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.gpt2 import CONFIGS
from worker.describe.config import Config as AnyConfig
from worker.describe.config import ConfigError
from worker.families.gemma2 import Gemma2Config
from worker.families.gemma3 import Gemma3Config
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt_neox import GPTNeoXConfig
from worker.families.gptj import GPTJConfig
from worker.families.llama import LlamaConfig
from worker.families.phi import PhiConfig
from worker.families.qwen3 import Qwen3Config
from worker.families.registry import PRESETS, describe
from worker.layout.encode import columns
from worker.layout.geometry import STYLES, Geometry, Style
from worker.layout.place import place

Boxes = NDArray[np.float64]  # [N, 6]: x, y, z of the minimum corner, then the size


def boxes(geometry: Geometry) -> Boxes:
    table = columns(geometry)
    return np.hstack([table["position"], table["size"]])


def overlapping(boxes: Boxes) -> int:
    """Count the boxes that overlap others by more than rounding.

    Groups of boxes are split along each axis wherever a plane separates them, until nothing changes; the boxes left in
    a group are compared pairwise. Corners are replaced by their ranks, so that the comparison is exact.
    """
    low, high = boxes[:, :3], boxes[:, :3] + boxes[:, 3:]
    rounding = 4 * np.spacing(np.abs([low, high]).max((0, 1)))
    corners = np.stack([low + rounding / 2, high - rounding / 2])  # [2, N, 3]
    ranks = np.stack([np.unique(axis, return_inverse=True)[1].reshape(2, -1) for axis in corners.transpose(2, 0, 1)])
    n = len(boxes)
    group, groups, before = np.zeros(n, np.int64), 1, 0
    while groups > before:
        before = groups
        for starts, ends in ranks:
            first, last = group * 2 * n + starts, group * 2 * n + ends
            order = np.argsort(first)
            reached = np.maximum.accumulate(last[order])
            group[order] = np.concatenate([[0], np.cumsum(first[order][1:] > reached[:-1])])
        groups = int(group.max()) + 1
    found = 0
    for together in np.flatnonzero(np.bincount(group) > 1):
        a, b = corners[:, group == together]
        found += int(((a[:, None] < b) & (a < b[:, None])).all(2).sum() - len(a))
    return found


def configs(n_layer: int = 40) -> st.SearchStrategy[Config]:
    """Any sizes: any width of heads and MLPs, many more tokens than channels or far fewer."""
    most = {"n_layer": n_layer, "n_head": 5, "n_embd": 300, "d_head": 60, "n_inner": 900, "n_positions": 3000}
    return st.builds(Config, vocab_size=st.integers(1, 5000), **{name: st.integers(1, n) for name, n in most.items()})


# ------------------------------------------------------------------------------------------------ the original

ORIGINAL = {
    "nano-gpt": (CONFIGS["nano-gpt"], 206, "4e1a08e58e82cace3b3102ab2814022662e714a07507139ac2fcc8b287202216"),
    "gpt2": (CONFIGS["gpt2"], 2294, "567d7a039388594ee69bd0af9a1b378328665964c48d1ed9540da96945cd50cd"),
    "thirteen layers": (
        Config(n_layer=13, n_head=3, n_embd=48, n_positions=16, vocab_size=10),
        690,
        "efe04904bd82baab4f3a29527ad843a831e0ab08a89d365b2a1b7a24fec870b7",
    ),
}


@pytest.mark.parametrize("shape", ORIGINAL)
def test_llm_viz_equals_the_original_to_the_last_bit(shape: str) -> None:
    config, count, digest = ORIGINAL[shape]
    found = boxes(place(config, config.n_positions, style="llm-viz"))
    assert found.shape == (count, 6)
    assert hashlib.sha256(found.astype("<f8").tobytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("row", "kind", "box"),
    [
        (0, "tokens", [-768, 0, -0.75, 1536, 1.5, 1.5]),
        (1, "wte", [-76230.3, 78.3, -0.75, 75385.5, 1152, 1.5]),
        (2, "wpe", [844.8, 78.3, -0.75, 1536, 1152, 1.5]),
    ],
)
def test_gpt2s_first_blocks_match_the_original(row: int, kind: str, box: list[float]) -> None:
    geometry = place(CONFIGS["gpt2"], 1024)
    assert geometry.kinds[row].id == kind
    assert boxes(geometry)[row].tolist() == box


def test_margins_match_the_original() -> None:
    assert [place(CONFIGS[id], 8).margin for id in ("nano-gpt", "gpt2")] == [12, 76.8]


# ------------------------------------------------------------------------------------------------------ counts


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("n_layer", [1, 12, 13, 25])
@pytest.mark.parametrize("n_head", [1, 4])
def test_count_matches_the_formula(style: Style, n_layer: int, n_head: int) -> None:
    of_head = 10 if style == "llm-viz" and n_layer > 12 else 14
    geometry = place(Config(n_layer=n_layer, n_head=n_head, n_embd=8), 5, style=style)
    assert geometry.count == 14 + n_layer * (22 + of_head * n_head) == len(boxes(geometry))


def test_a_model_of_a_hundred_billion_blocks_has_a_geometry() -> None:
    geometry = place(Config(n_layer=10_000, n_head=10**6, n_embd=10**6, n_positions=10**6), 10**6)
    assert geometry.count == 14 + 10_000 * (22 + 14 * 10**6)
    assert geometry.x.nbytes + geometry.y.nbytes + geometry.z.nbytes < 30e6
    assert np.isfinite([*geometry.bounds.min, *geometry.bounds.max]).all()


# ------------------------------------------------------------------------------------------------------ styles


@given(configs(n_layer=12), st.integers(1, 64))
@settings(max_examples=20)
def test_the_styles_are_equal_up_to_twelve_layers(config: Config, batch: int) -> None:
    ours, original = (place(config, config.n_positions, batch, style) for style in STYLES)
    assert ours.kinds == original.kinds
    assert np.array_equal(boxes(ours), boxes(original))


def by_kind(geometry: Geometry) -> dict[str, Boxes]:
    found, kind = boxes(geometry), columns(geometry)["kind"]
    return {k.id.removeprefix("blocks.{layer}."): found[kind == n] for n, k in enumerate(geometry.kinds)}


def test_above_twelve_layers_only_residuals_and_qkv_differ() -> None:
    config = Config(n_layer=30, n_head=2, n_embd=48)  # wide enough for its tokens, so columns keep their pitch
    ours, original = (by_kind(place(config, 8, 3, style)) for style in STYLES)
    head = "attn.heads.{head}"
    qkv = {f"{head}.{name}{end}" for name in ("q", "k", "v", "qkv") for end in ("", "_weight")}
    residuals = {"resid_mid", "resid_post"}
    assert ours.keys() ^ original.keys() == qkv
    assert {kind for kind in ours.keys() - qkv if not np.array_equal(ours[kind], original[kind])} == residuals

    step = 48 * 14 * 1.5 + 2 * 12
    for kind in residuals:
        shift = ours[kind] - original[kind]
        assert np.allclose(shift[:, 0], np.arange(30) // 12 * step)
        assert not shift[:, 1:].any()


@pytest.mark.parametrize("end", ["", "_weight"])
def test_q_above_k_above_v_fill_the_merged_box(end: str) -> None:
    config = Config(n_layer=13, n_head=3, n_embd=48)
    ours, original = (by_kind(place(config, 8, 2, style)) for style in STYLES)
    q, k, v = (ours[f"attn.heads.{{head}}.{name}{end}"] for name in "qkv")
    merged = original[f"attn.heads.{{head}}.qkv{end}"]
    assert np.array_equal(q[:, :3], merged[:, :3])
    assert np.array_equal(k[:, 1], q[:, 1] + q[:, 4])
    assert np.array_equal(v[:, 1], k[:, 1] + k[:, 4])
    assert np.allclose(v[:, 1] + v[:, 4], merged[:, 1] + merged[:, 4], rtol=1e-15)
    for part in (q, k, v):
        assert np.array_equal(part[:, [0, 2, 3, 5]], merged[:, [0, 2, 3, 5]])


# ------------------------------------------------------------------------------------------------ overlap, bounds


def test_overlaps_of_the_original_are_detected() -> None:
    assert overlapping(boxes(place(Config(n_layer=13, n_head=1, n_embd=8), 8, style="llm-viz"))) == 4
    assert overlapping(boxes(place(Config(n_layer=24, n_head=1, n_embd=8), 800, style="llm-viz"))) > 48


@pytest.mark.parametrize("tokens", [1, 8, None])
@pytest.mark.parametrize("id", PRESETS)
def test_no_two_blocks_of_a_preset_overlap(id: str, tokens: int | None) -> None:
    config = PRESETS[id].config
    assert overlapping(boxes(place(config, tokens or describe(config).fixed_sizes["N"]))) == 0


def llamas(n_layer: int = 30) -> st.SearchStrategy[LlamaConfig]:
    """Any sizes of a family with key/value heads, a gated MLP, and optional biases."""
    most = {"num_hidden_layers": n_layer, "hidden_size": 300, "intermediate_size": 900, "vocab_size": 5000}
    return st.builds(
        LlamaConfig,
        num_attention_heads=st.just(12),
        num_key_value_heads=st.sampled_from([1, 2, 3, 4, 6, 12]),
        head_dim=st.integers(1, 30).map(lambda half: 2 * half),
        max_position_embeddings=st.just(3000),
        attention_bias=st.booleans(),
        mlp_bias=st.booleans(),
        **{name: st.integers(1, n) for name, n in most.items()},
    )


@given(llamas(), st.integers(1, 3000), st.integers(1, 64))
@settings(max_examples=25)
def test_no_two_blocks_of_any_llama_overlap(config: LlamaConfig, tokens: int, batch: int) -> None:
    assert overlapping(boxes(place(config, tokens, batch))) == 0


def normed(n_layer: int = 30) -> st.SearchStrategy[Qwen3Config | Gemma2Config | Gemma3Config]:
    """Any sizes of families with norms of the heads' vectors or of what layers add, and with soft caps."""
    most = {"num_hidden_layers": n_layer, "hidden_size": 300, "intermediate_size": 900, "vocab_size": 5000}
    sizes: Any = {name: st.integers(1, n) for name, n in most.items()} | {
        "num_attention_heads": st.sampled_from([3, 6]),  # of an odd number, one is in the middle
        "num_key_value_heads": st.sampled_from([1, 3]),
        "head_dim": st.integers(1, 30).map(lambda half: 2 * half),
        "max_position_embeddings": st.just(3000),
    }
    cap: Any = {"final_logit_softcapping": st.sampled_from([None, 30.0])}
    return st.one_of(
        st.builds(Qwen3Config, attention_bias=st.booleans(), **sizes),
        st.builds(Gemma2Config, attn_logit_softcapping=st.sampled_from([None, 50.0]), **cap, **sizes),
        st.builds(Gemma3Config, **cap, **sizes),
    )


@given(normed(), st.integers(1, 3000), st.integers(1, 64))
@settings(max_examples=40)
def test_no_two_blocks_of_any_normed_decoder_overlap(config: AnyConfig, tokens: int, batch: int) -> None:
    assert overlapping(boxes(place(config, tokens, batch))) == 0


def parallel(n_layer: int = 30) -> st.SearchStrategy[GPTNeoXConfig | PhiConfig]:
    """Any sizes of families that run attention and MLP in parallel, with a norm of the MLP or of the heads' vectors."""
    most: Any = {"num_hidden_layers": n_layer, "intermediate_size": 900, "vocab_size": 5000}
    sizes: Any = {name: st.integers(1, n) for name, n in most.items()} | {
        "num_attention_heads": st.just(6),
        "hidden_size": st.integers(1, 60).map(lambda width: 24 * width),
        "max_position_embeddings": st.just(3000),
    }
    neox = st.builds(
        GPTNeoXConfig, rotary_pct=st.just(0.5), use_parallel_residual=st.booleans(), attention_bias=st.booleans(),
        **sizes,
    )  # fmt: skip
    phi = st.builds(PhiConfig, num_key_value_heads=st.sampled_from([1, 3, 6]), qk_layernorm=st.booleans(), **sizes)
    return st.one_of(neox, phi)


@given(parallel(), st.integers(1, 3000), st.integers(1, 64))
@settings(max_examples=40)
def test_no_two_blocks_of_any_parallel_model_overlap(
    config: GPTNeoXConfig | PhiConfig, tokens: int, batch: int
) -> None:
    assert overlapping(boxes(place(config, tokens, batch))) == 0


@pytest.mark.parametrize(
    "config", [GPTNeoXConfig(), GPTJConfig(), PhiConfig(qk_layernorm=True)], ids=lambda c: c.model_type
)
def test_attention_and_mlp_in_parallel_begin_and_end_on_the_same_shelves(config: AnyConfig) -> None:
    geometry = place(config, 20)
    tops = {kind.short_name: float(top) for kind, top in zip(geometry.kinds, geometry.y[:, 0], strict=True)}
    assert tops["q"] == tops["mlp.in_weight"]
    assert tops["attn_out"] == tops["mlp_out"] == tops["resid_post"]


@given(configs(), st.integers(1, 64))
@settings(max_examples=40)
def test_no_two_blocks_of_any_model_overlap(config: Config, batch: int) -> None:
    assert overlapping(boxes(place(config, config.n_positions, batch))) == 0


@pytest.mark.parametrize("style", STYLES)
@given(config=configs(), batch=st.integers(1, 64))
@settings(max_examples=15)
def test_bounds_are_exact_and_zeros_are_positive(style: Style, config: Config, batch: int) -> None:
    geometry = place(config, config.n_positions, batch, style)
    found = boxes(geometry)
    assert geometry.bounds.min == found[:, :3].min(0).tolist()
    assert geometry.bounds.max == (found[:, :3] + found[:, 3:]).max(0).tolist()
    assert not np.signbit(found[found == 0]).any()


# ------------------------------------------------------------------------------------------------ store, errors


@pytest.mark.parametrize("style", STYLES)
def test_a_geometry_round_trips_through_arrays(style: Style) -> None:
    geometry = place(Config(n_layer=14, layer_norm_epsilon=1e-6, d_head=5), 7, 2, style)
    stored = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in geometry.to_arrays().items()}
    again = Geometry.from_arrays(stored)
    assert (again.config, again.tokens, again.batch, again.style) == (geometry.config, 7, 2, style)
    assert all(getattr(again, axis).tobytes() == getattr(geometry, axis).tobytes() for axis in "xyz")
    assert again.bounds == geometry.bounds


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("tokens", {"tokens": 0}),
        ("tokens", {"tokens": 1025}),
        ("tokens", {"tokens": True}),
        ("tokens", {"tokens": 1.0}),
        ("batch", {"batch": 0}),
        ("batch", {"batch": 65}),
        ("style", {"style": "rows"}),
        ("style", {"style": "llm-viz", "config": LlamaConfig()}),
        ("d_head", {"config": Config(n_head=10**6, d_head=10**6)}),
    ],
)
def test_invalid_arguments_are_reported_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        place(**{"config": Config(), "tokens": 8, **arguments})
    assert list(error.value.errors) == [field]
