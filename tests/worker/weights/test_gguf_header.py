"""Headers of GGUF files: read as by the gguf package, and every invalid one rejected with what is wrong."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gguf_files import Stored, Typed, header, info, text, value, write_gguf
from worker.weights.folder import LFS_POINTER, FileError
from worker.weights.gguf_header import MAX_KEYS, MAX_STRINGS, MAX_TENSORS, GgufHeader, StoredList, read_gguf_header
from worker.weights.gguf_header import read_list as read_stored_list

F32 = info("F32", (2, 3), 0)


def read(path: Path) -> GgufHeader:
    with path.open("rb") as file:
        return read_gguf_header(file)


def read_list(path: Path, found: StoredList) -> list[Any]:
    with path.open("rb") as file:
        return read_stored_list(file, found)


def refused(path: Path) -> str:
    with pytest.raises(FileError) as error:
        read(path)
    assert len(str(error.value)) < 400
    return str(error.value)


def written(path: Path, start: bytes, nbytes: int = 24) -> Path:
    path.write_bytes(start + bytes(-len(start) % 32) + bytes(nbytes))
    return path


# ---------------------------------------------------------------------------------------------------------- valid


def test_a_file_of_the_gguf_package_is_read_as_by_its_own_reader(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "file", "llama")
    writer.add_uint8("a.uint8", 200)
    writer.add_int8("a.int8", -3)
    writer.add_uint16("a.uint16", 60_000)
    writer.add_int16("a.int16", -30_000)
    writer.add_uint32("a.uint32", 2**32 - 1)
    writer.add_int32("a.int32", -(2**31))
    writer.add_uint64("a.uint64", 2**64 - 1)
    writer.add_int64("a.int64", -(2**63))
    writer.add_float32("a.float32", 0.5)
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "naïve 🙂")
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.floats", [0.5, 0.25])
    writer.add_array("a.long", [*range(20_000)])
    writer.add_array("a.texts", ["a", "", "naïve"])
    writer.add_tensor("one", np.arange(5, dtype=np.float32))
    writer.add_tensor("two", np.arange(6, dtype=np.float16).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata, tensors = read(tmp_path / "file")
    library = GGUFReader(tmp_path / "file")
    fields = {name: field.contents() for name, field in library.fields.items() if not name.startswith("GGUF.")}
    assert metadata.keys() == fields.keys()
    for name, found in metadata.items():
        if isinstance(found, StoredList):
            elements = read_list(tmp_path / "file", found)
            found = [one.decode() if isinstance(one, bytes) else one for one in elements]
        assert found == fields[name]
    assert isinstance(metadata["a.long"], StoredList)
    for tensor in library.tensors:
        entry = tensors[tensor.name]
        assert (entry.type, entry.shape[::-1]) == (tensor.tensor_type.name, tuple(tensor.shape.tolist()))
        assert (entry.start, entry.stop) == (tensor.data_offset, tensor.data_offset + tensor.n_bytes)


def test_a_float32_is_the_shortest_decimal_that_stands_for_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "file", {"small": 1e-5, "base": 1e6, "list": Typed("FLOAT32", [0.1, 0.25])}, {})
    assert read(tmp_path / "file").metadata == {"small": 1e-5, "base": 1e6, "list": [0.1, 0.25]}


@pytest.mark.parametrize("alignment", [1, 8, 32, 4096])
def test_tensors_begin_at_multiples_of_the_alignment(tmp_path: Path, alignment: int) -> None:
    arrays = {"a": np.ones(3, np.float32), "b": np.ones((2, 5), np.float32)}
    write_gguf(tmp_path / "file", {"general.alignment": alignment}, arrays)
    content = (tmp_path / "file").read_bytes()
    for name, entry in read(tmp_path / "file").tensors.items():
        assert entry.start % alignment == 0
        assert content[entry.start : entry.stop] == arrays[name].tobytes()


def test_version_2_is_read(tmp_path: Path) -> None:
    found = read(written(tmp_path / "file", header({"a": value(1)}, {"t": F32}, version=2)))
    assert (found.metadata, [*found.tensors]) == ({"a": 1}, ["t"])


def test_bytes_after_the_last_tensor_are_ignored_as_by_llama_cpp(tmp_path: Path) -> None:
    assert read(written(tmp_path / "file", header({}, {"t": F32}), 100)).tensors["t"].shape == (2, 3)


# -------------------------------------------------------------------------------------------------------- invalid

HUGE = 2**64 - 1
INVALID: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "is not a GGUF file: it does not begin with GGUF"),
    "three bytes": (b"GGU", "is not a GGUF file"),
    "another format": (b"PK\3\4" + bytes(100), "is not a GGUF file: it does not begin with GGUF"),
    "a pointer": (LFS_POINTER + b"v1\noid sha256:0", "is a Git LFS pointer, not the weights: run git lfs pull"),
    "only the magic": (b"GGUF", "is truncated: its header does not end within its"),
    "version 1": (header({}, {}, version=1), "is a GGUF file of version 1, and only 2 and 3 are supported"),
    "version 4": (header({}, {}, version=4), "is a GGUF file of version 4, and only 2 and 3"),
    "big-endian": (header({}, {}, version=3 << 24), "is big-endian, and only little-endian GGUF files"),
    "too many tensors": (header({}, {}, tensors=MAX_TENSORS + 1), "has 200,001 tensors: at most 200,000 are read"),
    "endless tensors": (header({}, {}, tensors=HUGE), "tensors: at most 200,000 are read"),
    "too many keys": (header({}, {}, keys=MAX_KEYS + 1), "has 10,001 keys: at most 10,000 are read"),
    "missing keys": (header({}, {}, keys=9000), "a name of 0 bytes must have from 1 to 65,535"),
    "an endless name": (header({}, {}, keys=1) + struct.pack("<Q", HUGE), "a name of 18,446,744,073,709,551,615"),
    "a name that is not UTF-8": (header({}, {}, keys=1) + text(b"\xff\xfe"), "a name is not UTF-8"),
    "a text that is not UTF-8": (header({"a": value(b"\xff")}, {}), "the text of a is not UTF-8"),
    "an endless text": (header({"a": struct.pack("<IQ", 8, HUGE)}, {}), "is truncated: its header does not end"),
    "an unknown type": (header({"a": struct.pack("<I", 13)}, {}), "the key a has a value of the unknown type 13"),
    "an endless list": (header({"a": struct.pack("<IIQ", 9, 4, HUGE)}, {}), "is truncated: its header does not end"),
    "endless texts": (header({"a": struct.pack("<IIQ", 9, 8, HUGE)}, {}), "has more than 2,000,000 texts in lists"),
    "a list of lists": (header({"a": struct.pack("<IIQ", 9, 9, 1)}, {}), "elements of the unsupported type 9"),
    "a list of nothing": (header({"a": struct.pack("<IIQ", 9, 77, 0)}, {}), "elements of the unsupported type 77"),
    "an alignment of 0": (header({"general.alignment": value(0)}, {}), "general.alignment must be a power of two"),
    "an alignment of 24": (header({"general.alignment": value(24)}, {}), "general.alignment must be a power of two"),
    "an alignment in words": (header({"general.alignment": value("32")}, {}), "general.alignment must be a power of"),
    "no axes": (header({}, {"t": info("F32", (), 0)}), "the tensor t has 0 axes, and from 1 to 4 are allowed"),
    "five axes": (header({}, {"t": info("F32", (1,) * 5, 0)}), "the tensor t has 5 axes, and from 1 to 4"),
    "endless axes": (header({}, {"t": struct.pack("<I", 2**32 - 1)}), "the tensor t has 4,294,967,295 axes"),
    "an axis of 0": (header({}, {"t": info("F32", (2, 0), 0)}), "the tensor t has the shape [2, 0]"),
    "an endless axis": (header({}, {"t": info("F32", (HUGE,), 0)}), "the tensor t has the shape [184467440"),
    "a product of 2 to the 64th": (header({}, {"t": info("F32", (2**32, 2**32), 0)}), "the tensor t has the shape"),
    "a type of no tensor": (header({}, {"t": info(999, (2,), 0)}), "the tensor t is of the unknown type 999"),
    "half a block": (header({}, {"t": info("Q4_0", (3, 48), 0)}), "rows of 48 values, which is no multiple of 32"),
    "data missing": (header({}, {"t": info("F32", (9,), 0)}), "is truncated: the tensor t ends at byte"),
    "terabytes": (header({}, {"t": info("F32", (2**40,), 0)}), "is truncated: the tensor t ends at byte"),
    "an endless offset": (header({}, {"t": info("F32", (1,), HUGE)}), "the tensor t leaves 18,446,744,073,709,551,615"),
    "an unaligned offset": (header({}, {"t": info("F32", (1,), 4)}), "the tensor t leaves 4 bytes unused"),
    "an overlap": (header({}, {"t": F32, "u": F32}), "the tensor u overlaps the one before it"),
    "a gap": (header({}, {"t": F32, "u": info("F32", (1,), 64)}), "the tensor u leaves 32 bytes unused"),
    "a long name": (header({"k" * 60_000: struct.pack("<I", 13)}, {}), "kkk… has a value of the unknown type 13"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_header_is_rejected_with_what_is_wrong(tmp_path: Path, case: str) -> None:
    start, reason = INVALID[case]
    path = tmp_path / "file"
    path.write_bytes(start) if len(start) < 24 else written(path, start)
    assert reason in refused(path)


@pytest.mark.parametrize("of", ["keys", "tensors"])
def test_a_name_that_occurs_twice_is_rejected(tmp_path: Path, of: str) -> None:
    twice = text("same") + (value(1) if of == "keys" else F32)
    counts: dict[str, int] = {of: 2}
    assert f"it has the {of[:-1]} same twice" in refused(
        written(tmp_path / "file", header({}, {}, **counts) + twice + twice)  # type: ignore[arg-type]
    )


def test_a_header_longer_than_the_limit_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path / "file", header({"a": struct.pack("<IQ", 8, 65 << 20)}, {}))
    with path.open("ab") as file:  # zeros that no disk holds
        file.truncate(70 << 20)
    assert refused(path) == "has a header of more than 67,108,864 bytes, the limit"


def test_every_truncation_of_a_file_is_rejected(tmp_path: Path) -> None:
    metadata = {"a": 1, "b": "text", "c": Typed("STRING", ["x", "yz"]), "d": Typed("UINT16", [1, 2])}
    write_gguf(tmp_path / "whole", metadata, {"t": np.ones((2, 3), np.float32), "u": np.ones(8, np.float32)})
    content = (tmp_path / "whole").read_bytes()
    for length in range(len(content)):
        (tmp_path / "file").write_bytes(content[:length])
        assert refused(tmp_path / "file")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_a_header_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("changed") / "file"
    metadata = {"a": 1, "b": "text", "c": Typed("STRING", ["x", "yz"]), "d": Typed("UINT16", [1, 2])}
    write_gguf(path, metadata, {"t": np.ones((2, 3), np.float32), "q": Stored("Q8_0", (2, 32), bytes(68))})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(FileError):
        assert all(entry.stop <= len(content) for entry in read(path).tensors.values())


def test_the_longest_list_of_texts_is_passed_over_and_not_stored(tmp_path: Path) -> None:
    texts = struct.pack("<IIQ", 9, 8, MAX_STRINGS) + (struct.pack("<Q", 1) + b"x") * MAX_STRINGS
    found = read(written(tmp_path / "file", header({"a": texts}, {}))).metadata["a"]
    assert isinstance(found, StoredList)
    assert (found.code, found.length) == (8, MAX_STRINGS)
