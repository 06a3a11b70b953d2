"""Captured tensors: bytes in order, and descriptions, however they are split."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.trace.capture as capture_module
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.families.gpt2 import forward
from worker.families.registry import describe
from worker.trace.arena import Arena, captured, plan
from worker.trace.capture import CaptureWriter
from worker.weights.base import CachedWeights

SMALL = Config(n_layer=2, n_head=3, n_embd=24, d_head=5, n_inner=40, n_positions=9, vocab_size=17)
NAMES = [name for name, _ in describe(SMALL).all_values()]
CAPTURES = [("*",), ("probs",), ("logits", "blocks.1.*"), ("blocks.*.attn.pattern",), ("*resid_p*",), ("nothing",)]


def filled(*how: Any, **more: Any) -> Arena:
    """An arena whose values are small and distinct."""
    arena, n = Arena(plan(SMALL, *how, **more)), 0
    for values in arena.values():
        values[...] = np.arange(n, n + values.size).reshape(values.shape) / (1 if values.dtype == np.int32 else 512)
        n += values.size
    return arena


def written(arena: Arena) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """Everything written at the end of a trace: bytes and descriptions."""
    content = bytearray()
    writer = CaptureWriter(arena, content.extend)
    writer.write_rest()
    return bytes(content), writer.described


def stored(content: bytes, slot: dict[str, Any]) -> NDArray[Any]:
    return np.frombuffer(content, slot["dtype"], int(np.prod(slot["shape"])), slot["offset"]).reshape(slot["shape"])


@pytest.mark.parametrize("capture", CAPTURES, ids=str)
def test_only_the_captured_tensors_are_written_in_order(capture: tuple[str, ...]) -> None:
    arena = filled(7, 3, capture)
    content, described = written(arena)
    names = [*captured(NAMES, capture)]
    assert content == b"".join(arena[name].tobytes() for name in names)
    assert [*described] == names
    assert len(content) == arena.plan.size.result


def test_bytes_are_little_endian() -> None:
    arena = Arena(plan(SMALL, 1, 1, ("tokens", "logits_max")))
    arena["tokens"][...], arena["logits_max"][...] = 258, 1.0
    assert written(arena)[0] == bytes.fromhex("02010000 0000803f")


def test_float16_rounds_all_but_tokens_and_probabilities() -> None:
    arena = filled(7, 3, dtype="float16")
    content, described = written(arena)
    whole = {"tokens": "int32", "probs": "float32"}
    assert {name: slot["dtype"] for name, slot in described.items()} == dict.fromkeys(NAMES, "float16") | whole
    for name in NAMES:
        np.testing.assert_array_equal(stored(content, described[name]), arena[name].astype(described[name]["dtype"]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_masked_scores_are_written_but_not_in_the_statistics(dtype: str) -> None:
    arena = Arena(plan(SMALL, 7, 1, ("blocks.0.attn.scores",), dtype=dtype))
    arena["blocks.0.attn.scores"][...] = np.where(np.tri(7, dtype=bool), 2.0, -np.inf)
    content, described = written(arena)
    one = described["blocks.0.attn.scores"]
    assert np.isneginf(stored(content, one)).sum() == 3 * 21
    assert [one[key] for key in ("min", "max", "mean", "absmax")] == [2, 2, 2, 2]


def test_zeros_are_not_negative() -> None:
    arena = Arena(plan(SMALL, 2, 1, ("logits_max",)))
    arena["logits_max"][...] = 0
    assert str(written(arena)[1]["logits_max"]["absmax"]) == "0.0"


@pytest.mark.parametrize("capture", CAPTURES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("at_once", [7, 100, 1000])
def test_the_result_does_not_depend_on_how_values_are_grouped(
    capture: tuple[str, ...], dtype: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = filled(7, 3, capture, dtype=dtype)
    whole, described = written(arena)
    monkeypatch.setattr(capture_module, "_AT_ONCE", at_once)
    parts: list[bytes] = []
    writer = CaptureWriter(arena, lambda content: parts.append(bytes(content)))
    writer.write_rest()
    assert b"".join(parts) == whole
    assert max(map(len, parts), default=0) <= 4 * at_once
    for name, slot in writer.described.items():
        assert slot["mean"] == pytest.approx(described[name]["mean"], rel=1e-12)  # its sum is rounded in another order
        assert slot | {"mean": 0} == described[name] | {"mean": 0}


CONFIGS = {
    "two layers": SMALL,
    "one layer": Config(n_layer=1, n_head=1, n_embd=8, n_positions=9, vocab_size=17),
    "five layers": Config(n_layer=5, n_head=2, n_embd=12, n_positions=9, vocab_size=5, tie_word_embeddings=False),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("capture", "dtype"), [*product(CAPTURES, ["float32", "float16"])], ids=str)
@pytest.mark.parametrize(("batch", "length"), [(1, 7), (1, 1), (3, 9)])
def test_writing_layer_by_layer_matches_writing_at_the_end(
    config: str, capture: tuple[str, ...], dtype: str, batch: int, length: int, make_weights: Any
) -> None:
    model = CONFIGS[config]
    engine = Engine(CachedWeights(make_weights(model)))
    tokens = np.random.default_rng(5).integers(0, model.vocab_size, (batch, length))

    def run(streamed: bool) -> tuple[bytes, dict[str, dict[str, Any]]]:
        arena, content = Arena(plan(model, length, batch, capture, dtype=dtype, streamed=streamed)), bytearray()
        arena.memory[:] = 0xFF  # not a number
        arena["tokens"][...] = tokens
        writer = CaptureWriter(arena, content.extend)
        forward(model, engine, arena, slice(0, length), writer.write_section if streamed else lambda: None)
        writer.write_rest()
        return bytes(content), writer.described

    assert run(streamed=True) == run(streamed=False)
