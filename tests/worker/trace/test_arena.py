"""Plans and arenas: no gaps, no overlaps, and shared memory only where nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gpt2 import CONFIGS
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe
from worker.trace.arena import Arena, Plan, Slot, captured, measure, plan

SMALL = Config(n_layer=2, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
NAMES = [name for name, _ in describe(SMALL).all_values()]

PATTERNS = [
    ("*",),
    ("probs",),
    ("tokens", "logits"),
    ("logits", "blocks.1.*"),
    ("blocks.*.attn.pattern",),
    ("blocks.0.attn.[qkv]", "probs"),
    ("nothing",),
]


def lie(plan: Plan, names: Iterable[str]) -> list[tuple[int, int]]:
    """The (start, stop) offsets of these tensors, in order."""
    return sorted({(plan.slots[name].offset, plan.slots[name].offset + plan.slots[name].nbytes) for name in names})


def apart(places: list[tuple[int, int]]) -> bool:
    return all(stop <= start for (_, stop), (start, _) in pairwise(places))


PLANS = [*product(PATTERNS, ["float32", "float64"], [False, True])]


@pytest.mark.parametrize(("capture", "precision", "streamed"), PLANS, ids=str)
def test_slots_are_contiguous(capture: tuple[str, ...], precision: str, streamed: bool) -> None:
    made = plan(SMALL, 7, 3, capture, precision, streamed=streamed)
    starts, stops = zip(*lie(made, NAMES), strict=True)
    assert [0, *stops] == [*starts, made.size.memory]


@pytest.mark.parametrize(("capture", "precision", "streamed"), PLANS, ids=str)
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_result_has_its_captured_tensors_in_order_of_computation(
    capture: tuple[str, ...], precision: str, streamed: bool, dtype: str | None
) -> None:
    made = plan(SMALL, 7, 3, capture, precision, dtype, streamed=streamed)
    assert [*made.stored] == [*captured(NAMES, capture)] == [name for section in made.sections for name in section]
    end = 0
    for name, slot in made.stored.items():
        assert (slot.offset, slot.shape) == (end, made.slots[name].shape)
        end += slot.nbytes
    assert end == made.size.result


@pytest.mark.parametrize(("capture", "precision", "streamed"), PLANS, ids=str)
@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize("layers", [1, 2, 11])
def test_measure_matches_the_plan(
    capture: tuple[str, ...], precision: str, streamed: bool, dtype: str | None, layers: int
) -> None:
    config = Config.from_mapping(SMALL.to_mapping() | {"n_layer": layers})
    how: Any = (7, 3, capture, precision, dtype)
    made = plan(config, *how, streamed=streamed)
    assert measure(config, *how, streamed=streamed) == made.size
    assert Arena(made).memory.nbytes == made.size.memory


@pytest.mark.parametrize("capture", PATTERNS, ids=str)
def test_tensors_needed_by_later_passes_have_their_own_memory(capture: tuple[str, ...]) -> None:
    made = plan(SMALL, 7, 3, capture)
    needed = {*made.stored, *(name for name in NAMES if name.endswith(("attn.k", "attn.v")) or "blocks" not in name)}
    assert len(lie(made, needed)) == len(needed)
    assert apart(lie(made, NAMES))
    for name in set(NAMES) - needed:
        assert lie(made, [name])[0] not in lie(made, needed)


@pytest.mark.parametrize(("capture", "precision", "streamed"), PLANS, ids=str)
def test_the_tensors_of_a_layer_and_what_it_reads_do_not_overlap(
    capture: tuple[str, ...], precision: str, streamed: bool
) -> None:
    made = plan(SMALL, 7, 3, capture, precision, streamed=streamed)
    for layer in range(2):
        together = [name for name in NAMES if not name.startswith(f"blocks.{1 - layer}.")]
        assert len(lie(made, together)) == len(together)
        assert apart(lie(made, together))
    assert len(lie(made, ["blocks.0.resid_post", "blocks.1.resid_pre"])) == 2
    assert apart(lie(made, ["blocks.0.resid_post", "blocks.1.resid_pre"]))


@pytest.mark.parametrize("capture", PATTERNS, ids=str)
def test_the_memory_of_one_pass_does_not_grow_with_depth_or_capture(capture: tuple[str, ...]) -> None:
    deep = Config.from_mapping(SMALL.to_mapping() | {"n_layer": 50})
    assert plan(deep, 7, 3, capture, streamed=True).size.memory == plan(SMALL, 7, 3, streamed=True).size.memory


def test_a_section_has_the_tensors_complete_after_a_layer() -> None:
    first, second, last = plan(SMALL, 7).sections
    assert first[:4] == ("tokens", "embed", "pos_embed", "blocks.0.resid_pre")
    assert (first[-1], second[0], second[-1]) == ("blocks.0.resid_post", "blocks.1.resid_pre", "blocks.1.resid_post")
    assert last[0] == "ln_final.mean"
    assert plan(SMALL, 7, 1, ("probs", "tokens")).sections == (("tokens",), (), ("probs",))


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4))
def test_slots_have_the_shapes_of_the_architecture(tokens: int, batch: int) -> None:
    made = plan(SMALL, tokens, batch)
    for name, tensor in describe(SMALL).all_values():
        slot = made.slots[name]
        assert (slot.shape, slot.dtype) == (tensor.shape(describe(SMALL).sizes(tokens, batch)), tensor.dtype)
        assert slot.nbytes == 4 * prod(slot.shape)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["probs"], ["probs"]),
        (["probs", "tokens"], ["tokens", "probs"]),
        (["logits", "log*"], ["logits", "logits_max", "logits_sum"]),
        (["blocks.1.attn.[qkz]"], ["blocks.1.attn.q", "blocks.1.attn.k", "blocks.1.attn.z"]),
        (["blocks.?.mlp.post"], ["blocks.0.mlp.post", "blocks.1.mlp.post"]),
        (["PROBS"], []),
        (["blocks"], []),
        ([], []),
        (["*"], NAMES),
    ],
)
def test_patterns_match_whole_names(patterns: list[str], names: list[str]) -> None:
    assert [*captured(NAMES, patterns)] == names


@pytest.mark.parametrize("id", ["nano-gpt", "gpt2", "gpt2-xl", "gpt3-175b"])
@pytest.mark.parametrize("T", [1, 11, 1024])
def test_a_full_trace_of_any_preset_can_be_measured(id: str, T: int) -> None:
    n = describe(CONFIGS[id]).sizes()
    C, H, HA, F, V = (n[letter] for letter in ("C", "H", "HA", "F", "V"))
    residuals_and_norms, statistics, attention = 7 * C, 4 + 2 * H, 4 * HA + 2 * H * T
    layer = residuals_and_norms + statistics + attention + 2 * F
    ends = 1 + 2 * C + (C + 2) + (2 * V + 2)  # tokens and embeddings, the final norm, the logits
    L = CONFIGS[id].n_layer
    whole, one = 4 * T * (L * layer + ends), 4 * T * (layer + ends)
    assert measure(CONFIGS[id], T) == (whole, whole)
    assert measure(CONFIGS[id], T, streamed=True) == (whole, one)


def test_tensors_are_views_of_one_memory_at_their_offsets() -> None:
    arena = Arena(plan(SMALL, 7, 3))
    start = arena.memory.ctypes.data
    for name, slot in arena.plan.slots.items():
        assert np.shares_memory(arena[name], arena.memory), name
        assert arena[name].ctypes.data == start + slot.offset, name
        assert arena[name].flags.c_contiguous, name


def test_no_two_tensors_overlap() -> None:
    arena = Arena(plan(SMALL, 7, 3))
    places = sorted((values.ctypes.data, values.nbytes) for values in arena.values())
    assert all(start + size <= after for (start, size), (after, _) in pairwise(places))


def test_layers_in_the_window_share_their_values() -> None:
    arena = Arena(plan(SMALL, 7, streamed=True))
    assert arena["blocks.0.attn.q"] is arena["blocks.1.attn.q"]


@pytest.mark.parametrize(
    ("slot", "nbytes"), [(Slot((3, 5), "float16", 0), 30), (Slot((7,), "int32", 0), 28), (Slot((), "float64", 0), 8)]
)
def test_the_bytes_of_a_slot_follow_from_shape_and_dtype(slot: Slot, nbytes: int) -> None:
    assert slot.nbytes == nbytes


def test_an_unknown_tensor_is_a_key_error() -> None:
    arena: Any = Arena(plan(SMALL, 1))
    with pytest.raises(KeyError, match=r"blocks\.2\.resid_pre"):
        arena["blocks.2.resid_pre"]
