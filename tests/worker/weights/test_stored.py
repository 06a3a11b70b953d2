"""Stored tensors: the values of any part as written, little memory, and errors instead of signals."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

import worker.weights.stored as stored
from tests.checkpoints import bfloat16, write_raw
from tests.worker.weights.test_mapped import MEANT, STORED, WIDE, dtypes
from worker.weights.digests import ChangedError
from worker.weights.folder import FileError
from worker.weights.stored import StoredFile, StoredWeights, to_float32

#: Blocks of one row or of several, and rows that are read whole or in part.
SIZES = pytest.mark.parametrize(("block", "pages"), [(1, 0), (64, 0), (64, 1 << 14), (1 << 22, 1 << 14)])
CUBE = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def opened(path: Path, array: NDArray[Any], pad: int = 0) -> StoredWeights:
    write_raw(path, {"other": array[:1], "table": array}, pad=pad)
    return StoredWeights({"table": StoredFile(path).tensor("table")})


def parts(size: int) -> st.SearchStrategy[Any]:
    """Integers and slices for an axis."""
    return st.integers(-size, size - 1) | st.slices(size)


@SIZES
@dtypes
@pytest.mark.parametrize("pad", [0, 1], ids=lambda pad: f"off by {pad}")
def test_parts_of_a_tensor_are_those_of_the_file_as_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, pad: int, block: int, pages: int
) -> None:
    monkeypatch.setattr(stored, "_BLOCK", block)
    monkeypatch.setattr(stored, "_PAGES", pages)
    found = opened(tmp_path / "file", STORED[dtype], pad)
    np.testing.assert_array_equal(found["table"], MEANT[dtype], strict=True)
    for key in [
        (),
        (3,),
        (-1, 2),
        (slice(None), 5),
        (slice(30, 2, -5), slice(None, None, 3)),
        (slice(2, 9), slice(5, None, -2)),
        (slice(4, 4),),
        (slice(None), slice(7, 3)),
    ]:
        np.testing.assert_array_equal(found.read("table", key), MEANT[dtype][key], strict=True)
    rows: list[Any] = [np.array([[3, 30], [3, 0]]), slice(2, 9)]
    for index in rows:
        np.testing.assert_array_equal(found.rows("table", index), MEANT[dtype][index], strict=True)
    np.testing.assert_array_equal(np.concatenate([tile for _, tile in found.tiles("table")]), MEANT[dtype], strict=True)


@SIZES
@pytest.mark.parametrize("array", [CUBE[0, 0, 0], CUBE[0, 0], CUBE[0], CUBE], ids=lambda array: f"{array.ndim} axes")
def test_any_key_selects_what_it_selects_of_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: NDArray[Any], block: int, pages: int
) -> None:
    monkeypatch.setattr(stored, "_BLOCK", block)
    monkeypatch.setattr(stored, "_PAGES", pages)
    write_raw(tmp_path / "file", {"table": np.asarray(array)})
    tensor = StoredFile(tmp_path / "file").tensor("table")

    @settings(max_examples=50, database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        key = data.draw(st.tuples(*map(parts, array.shape[: data.draw(st.integers(0, array.ndim))])))
        np.testing.assert_array_equal(tensor.read(key), array[key])

    check()


def test_an_index_outside_is_an_index_error(tmp_path: Path) -> None:
    for key in [(31,), (0, 7), (-32,)]:
        with pytest.raises(IndexError):
            opened(tmp_path / "file", WIDE).read("table", key)


@settings(max_examples=200)
@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_bfloat16_is_the_upper_half_of_a_float32(numbers: list[float]) -> None:
    halves = bfloat16(np.array(numbers, np.float32))
    np.testing.assert_array_equal(to_float32(halves).view(np.uint32), halves.astype(np.uint32) << 16)


def test_files_of_the_safetensors_package_can_be_read(tmp_path: Path) -> None:
    save_file({"b": WIDE, "a": STORED["F16"]}, tmp_path / "file", {"format": "pt"})
    file = StoredFile(tmp_path / "file")
    np.testing.assert_array_equal(file.tensor("b").read(()), WIDE)
    np.testing.assert_array_equal(file.tensor("a").read(()), STORED["F16"])


@dtypes
def test_reading_a_row_or_a_column_takes_little_memory(tmp_path: Path, dtype: str) -> None:
    rows, width, itemsize = 4_000, 65_536, STORED[dtype].itemsize
    entry = {"dtype": dtype, "shape": [rows, width], "data_offsets": [0, rows * width * itemsize]}
    write_raw(tmp_path / "file", {}, table=entry)
    with (tmp_path / "file").open("ab") as file:  # zeros that no disk holds
        file.truncate(file.tell() + rows * width * itemsize)
    tracemalloc.start()
    try:
        table = StoredWeights({"table": StoredFile(tmp_path / "file").tensor("table")})
        assert table.read("table", (rows - 1,)).shape == (width,)
        assert table.read("table", (slice(None), width - 1)).shape == (rows,)
        assert tracemalloc.get_traced_memory()[1] < 2e6  # the table has 500 MB or more
    finally:
        tracemalloc.stop()


CHANGES: dict[str, Callable[[Path], object]] = {
    "shortened": lambda path: os.truncate(path, path.stat().st_size - 4),
    "emptied": lambda path: os.truncate(path, 0),
    "written over": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "replaced": lambda path: (path.with_name("new").write_bytes(b""), path.with_name("new").replace(path)),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_it_was_opened_is_an_error(tmp_path: Path, change: str) -> None:
    found = opened(tmp_path / "file", WIDE)
    CHANGES[change](tmp_path / "file")
    with pytest.raises(ChangedError, match=r"file (changed while it was|cannot be) read"):
        found.read("table", (3,))


@pytest.mark.parametrize("change", ["shortened", "emptied", "written over"])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    found, read = opened(tmp_path / "file", WIDE), os.preadv

    def changing(*arguments: Any) -> int:
        CHANGES[change](tmp_path / "file")
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", changing)
    with pytest.raises(ChangedError, match="file changed while it was read"):
        found.read("table", ())


# -------------------------------------------------------------------------------------------------- what is wrong


def refused(path: Path, name: str = "table") -> str:
    with pytest.raises(FileError) as error:
        StoredFile(path).tensor(name)
    return str(error.value)


@pytest.mark.parametrize("dtype", ["I8", "BOOL", "C64"])
def test_a_type_that_is_not_supported_is_rejected(tmp_path: Path, dtype: str) -> None:
    write_raw(tmp_path / "file", {}, table={"dtype": dtype, "shape": [0], "data_offsets": [0, 0]})
    assert refused(tmp_path / "file") == f"the tensor table is {dtype}: must be one of F64, F32, F16, BF16"


def test_a_file_that_is_not_a_safetensors_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(7))
    assert "is truncated or not a safetensors file" in refused(tmp_path / "file")
