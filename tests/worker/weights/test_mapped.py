"""Mapped files: values as written, little memory, and validation of headers."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.checkpoints import bfloat16, from_bfloat16, write_raw
from worker.weights.digests import ChangedError
from worker.weights.mapped import MappedWeights
from worker.weights.stored import StoredFile

WIDE = np.random.default_rng(0).normal(size=(31, 7)).astype(np.float32)
DOUBLE = np.random.default_rng(1).normal(size=(31, 7))
DOUBLE[0, 0] = 1e300  # infinite in float32
STORED: dict[str, NDArray[Any]] = {
    "F64": DOUBLE,
    "F32": WIDE,
    "F16": WIDE.astype(np.float16),
    "BF16": bfloat16(WIDE),
}
#: The stored values as float32.
MEANT = {
    "F64": np.where(DOUBLE == 1e300, np.inf, np.minimum(DOUBLE, 9)).astype(np.float32),
    "F32": WIDE,
    "F16": STORED["F16"].astype(np.float32),
    "BF16": from_bfloat16(STORED["BF16"]),
}

dtypes = pytest.mark.parametrize("dtype", STORED)


def weights(path: Path, stored: NDArray[Any], pad: int = 0) -> MappedWeights:
    write_raw(path, {"other": stored[:1], "table": stored}, pad=pad)
    return MappedWeights({"table": StoredFile(path).tensor("table")})


@dtypes
@pytest.mark.parametrize("pad", [0, 1, 2], ids=lambda pad: f"off by {pad}")
def test_values_are_those_of_the_file_as_float32(tmp_path: Path, dtype: str, pad: int) -> None:
    found = weights(tmp_path / "file", STORED[dtype], pad)
    assert found["table"].flags.aligned
    np.testing.assert_array_equal(found["table"], MEANT[dtype], strict=True)
    for key in [(), (3,), (-1, 2), (slice(30, 2, -5), slice(None, None, 3)), (slice(4, 4),)]:
        np.testing.assert_array_equal(found.read("table", key), MEANT[dtype][key], strict=True)
    rows: list[Any] = [np.array([[3, 30], [3, 0]]), slice(2, 9)]
    for index in rows:
        np.testing.assert_array_equal(found.rows("table", index), MEANT[dtype][index], strict=True)


@dtypes
@pytest.mark.parametrize("values_a_tile", [1, 7, 20, 10_000])
def test_tiles_cover_the_matrix_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, values_a_tile: int
) -> None:
    monkeypatch.setattr("worker.weights.mapped._TILE", values_a_tile)
    tiles = [*weights(tmp_path / "file", STORED[dtype]).tiles("table")]
    assert [row for rows, _ in tiles for row in range(31)[rows]] == [*range(31)]
    np.testing.assert_array_equal(np.concatenate([tile for _, tile in tiles]), MEANT[dtype], strict=True)
    if dtype == "F32":
        assert len(tiles) == 1  # nothing is made: it may as well be all of it
    else:
        assert max(tile.size for _, tile in tiles) <= max(values_a_tile, 7)


@dtypes
def test_reading_a_row_takes_the_memory_of_a_row(tmp_path: Path, dtype: str) -> None:
    rows, width, itemsize = 200_000, 1024, STORED[dtype].itemsize
    entry = {"dtype": dtype, "shape": [rows, width], "data_offsets": [0, rows * width * itemsize]}
    write_raw(tmp_path / "file", {}, table=entry)
    with (tmp_path / "file").open("ab") as file:  # zeros that no disk holds
        file.truncate(file.tell() + rows * width * itemsize)
    process = psutil.Process()
    before = process.memory_info().rss
    tracemalloc.start()
    try:
        table = MappedWeights({"table": StoredFile(tmp_path / "file").tensor("table")})
        assert table.read("table", (rows - 1,)).shape == (width,)
        assert table.rows("table", np.array([[5, rows - 2]])).shape == (1, 2, width)
        assert next(table.tiles("table"))[1].shape[1] == width
        assert tracemalloc.get_traced_memory()[1] < 13e6  # a tile of 2²⁰ values, while it is made
    finally:
        tracemalloc.stop()
    assert process.memory_info().rss - before < 60e6  # the table has 400 MB or more


def test_a_file_that_has_changed_since_it_was_opened_is_not_mapped(tmp_path: Path) -> None:
    write_raw(tmp_path / "file", {"table": WIDE})
    tensor = StoredFile(tmp_path / "file").tensor("table")
    os.truncate(tmp_path / "file", 100)
    with pytest.raises(ChangedError, match="file changed while it was read"):
        MappedWeights({"table": tensor})
