"""Results without Redis: a trace is the same however it leaves, and takes the memory that its plan says."""

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


def asked(spec: Any = ODD, new: int = 0, tokens: Sequence[int] = (2, 1, 0, 1, 1), **fields: Any) -> TraceRequest:
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
def held(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a request in an arena that holds all of its trace until the end."""

    def with_all_held(request: TraceRequest) -> tuple[bytes, dict[str, Any]]:
        def whole(*how: Any, streamed: bool, **more: Any) -> Plan:
            return plan(*how, **more)

        with monkeypatch.context() as patch:
            patch.setattr(compute, "plan", whole)
            return run(request)

    return with_all_held


# -------------------------------------------------------------------------------------------------- the same trace


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("capture", CAPTURES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("tokens", [[2, 1, 0, 1, 1], [1]], ids=["five tokens", "one token"])
@pytest.mark.parametrize("new", [0, 1])
def test_a_trace_of_one_pass_is_that_of_an_arena_that_holds_all(
    held: Any, model: str, capture: tuple[str, ...], dtype: str, tokens: list[int], new: int
) -> None:
    request = asked(MODELS[model], new, capture=capture, dtype=dtype, tokens=tokens)
    assert run(request) == held(request)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("capture", CAPTURES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("new", [0, 1, 2, 6])
def test_what_is_captured_is_part_of_what_there_is(model: str, capture: tuple[str, ...], dtype: str, new: int) -> None:
    whole, full = run(asked(MODELS[model], new))
    part, found = run(asked(MODELS[model], new, capture=capture, dtype=dtype))
    assert found["generated"] == full["generated"]
    for name, slot in found["tensors"].items():
        wanted = array(whole, full["tensors"][name]).astype(slot["dtype"])
        np.testing.assert_array_equal(array(part, slot), wanted, err_msg=name)


def test_a_sink_may_not_keep_what_it_is_given() -> None:
    views: list[memoryview] = []
    compute.trace(asked(), Settings(), lambda _: views.append, lambda *_: None)
    kept = b"".join(views)
    assert len(kept) == len(run(asked())[0])
    assert kept != run(asked())[0]  # the window was used again


# ----------------------------------------------------------------------------------------------------------- memory


def deep(n_layer: int, **sizes: Any) -> TraceRequest:
    usual = {"n_layer": n_layer, "n_head": 4, "n_embd": 64, "n_positions": 128, "vocab_size": 50}
    return asked(usual | sizes, tokens=[7] * 128)


def peak(request: TraceRequest) -> tuple[int, int]:
    """The most memory that a trace takes at once, and the bytes that it hands on."""
    handed_on = 0

    def count(content: memoryview) -> None:
        nonlocal handed_on
        handed_on += len(content)

    tracemalloc.start()
    try:
        compute.trace(request, Settings(), lambda _: count, lambda *_: None)
        return tracemalloc.get_traced_memory()[1], handed_on
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_depth() -> None:
    compute.trace(deep(1), Settings(), lambda _: lambda content: None, lambda *_: None)  # what is made once is made now
    (shallow_peak, shallow_bytes), (deep_peak, deep_bytes) = peak(deep(20)), peak(deep(200))
    assert deep_bytes > 9 * shallow_bytes > 100e6
    manifest = 180 * 23 * 2000  # a name, a slot and a description for every tensor more
    assert deep_peak - shallow_peak < manifest < (deep_bytes - shallow_bytes) / 20
    assert deep_peak < 30e6


@pytest.mark.parametrize("capture", [("*",), ("probs",)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_plans_bytes_are_what_is_allocated_and_handed_on(capture: tuple[str, ...], dtype: str) -> None:
    request = replace(deep(3, n_head=1, n_embd=512), capture=capture, dtype=dtype)
    kept, memory = measure(request.config, 128, capture=capture, dtype=dtype, streamed=True)
    most, handed_on = peak(request)
    assert handed_on == kept
    assert memory <= most < memory + 40e6  # a tile of weights as it is made, and what is cast and described at once


def test_weights_are_kept_for_several_passes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    compute._held.cache_clear()  # another test's model may be the same

    def watched(weights: Weights, *, cache_weights: bool) -> Engine:
        kept.append(cache_weights)
        return engine(weights, cache_weights=cache_weights)

    monkeypatch.setattr(compute, "engine", watched)
    for new in (0, 1, 2):
        run(asked(new=new))
    run(asked(new=2), held_weights_bytes=0)
    assert kept == [False, False, True, False]


def test_neither_embedding_nor_unembedding_makes_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    get = SyntheticWeights.__getitem__

    def watched(weights: SyntheticWeights, name: str) -> NDArray[Any]:
        made.append(name)
        return get(weights, name)

    monkeypatch.setattr(SyntheticWeights, "__getitem__", watched)
    run(asked())
    assert {name.rpartition(".")[2] for name in made if "ln_" not in name} == {"bias"}


# --------------------------------------------------------------------------------------------------------- progress


@pytest.mark.parametrize("new", [0, 1, 4])
def test_progress_counts_the_layers_of_all_passes_and_the_work_that_is_done(new: int) -> None:
    told: list[tuple[int, int, float]] = []
    compute.trace(asked(new=new), Settings(), lambda _: lambda content: None, lambda *step: told.append(step))
    total = 3 * max(new, 1)
    assert [step[:2] for step in told] == [(n, total) for n in range(1, total + 1)]
    shares = [share for _, _, share in told]
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert shares[-1] < 1  # the unembedding is left


def test_what_left_before_a_layer_is_told_is_all_of_it() -> None:
    content, told = bytearray(), []
    request = asked(capture=("blocks.*.resid_post",))
    compute.trace(request, Settings(), lambda _: content.extend, lambda done, *_: told.append(len(content)))
    assert told == [n * 4 * 5 * 24 for n in (1, 2, 3)]


def test_a_layouts_arrays_leave_one_after_the_other() -> None:
    content = bytearray()
    request = LayoutRequest(Config.from_mapping(ODD), 7)
    manifest = compute.layout(request, Settings(), lambda _: content.extend, lambda *_: None)
    end = 0
    for slot in sorted(manifest["arrays"].values(), key=lambda slot: slot["offset"]):
        size = np.dtype(slot["dtype"]).itemsize
        assert slot["offset"] == end
        assert end % size == 0  # where its elements may begin
        end += size * int(np.prod(slot["shape"]))
    assert len(content) == end
