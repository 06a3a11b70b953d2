"""The memory of a trace: packed without gaps, in order of computation, every tensor a view of the same bytes."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.gpt.architecture import VALUES, expand, sizes
from worker.gpt.arena import Arena, Plan, Slot, captured, plan
from worker.gpt.config import PRESETS, Config

SMALL = Config(n_layer=2, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
NAMES = [name for name, _ in expand(VALUES, 2)]

PATTERNS = [
    ("*",),
    ("probs",),
    ("tokens", "logits"),
    ("logits", "blocks.1.*"),
    ("blocks.*.attn.pattern",),
    ("blocks.0.attn.[qkv]", "probs"),
    ("nothing",),
]


def filled(plan: Plan) -> Arena:
    """An arena whose values are small and all different."""
    arena, n = Arena(plan), 0
    for values in arena.values():
        values[...] = np.arange(n, n + values.size).reshape(values.shape) / (1 if values.dtype == np.int32 else 512)
        n += values.size
    return arena


@pytest.mark.parametrize("capture", PATTERNS, ids=str)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_tensors_lie_one_after_the_other_without_gaps(capture: tuple[str, ...], precision: str) -> None:
    made = plan(SMALL, 7, 3, capture, precision)
    slots = [*made.slots.values()]
    assert slots[0].offset == 0
    assert [before.offset + before.nbytes for before in slots] == [*(after.offset for after in slots[1:]), made.nbytes]


@pytest.mark.parametrize("capture", PATTERNS, ids=str)
def test_captured_tensors_come_first_in_order_of_computation(capture: tuple[str, ...]) -> None:
    made = plan(SMALL, 7, 3, capture)
    wanted = captured(NAMES, capture)
    assert [*made.slots] == wanted + [name for name in NAMES if name not in wanted]
    assert [*made.captured] == wanted
    assert made.captured_bytes == sum(made.slots[name].nbytes for name in wanted)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4))
def test_slots_have_the_shapes_of_the_description(tokens: int, batch: int) -> None:
    made = plan(SMALL, tokens, batch)
    for name, tensor in expand(VALUES, 2):
        slot = made.slots[name]
        assert (slot.shape, slot.dtype) == (tensor.shape(sizes(SMALL, tokens, batch)), tensor.dtype)
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
def test_patterns_capture_the_whole_names_they_match(patterns: list[str], names: list[str]) -> None:
    assert captured(NAMES, patterns) == names


@pytest.mark.parametrize("id", ["nano-gpt", "gpt2", "gpt2-xl", "gpt3-175b"])
@pytest.mark.parametrize("T", [1, 11, 1024])
def test_a_full_trace_of_any_model_is_sized_without_being_made(id: str, T: int) -> None:
    n = sizes(PRESETS[id].config)
    C, H, HA, F, V = (n[letter] for letter in ("C", "H", "HA", "F", "V"))
    residuals_and_norms, statistics, attention = 7 * C, 4 + 2 * H, 4 * HA + 2 * H * T
    layer = residuals_and_norms + statistics + attention + 2 * F
    ends = 1 + 2 * C + (C + 2) + (2 * V + 2)  # tokens and embeddings, the final norm, the logits
    assert plan(PRESETS[id].config, T).nbytes == 4 * T * (PRESETS[id].config.n_layer * layer + ends)


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


def test_what_is_kept_is_the_bytes_of_the_captured_tensors() -> None:
    arena = filled(plan(SMALL, 7, 3, ("blocks.1.attn.z", "logits")))
    assert bytes(arena.kept) == arena["blocks.1.attn.z"].tobytes() + arena["logits"].tobytes()


def test_bytes_are_little_endian() -> None:
    arena = Arena(plan(SMALL, 1, 1, ("tokens", "logits_max")))
    arena["tokens"][...], arena["logits_max"][...] = 258, 1.0
    assert bytes(arena.kept) == bytes.fromhex("02010000 0000803f")


def test_float16_halves_what_is_kept_but_tokens_and_probabilities() -> None:
    arena = filled(plan(SMALL, 7, 3))
    half = arena.cast("float16")
    whole = {"tokens": "int32", "probs": "float32"}
    assert {name: slot.dtype for name, slot in half.plan.slots.items()} == dict.fromkeys(NAMES, "float16") | whole
    for name in NAMES:
        np.testing.assert_array_equal(half[name], arena[name].astype(half[name].dtype), err_msg=name)


def test_a_cast_arena_is_packed_like_any_other() -> None:
    half = filled(plan(SMALL, 7, 3, ("tokens", "blocks.0.*", "probs"))).cast("float16")
    end = 0
    for name in half.plan.captured:
        assert half.plan.slots[name].offset == end
        end += half.plan.slots[name].nbytes
    assert (half.plan.captured_bytes, half.plan.nbytes, len(half.kept)) == (end, end, end)


def test_a_cast_keeps_the_captured_tensors_only() -> None:
    assert [*filled(plan(SMALL, 7, 1, ("logits",))).cast("float16")] == ["logits"]


@pytest.mark.parametrize(("capture", "dtype"), [(("*",), "float32"), (("probs", "tokens"), "float16")])
def test_a_cast_that_changes_nothing_copies_nothing(capture: tuple[str, ...], dtype: str) -> None:
    arena = Arena(plan(SMALL, 7, 1, capture))
    assert np.shares_memory(np.asarray(arena.cast(dtype).kept), arena.memory)


def test_masked_scores_stay_masked_in_float16() -> None:
    arena = Arena(plan(SMALL, 7, 1, ("blocks.0.attn.scores",)))
    arena["blocks.0.attn.scores"][...] = -np.inf
    assert np.isneginf(arena.cast("float16")["blocks.0.attn.scores"]).all()


@pytest.mark.parametrize(
    ("slot", "nbytes"), [(Slot((3, 5), "float16", 0), 30), (Slot((7,), "int32", 0), 28), (Slot((), "float64", 0), 8)]
)
def test_the_bytes_of_a_slot_follow_from_shape_and_dtype(slot: Slot, nbytes: int) -> None:
    assert slot.nbytes == nbytes


def test_an_unknown_tensor_is_a_key_error() -> None:
    arena: Any = Arena(plan(SMALL, 1))
    with pytest.raises(KeyError, match=r"blocks\.2\.resid_pre"):
        arena["blocks.2.resid_pre"]
