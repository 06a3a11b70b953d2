"""Headers of safetensors files, as the safetensors package reads them."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from worker.store.safetensors import header


def test_metadata_can_be_any_text() -> None:
    data = header({"a": ("<f4", (2, 0)), "b": ("<i8", ())}, {"text": 'μ "σ" \n'}) + bytes(8)
    assert {name: array.shape for name, array in load(data).items()} == {"a": (2, 0), "b": ()}


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
def test_package_reads_every_dtype(dtype: str) -> None:
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    read = load(header({"a": (dtype, (2, 3))}, {}) + values.tobytes())["a"]
    assert read.dtype == values.dtype
    assert np.array_equal(read, values)


@pytest.mark.parametrize("length", range(9))
def test_header_is_a_multiple_of_8_bytes(length: int) -> None:
    head = header({"a": ("<f8", (1,))}, {"text": "x" * length})
    assert len(head) % 8 == 0
    assert load(head + np.float64(0.5).tobytes())["a"].tolist() == [0.5]
