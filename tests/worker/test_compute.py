"""Computation of results: values, memory and progress."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.compute as compute
from worker.engine.compiled import engine
from worker.engine.numpy_engine import Engine
from worker.families.gpt2 import GPT2Config as Config
from worker.models.lookup import resolve
from worker.requests import LayoutRequest, TraceRequest
from worker.settings import Settings
from worker.trace.arena import Plan, measure, plan
from worker.trace.sampling import Sampling
from worker.weights.base import Weights
from worker.weights.synthetic import SyntheticWeights

ODD = {"n_layer": 3, "n_head": 3, "n_embd": 24, "d_head": 5, "n_inner": 40, "n_positions": 12, "vocab_size": 17}
MODELS: dict[str, Any] = {
    "nano-gpt": "nano-gpt",
    "odd": ODD,
    "one layer": ODD | {"n_layer": 1, "activation_function": "relu"},
    "untied": ODD | {"tie_word_embeddings": False, "activation_function": "gelu"},
}
CAPTURES = [("*",), ("probs",), ("tokens", "blocks.*.resid_post"), ("blocks.0.*", "logits"), ("*attn.[qz]", "*.mlp.*")]


def trace_of(spec: Any = ODD, new: int = 0, tokens: Sequence[int] = (2, 1, 0, 1, 1), **fields: Any) -> TraceRequest:
    generate = Sampling(new, temperature=1.0, seed=3) if new else None
    return TraceRequest(resolve(spec).reference, tuple(tokens), generate, **fields)


def run(request: TraceRequest, **settings: Any) -> tuple[bytes, dict[str, Any]]:
    content = bytearray()
    manifest = compute.trace(request, Settings(**settings), lambda _: content.extend, lambda *_: None)
    return bytes(content), manifest


def array(content: bytes, slot: dict[str, Any]) -> NDArray[Any]:
    values = np.frombuffer(content, slot["dtype"], int(np.prod(slot["shape"])), slot["offset"])
    return values.reshape(slot["shape"])


@pytest.fixture
def run_held(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that computes a request without streaming its layers."""

    def run_unstreamed(request: TraceRequest) -> tuple[bytes, dict[str, Any]]:
        def unstreamed(*how: Any, streamed: bool, **more: Any) -> Plan:
            return plan(*how, **more)

        with monkeypatch.context() as patch:
            patch.setattr(compute, "plan", unstreamed)
            return run(request)

    return run_unstreamed


# -------------------------------------------------------------------------------------------------- the same trace


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("capture", CAPTURES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("tokens", [[2, 1, 0, 1, 1], [1]], ids=["five tokens", "one token"])
@pytest.mark.parametrize("new", [0, 1])
def test_streamed_trace_equals_one_that_is_held_in_memory(
    run_held: Any, model: str, capture: tuple[str, ...], dtype: str, tokens: list[int], new: int
) -> None:
    request = trace_of(MODELS[model], new, capture=capture, dtype=dtype, tokens=tokens)
    assert run(request) == run_held(request)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("capture", CAPTURES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("new", [0, 1, 2, 6])
def test_captured_values_equal_those_of_the_full_trace(
    model: str, capture: tuple[str, ...], dtype: str, new: int
) -> None:
    whole, full = run(trace_of(MODELS[model], new))
    part, found = run(trace_of(MODELS[model], new, capture=capture, dtype=dtype))
    assert found["generated"] == full["generated"]
    for name, slot in found["tensors"].items():
        wanted = array(whole, full["tensors"][name]).astype(slot["dtype"])
        np.testing.assert_array_equal(array(part, slot), wanted, err_msg=name)


def test_memory_of_a_sink_is_reused() -> None:
    views: list[memoryview] = []
    compute.trace(trace_of(), Settings(), lambda _: views.append, lambda *_: None)
    content = b"".join(views)
    assert len(content) == len(run(trace_of())[0])
    assert content != run(trace_of())[0]  # the window was reused


# ----------------------------------------------------------------------------------------------------------- memory


def deep(n_layer: int, **sizes: Any) -> TraceRequest:
    usual = {"n_layer": n_layer, "n_head": 4, "n_embd": 64, "n_positions": 128, "vocab_size": 50}
    return trace_of(usual | sizes, tokens=[7] * 128)


def peak(request: TraceRequest) -> tuple[int, int]:
    """Return the peak memory of a trace and the bytes that it writes."""
    written = 0

    def count(content: memoryview) -> None:
        nonlocal written
        written += len(content)

    tracemalloc.start()
    try:
        compute.trace(request, Settings(), lambda _: count, lambda *_: None)
        return tracemalloc.get_traced_memory()[1], written
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_depth() -> None:
    peak(deep(1))  # allocates what is allocated once
    (shallow_peak, shallow_bytes), (deep_peak, deep_bytes) = peak(deep(20)), peak(deep(200))
    assert deep_bytes > 9 * shallow_bytes > 100e6
    manifest = 180 * 23 * 2000  # the name, slot and description of each additional tensor
    assert deep_peak - shallow_peak < manifest < (deep_bytes - shallow_bytes) / 20
    assert deep_peak < 30e6


@pytest.mark.parametrize("capture", [("*",), ("probs",)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_plan_predicts_the_allocated_and_written_bytes(capture: tuple[str, ...], dtype: str) -> None:
    request = replace(deep(3, n_head=1, n_embd=512), capture=capture, dtype=dtype)
    stored, memory = measure(request.config, 128, capture=capture, dtype=dtype, streamed=True)
    peak_memory, written = peak(request)
    assert written == stored
    assert memory <= peak_memory < memory + 40e6  # a tile of weights, and the values that are being cast and described


def test_weights_are_cached_only_for_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    cached: list[bool] = []
    compute._shared_engine.cache_clear()  # another test's model may be the same

    def watched(weights: Weights, *, cache_weights: bool) -> Engine:
        cached.append(cache_weights)
        return engine(weights, cache_weights=cache_weights)

    monkeypatch.setattr(compute, "engine", watched)
    for new in (0, 1, 2):
        run(trace_of(new=new))
    run(trace_of(new=2), held_weights_bytes=0)
    assert cached == [False, False, True, False]


def test_embedding_matrices_are_never_generated_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    get = SyntheticWeights.__getitem__

    def watched(weights: SyntheticWeights, name: str) -> NDArray[Any]:
        made.append(name)
        return get(weights, name)

    monkeypatch.setattr(SyntheticWeights, "__getitem__", watched)
    run(trace_of())
    assert {name.rpartition(".")[2] for name in made if "ln_" not in name} == {"bias"}


# --------------------------------------------------------------------------------------------------------- progress


@pytest.mark.parametrize("new", [0, 1, 4])
def test_progress_counts_layers_and_work(new: int) -> None:
    reported: list[tuple[int, int, float]] = []
    compute.trace(trace_of(new=new), Settings(), lambda _: lambda content: None, lambda *step: reported.append(step))
    total = 3 * max(new, 1)
    assert [step[:2] for step in reported] == [(n, total) for n in range(1, total + 1)]
    shares = [share for _, _, share in reported]
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert shares[-1] < 1  # the unembedding is still to come


def test_layer_is_written_before_its_progress_is_reported() -> None:
    content, reported = bytearray(), []
    request = trace_of(capture=("blocks.*.resid_post",))
    compute.trace(request, Settings(), lambda _: content.extend, lambda done, *_: reported.append(len(content)))
    assert reported == [n * 4 * 5 * 24 for n in (1, 2, 3)]


def test_arrays_of_a_layout_are_contiguous_and_aligned() -> None:
    content = bytearray()
    request = LayoutRequest(Config.from_mapping(ODD), 7)
    manifest = compute.layout(request, Settings(), lambda _: content.extend, lambda *_: None)
    end = 0
    for slot in sorted(manifest["arrays"].values(), key=lambda slot: slot["offset"]):
        size = np.dtype(slot["dtype"]).itemsize
        assert slot["offset"] == end
        assert end % size == 0  # aligned
        end += size * int(np.prod(slot["shape"]))
    assert len(content) == end
