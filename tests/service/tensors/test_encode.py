"""Encoding of values and file headers, checked with other readers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load

from service.tensors.encode import NPY, OCTETS, SAFETENSORS, Scale, convert, finite_range, header

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(arrays(np.float32, st.integers(1, 20), elements=finite))
def test_quantization_error_is_at_most_half_a_step(values: Any) -> None:
    scale = Scale.of(*finite_range([values]))
    restored = scale.scale * (scale.bytes(values) - scale.zero)
    assert (np.abs(restored - values) <= scale.scale * 0.5000001 + 1e-15 * np.abs(values).max()).all()
    assert scale.bytes(values).min() >= 1


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3e38, 1e-45])
def test_a_single_number_is_exact(value: float) -> None:
    value = float(np.float32(value))
    scale = Scale.of(value, value)
    assert scale.scale > 0
    assert scale.scale * (float(scale.bytes(np.array([value]))[0]) - scale.zero) == value


def test_the_extremes_are_1_and_255_and_zero_is_minus_infinity_or_nan() -> None:
    values = np.array([-1, 3, -np.inf, np.nan, np.inf, 1], np.float32)
    assert finite_range([values[:3], values[3:]]) == (-1, 3)
    assert Scale.of(-1, 3).bytes(values).tolist() == [1, 255, 0, 0, 255, 128]


def test_values_that_are_not_finite_have_a_scale_too() -> None:
    values = np.array([-np.inf, np.nan, np.inf])
    assert Scale.of(*finite_range([values])).bytes(values).tolist() == [0, 0, 255]


def test_values_beyond_float16_become_infinite() -> None:
    assert convert(np.array([1e5, -1e5, 0.5]), "float16", None).tolist() == [np.inf, -np.inf, 0.5]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "bool"])
def test_numpy_and_safetensors_read_the_files(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    content = values.tobytes()
    npy = np.load(io.BytesIO(header(NPY, "blocks.0.attn.q", dtype, shape, {}) + content))
    [(name, tensor)] = load(header(SAFETENSORS, "blocks.0.attn.q", dtype, shape, {"scale": "1.0"}) + content).items()
    assert name == "blocks.0.attn.q"
    for read in (npy, tensor):
        assert (read.dtype, read.shape) == (values.dtype, shape)
        np.testing.assert_array_equal(read, values)
    assert header(OCTETS, "blocks.0.attn.q", dtype, shape, {}) == b""
