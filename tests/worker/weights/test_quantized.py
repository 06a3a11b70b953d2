"""Tensors of GGUF files: bit for bit the values of the gguf package, any part of them, in little memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import worker.weights.quantized as quantized
from tests.checkpoints import bfloat16
from tests.gguf_files import Stored, blocks, info, write_gguf
from worker.weights.digests import ChangedError
from worker.weights.folder import FileError
from worker.weights.quantized import BLOCKS, GgufFile, GgufWeight, GgufWeights
from worker.weights.stored import STORED

ROWS, WIDTH = 7, 768  # columns: three of the largest blocks
TYPES = ("F32", "F16", "BF16", "F64", *BLOCKS)


def stored(type: str, rows: int = ROWS, width: int = WIDTH) -> Stored:
    """Return random bits, for plain types without NaNs."""
    values = np.random.default_rng(3).normal(size=(rows, width))
    plain: dict[str, Any] = {"F64": values, "F32": values.astype(np.float32), "F16": values.astype(np.float16)}
    plain["BF16"] = bfloat16(values.astype(np.float32))
    return (
        Stored(type, values.shape, plain[type].tobytes()) if type in plain else blocks(type, values.shape, scale=None)
    )


def opened(path: Path, tensor: Stored) -> GgufFile:
    write_gguf(path, {"general.architecture": "any"}, {"other": np.ones(3, np.float32), "table": tensor})
    return GgufFile(path)


def weight(path: Path, tensor: Stored, **options: Any) -> GgufWeight:
    file = opened(path, tensor)
    shape = options.pop("shape", file.entries["table"].shape)
    return GgufWeight(file.tensor("table"), shape, **options)


def by_the_library(path: Path) -> NDArray[np.float32]:
    [tensor] = [tensor for tensor in GGUFReader(path).tensors if tensor.name == "table"]
    if tensor.tensor_type.name == "F64":
        return tensor.data.astype(np.float32)
    with np.errstate(all="ignore"):
        return dequantize(tensor.data, tensor.tensor_type)


def assert_same_bits(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert found.dtype == wanted.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32), strict=True)


@pytest.mark.parametrize("type", TYPES)
def test_values_are_those_of_the_gguf_package_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str
) -> None:
    monkeypatch.setattr(quantized, "_TILE", 1000)
    found = weight(tmp_path / "file", stored(type))
    wanted = by_the_library(tmp_path / "file")
    assert_same_bits(found.read(()), wanted)
    for key in [(3,), (slice(None), 5), (-1, 2), (slice(2, 5), slice(31, 33)), (slice(6, 0, -2), slice(700, 3, -40))]:
        part: Any = wanted[key]
        assert_same_bits(np.atleast_1d(found.read(key)), np.atleast_1d(np.ascontiguousarray(part)))


@pytest.mark.parametrize("type", BLOCKS)
def test_random_blocks_have_denormal_infinite_and_invalid_scales(tmp_path: Path, type: str) -> None:
    values = by_the_library(opened(tmp_path / "file", blocks(type, (4000, 256), scale=None)).path)
    assert np.isfinite(values).any()
    if type != "MXFP4":  # its scales are exponents
        assert not np.isfinite(values).all()


def scalar(type: str, block: bytes) -> list[float]:
    """Return the values of a block by the format's definition, one after another."""
    d, m = np.frombuffer(block, "<f2", 2).astype(np.float32)  # m: of the types that have a minimum
    if type == "Q8_0":
        return [d * np.float32(q) for q in np.frombuffer(block, np.int8, 32, 2)]
    low = [byte & 15 for byte in block[-16:]] + [byte >> 4 for byte in block[-16:]]
    if type == "Q4_0":
        return [d * np.float32(q - 8) for q in low]
    if type == "Q4_1":
        return [d * np.float32(q) + m for q in low]
    fifth = int.from_bytes(block[-20:-16], "little")
    five = [q | (fifth >> at & 1) << 4 for at, q in enumerate(low)]
    if type == "Q5_0":
        return [d * np.float32(q - 16) for q in five]
    return [d * np.float32(q) + m for q in five]


@pytest.mark.parametrize("type", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_values_are_those_of_the_definition(tmp_path: Path, type: str) -> None:
    tensor, (_, nbytes) = blocks(type, (2, 64)), GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    wanted = [scalar(type, tensor.content[at : at + nbytes]) for at in range(0, len(tensor.content), nbytes)]
    assert_same_bits(weight(tmp_path / "file", tensor).read(()), np.array(wanted, np.float32).reshape(2, 64))


def parts(size: int) -> st.SearchStrategy[Any]:
    return st.integers(-size, size - 1) | st.slices(size)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("type", ["F16", "Q4_1", "Q6_K"])
def test_any_key_selects_what_it_selects_of_an_array(tmp_path: Path, type: str, transposed: bool) -> None:
    tensor = stored(type) if type == "F16" else blocks(type, (ROWS, WIDTH))
    order, shape = np.random.default_rng(0).permutation(ROWS), (WIDTH, ROWS)
    options: dict[str, Any] = {"transposed": True, "shape": shape} if transposed else {"rows": order}
    found = weight(tmp_path / "file", tensor, **options, offset=-1.0)
    whole = by_the_library(tmp_path / "file") - np.float32(1)
    wanted = whole.T if transposed else whole[order]

    @settings(max_examples=40, database=None, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        key = data.draw(st.tuples(*map(parts, wanted.shape[: data.draw(st.integers(0, 2))])))
        np.testing.assert_array_equal(found.read(key), wanted[key], strict=True)

    check()


@pytest.mark.parametrize("rows", [None, np.arange(64)[::-1]], ids=["in order", "reversed"])
def test_a_vector_may_be_quantized_and_reordered(tmp_path: Path, rows: NDArray[Any] | None) -> None:
    found = weight(tmp_path / "file", blocks("Q8_0", (64,)), rows=rows)
    wanted = by_the_library(tmp_path / "file")
    wanted = wanted if rows is None else wanted[rows]
    assert_same_bits(found.read(()), np.ascontiguousarray(wanted))
    assert_same_bits(found.read((slice(3, 40, 5),)), np.ascontiguousarray(wanted[3:40:5]))
    assert found.read((7,)) == wanted[7]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("values", [1, 1000, 1 << 20])
def test_tiles_and_rows_are_those_of_the_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transposed: bool, values: int
) -> None:
    monkeypatch.setattr(quantized, "_TILE", values)
    shape = (WIDTH, ROWS) if transposed else (ROWS, WIDTH)
    table = weight(tmp_path / "file", blocks("Q5_K", (ROWS, WIDTH)), transposed=transposed, shape=shape)
    weights, whole = GgufWeights({"table": table}), table.read(())
    tiles = [*weights.tiles("table")]
    assert [row for rows, _ in tiles for row in range(shape[0])[rows]] == [*range(shape[0])]
    np.testing.assert_array_equal(np.concatenate([tile for _, tile in tiles]), whole)
    assert all(tile.flags.c_contiguous for _, tile in tiles)
    index = np.array([[3, 6, 3], [0, 0, 5]])
    np.testing.assert_array_equal(weights.rows("table", index), whole[index], strict=True)
    np.testing.assert_array_equal(weights.rows("table", slice(2, 9)), whole[2:9], strict=True)
    np.testing.assert_array_equal(weights["table"], whole)


@pytest.mark.parametrize("type", ["Q4_K", "Q8_0", "F16"])
def test_a_part_takes_the_memory_of_that_part(tmp_path: Path, type: str) -> None:
    rows, width = 40_000, 8192
    size, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    write_gguf(tmp_path / "file", {}, {"table": Stored(type, (1, size), bytes(nbytes))})
    content = (tmp_path / "file").read_bytes()
    small, large = info(type, (1, size), 0), info(type, (rows, width), 0)
    (tmp_path / "file").write_bytes(content.replace(small, large))
    with (tmp_path / "file").open("ab") as file:  # zeros that no disk holds
        file.truncate(file.tell() + rows * width // size * nbytes)
    file_ = GgufFile(tmp_path / "file")
    tracemalloc.start()
    try:
        weights = GgufWeights({"table": GgufWeight(file_.tensor("table"), (rows, width))})
        assert weights.read("table", (rows - 1,)).shape == (width,)
        assert weights.read("table", (slice(None, None, 100), width - 1)).shape == (rows // 100,)
        assert weights.rows("table", np.array([[5, rows - 2]])).shape == (1, 2, width)
        assert tracemalloc.get_traced_memory()[1] < 9e6  # as float32, the table has 1.3 GB
        assert next(weights.tiles("table"))[1].shape[1] == width
        assert tracemalloc.get_traced_memory()[1] < 30e6  # a tile of 2²⁰ values, while it is made
    finally:
        tracemalloc.stop()


def test_a_file_that_changed_since_it_was_opened_is_an_error(tmp_path: Path) -> None:
    found = weight(tmp_path / "file", blocks("Q4_0", (4, 64)))
    os.truncate(tmp_path / "file", 100)
    with pytest.raises(ChangedError, match="file changed while it was read"):
        found.read((1,))


@pytest.mark.parametrize(
    ("type", "shape", "reason"),
    [
        ("I8", (4,), f"the tensor table is I8: must be one of {', '.join((*STORED, *BLOCKS))}"),
        ("Q8_K", (256,), "the tensor table is Q8_K: must be one of F64, F32, F16, BF16, Q4_0, "),
        ("F32", (2, 3, 4), "the tensor table has 3 axes, and at most 2 are supported"),
    ],
)
def test_a_tensor_that_is_not_supported_is_rejected(
    tmp_path: Path, type: str, shape: tuple[int, ...], reason: str
) -> None:
    size, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    file = opened(tmp_path / "file", Stored(type, shape, bytes(int(np.prod(shape)) // size * nbytes)))
    with pytest.raises(FileError) as error:
        file.tensor("table")
    assert reason in str(error.value)
