"""Headers of safetensors files: what the safetensors library refuses is refused, with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from tests.checkpoints import write_raw
from worker.weights.folder import FileError
from worker.weights.header import MAX_HEADER, Entry, read_header

Fields = dict[str, Any]
F32: Fields = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
LARGEST = 2**63 - 1


def at(start: int, stop: int, **fields: Any) -> Fields:
    return F32 | {"data_offsets": [start, stop]} | fields


def written(path: Path, header: bytes | Fields, nbytes: int) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(nbytes))
    return path


def read(path: Path) -> dict[str, Entry]:
    with path.open("rb") as file:
        return read_header(file)[0]


def refused(path: Path) -> str:
    with pytest.raises(FileError) as error:
        read(path)
    assert len(str(error.value)) < 400
    return str(error.value)


def library_refuses(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy"):
            return False
    except (SafetensorError, OSError):
        return True


INVALID: dict[str, tuple[bytes | Fields, int, str]] = {
    "no JSON": (b"no JSON", 0, "its header is not a JSON object"),
    "a list": (b"[]", 0, "its header is not a JSON object"),
    "nested lists": (b"[" * 5000, 0, "its header is not a JSON object"),
    "no UTF-8": (b'{"\xff": 1}', 0, "its header is not a JSON object"),
    "no header": (b"", 0, "its header is not a JSON object"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, 0, "__metadata__ must map names to strings"),
    "a number": ({"a": 1}, 0, "the tensor a must have a dtype, a shape and data_offsets"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, 4, "the tensor a must have a dtype, a shape and"),
    "a shape as text": ({"a": at(0, 4, shape="1")}, 4, "the tensor a must have a dtype, a shape and data_offsets"),
    "three offsets": ({"a": F32 | {"data_offsets": [0, 4, 4]}}, 4, "the tensor a must have a dtype, a shape and"),
    "a long name": ({"a" * 1_000_000: 1}, 0, "aaa… must have a dtype, a shape and data_offsets"),
    "an unknown type": ({"a": at(0, 4, dtype="F31")}, 4, "the dtype of the tensor a must be one of F4, "),
    "a negative size": ({"a": at(0, 4, shape=[-1])}, 4, "the tensor a must be whole numbers from 0"),
    "a fraction": ({"a": at(0, 4, shape=[1.0])}, 4, "the tensor a must be whole numbers from 0"),
    "a flag": ({"a": at(0, 1, dtype="U8", shape=[True])}, 1, "the tensor a must be whole numbers from 0"),
    "a negative offset": ({"a": at(-4, 0)}, 0, "the tensor a must be whole numbers from 0"),
    "backwards": ({"a": at(4, 0)}, 4, "the tensor a has -4 bytes, which is not the size of its shape"),
    "too few bytes": ({"a": at(0, 4, shape=[2])}, 4, "the tensor a has 4 bytes, which is not the size of its shape"),
    "2 to the 64th": ({"a": at(0, 4, shape=[2**62 + 1])}, 4, "has 4 bytes, which is not the size of its shape"),
    "a product of 2 to the 64th": ({"a": at(0, 0, shape=[2**32, 2**32])}, 0, "which is not the size of its shape"),
    "half a byte": ({"a": at(0, 2, dtype="F4", shape=[3])}, 2, "which is not the size of its shape"),
    "100,000 axes": ({"a": at(0, 4, shape=[LARGEST] * 100_000)}, 4, "the tensor a has 100,000 axes, more than 64"),
    "data missing": ({"a": at(0, 4)}, 3, "is truncated: its tensors have 4 bytes, but only 3 follow the header"),
    "trailing data": ({"a": at(0, 4)}, 5, "has 1 bytes after its last tensor: the file must end there"),
    "nothing but data": ({}, 5, "has 5 bytes after its last tensor"),
    "an overlap": ({"a": at(0, 4), "b": at(0, 4)}, 4, "the tensor b overlaps the one before it"),
    "half an overlap": ({"a": at(0, 4), "b": at(2, 6)}, 6, "the tensor b overlaps the one before it"),
    "a gap": ({"a": at(0, 4), "b": at(8, 12)}, 12, "the tensor b leaves 4 bytes unused"),
    "a gap at the start": ({"a": at(4, 8)}, 8, "the tensor a leaves 4 bytes unused"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_header_is_rejected_as_by_the_library(tmp_path: Path, case: str) -> None:
    header, nbytes, reason = INVALID[case]
    path = written(tmp_path / "file", header, nbytes)
    assert reason in refused(path)
    assert library_refuses(path)


VALID: dict[str, tuple[Fields, int]] = {
    "nothing": ({}, 0),
    "metadata": ({"__metadata__": {"format": "pt"}, "a": F32}, 4),
    "null metadata": ({"__metadata__": None, "a": F32}, 4),
    "another order": ({"b": at(4, 8), "a": at(0, 4)}, 8),
    "empty tensors": ({"a": at(0, 0, shape=[0]), "b": F32, "c": at(4, 4, shape=[3, 0])}, 4),
    "a scalar": ({"a": at(0, 4, shape=[])}, 4),
    "64 axes": ({"a": at(0, 4, shape=[1] * 64)}, 4),
    "half bytes": ({"a": at(0, 2, dtype="F4", shape=[4])}, 2),
}


@pytest.mark.parametrize("case", VALID)
def test_a_valid_header_is_read_as_by_the_library(tmp_path: Path, case: str) -> None:
    path = written(tmp_path / "file", *VALID[case])
    with safe_open(path, framework="numpy") as file:
        assert set(read(path)) == {*file.keys()}


def test_more_axes_than_numpy_has_are_rejected(tmp_path: Path) -> None:
    assert "has 72 axes, more than 64" in refused(written(tmp_path / "file", {"a": at(0, 4, shape=[1] * 72)}, 4))


offsets = st.integers(0, 12)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(["U8", "F16", "F32"]), st.lists(st.integers(0, 3), max_size=2), offsets, offsets)
    ),
    offsets,
)
def test_the_library_and_this_service_agree(tmp_path_factory: pytest.TempPathFactory, found: Any, nbytes: int) -> None:
    header = {
        f"t{n}": {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
        for n, (dtype, shape, start, stop) in enumerate(found)
    }
    path = written(tmp_path_factory.mktemp("header") / "file", header, nbytes)
    try:
        read(path)
        ours = False
    except FileError:
        ours = True
    assert ours == library_refuses(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 40, -1])
def test_a_truncated_file_is_rejected(tmp_path: Path, size: int) -> None:
    write_raw(tmp_path / "file", {"table": np.ones((3, 5), np.float32)})
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[:size])
    assert "is truncated" in refused(tmp_path / "file")
    assert library_refuses(tmp_path / "file")


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 100_000_000])
def test_a_header_that_is_too_large_is_not_read(tmp_path: Path, length: int) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(8 + length)
    assert f"has a header of {length:,} bytes: at most 16,777,216 are read" in refused(tmp_path / "file")


def test_a_length_beyond_the_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff" * 8 + b"{}")
    assert "is truncated or not a safetensors file: it has 10 bytes" in refused(tmp_path / "file")


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n"
    (tmp_path / "file").write_text(pointer)
    assert refused(tmp_path / "file") == "is a Git LFS pointer, not the weights: run git lfs pull"


def test_the_number_of_tensors_is_limited_before_they_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.weights.header._MAX_TENSORS", 2)
    assert [*read(written(tmp_path / "file", {"a": at(0, 4), "b": at(4, 8)}, 8))] == ["a", "b"]
    text = json.dumps({"a": at(0, 4), "b": at(4, 8), "c": at(8, 12)}).encode()
    assert refused(written(tmp_path / "file", text, 12)) == "has 3 tensors: at most 2 are read"
    monkeypatch.setattr("orjson.loads", lambda text: 1 / 0)
    assert "has 3 tensors" in refused(written(tmp_path / "file", text, 12))
