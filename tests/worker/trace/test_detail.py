"""Levels of detail: factors, and the level stored with a large tensor."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import worker.trace.capture as capture_module
from worker.families.gpt2 import GPT2Config as Config
from worker.trace.arena import Arena, plan
from worker.trace.capture import CaptureWriter, arrays
from worker.trace.detail import REDUCTIONS, Level, factors, shrunk

SHAPES = array_shapes(max_dims=4, max_side=40)


@given(SHAPES, st.integers(1, 5000))
def test_the_reduced_shape_has_over_a_quarter_of_the_cells_allowed(shape: tuple[int, ...], max_cells: int) -> None:
    assume(np.prod(shape[:-2]) <= max_cells)
    by, left = factors(shape, max_cells), shrunk(shape, factors(shape, max_cells))
    assert prod(left) <= max_cells
    assert all(factor & (factor - 1) == 0 for factor in by)
    assert 4 * prod(left) > min(max_cells, prod(shape))


@given(SHAPES, st.integers(1, 5000), st.integers(1, 5000))
def test_a_level_can_be_computed_from_any_finer_one(shape: tuple[int, ...], one: int, other: int) -> None:
    assume(np.prod(shape[:-2]) <= min(one, other))
    coarse, fine = factors(shape, min(one, other)), factors(shape, max(one, other))
    assert all(wide % narrow == 0 for wide, narrow in zip(coarse, fine, strict=True))


@pytest.mark.parametrize(
    ("shape", "max_cells", "by"),
    [
        ((1, 1024, 50_257), 65_536, (4, 256)),
        ((11, 50_257), 65_536, (1, 16)),
        ((1, 12, 1024, 1024), 65_536, (16, 16)),
        ((50_257,), 1000, (64,)),
        ((768, 3072), 1, (1024, 4096)),
        ((), 1, ()),
    ],
)
def test_the_longer_axis_is_halved_until_it_fits(shape: tuple[int, ...], max_cells: int, by: tuple[int, ...]) -> None:
    assert factors(shape, max_cells) == by


@given(array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=24), st.integers(1, 300))
def test_the_strips_of_a_level_cover_the_tensor_in_order(shape: tuple[int, ...], most: int) -> None:
    assume(np.prod(shape) >= 64 * np.prod(shape[:-2]))
    strips = [*Level(shape).strips(most)]
    assert strips[0][0] == 0
    assert strips[-1][1] == np.prod(shape)
    assert all(stop == start for (_, stop), (start, _) in pairwise(strips))


TRACE = Config(n_layer=1, n_head=3, n_embd=24, n_positions=21, vocab_size=170)


def traced(dtype: str, values: Any = None) -> tuple[bytes, dict[str, dict[str, Any]], Arena]:
    """The result of a trace with random values."""
    arena, content = Arena(plan(TRACE, 21, 2, dtype=dtype)), bytearray()
    for name, array in arena.items():
        array[...] = 0
        if array.dtype == np.float32:
            array[...] = np.random.default_rng(len(name)).standard_normal(array.shape)
    if values is not None:
        arena["logits"][0, 3, 5] = values
    writer = CaptureWriter(arena, content.extend)
    writer.write_rest()
    return bytes(content), writer.described, arena


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("at_once", [7, 500, 3000])
def test_only_large_tensors_have_a_level(dtype: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, plain, _ = traced(dtype)
    monkeypatch.setattr("worker.trace.detail.LARGE", 3000)
    monkeypatch.setattr(capture_module, "_AT_ONCE", at_once)
    content, described, arena = traced(dtype)
    assert content.startswith(whole)
    end = len(whole)
    for name, one in described.items():
        smaller = one.pop("smaller", None)
        assert one.pop("mean") == pytest.approx(plain[name].pop("mean"), abs=1e-7)
        assert one == plain[name]
        assert (smaller is not None) == (arena[name].size > 3000 and not name.endswith("attn.scores")), name
        if smaller is None:
            continue
        shape, (rows, columns) = shrunk(arena[name].shape, smaller["by"]), smaller["by"]
        assert 64 * np.prod(shape) <= arena[name].size
        values = np.frombuffer(content, one["dtype"], arena[name].size, one["offset"]).reshape(-1, *one["shape"][-2:])
        end += -end % 4
        assert smaller["offset"] == end
        for combine in REDUCTIONS.values():
            found = np.frombuffer(content, np.float32, int(np.prod(shape)), end).reshape(-1, *shape[-2:])
            end += found.nbytes
            for at in np.ndindex(*found.shape):
                down, across = at[1] * rows, at[2] * columns
                tile = values[at[0], down : down + rows, across : across + columns]
                assert found[at] == pytest.approx(combine.reduce(tile.astype(np.float64), None), abs=1e-5)
    assert end == len(content)
    assert end == sum(np.dtype(kind).itemsize * prod(shape) for kind, shape in arrays(arena.plan).values())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_tensor_that_is_not_finite_has_no_level(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.trace.detail.LARGE", 3000)
    monkeypatch.setattr(capture_module, "_AT_ONCE", 3000)
    described = traced("float32", value)[1]
    assert "smaller" not in described["logits"]
    assert "smaller" in described["probs"]
