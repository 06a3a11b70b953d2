"""Values as bytes and files: how near they come, and that other readers read them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load

from service.tensors.encode import NPY, OCTETS, SAFETENSORS, Scale, converted, head, limits

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(arrays(np.float32, st.integers(1, 20), elements=finite))
def test_a_byte_is_the_number_to_half_a_step(values: Any) -> None:
    scale = Scale.of(*limits([values]))
    found = scale.scale * (scale.bytes(values) - scale.zero)
    assert (np.abs(found - values) <= scale.scale * 0.5000001 + 1e-15 * np.abs(values).max()).all()
    assert scale.bytes(values).min() >= 1


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3e38, 1e-45])
def test_one_number_alone_is_exact(value: float) -> None:
    value = float(np.float32(value))
    scale = Scale.of(value, value)
    assert scale.scale > 0
    assert scale.scale * (float(scale.bytes(np.array([value]))[0]) - scale.zero) == value


def test_the_ends_are_the_bytes_1_and_255_and_0_is_what_is_none() -> None:
    values = np.array([-1, 3, -np.inf, np.nan, np.inf, 1], np.float32)
    assert limits([values[:3], values[3:]]) == (-1, 3)
    assert Scale.of(-1, 3).bytes(values).tolist() == [1, 255, 0, 0, 255, 128]


def test_without_a_finite_value_there_is_a_scale_all_the_same() -> None:
    values = np.array([-np.inf, np.nan, np.inf])
    assert Scale.of(*limits([values])).bytes(values).tolist() == [0, 0, 255]


def test_what_float16_cannot_hold_is_infinite() -> None:
    assert converted(np.array([1e5, -1e5, 0.5]), "float16", None).tolist() == [np.inf, -np.inf, 0.5]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "bool"])
def test_files_are_read_by_their_own_readers(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    content = values.tobytes()
    npy = np.load(io.BytesIO(head(NPY, "blocks.0.attn.q", dtype, shape, {}) + content))
    [(name, tensor)] = load(head(SAFETENSORS, "blocks.0.attn.q", dtype, shape, {"scale": "1.0"}) + content).items()
    assert name == "blocks.0.attn.q"
    for read in (npy, tensor):
        assert (read.dtype, read.shape) == (values.dtype, shape)
        np.testing.assert_array_equal(read, values)
    assert head(OCTETS, "blocks.0.attn.q", dtype, shape, {}) == b""
