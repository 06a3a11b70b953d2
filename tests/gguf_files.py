"""GGUF files, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

_FORMATS = {
    "UINT8": "B", "INT8": "b", "UINT16": "H", "INT16": "h", "UINT32": "I", "INT32": "i", "FLOAT32": "f", "BOOL": "?",
    "UINT64": "Q", "INT64": "q", "FLOAT64": "d",
}  # fmt: skip


class Typed(NamedTuple):
    """A value with its type's name, or a list of values of a type."""

    type: str
    value: Any


class Stored(NamedTuple):
    """A tensor as stored: the name of its type, its shape with the slowest axis first, and its bytes."""

    type: str
    shape: tuple[int, ...]
    content: bytes


def text(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def number(type: str, value: Any) -> bytes:
    return struct.pack(f"<{_FORMATS[type]}", value)


def value(given: Any) -> bytes:
    """Return a value with its type: integers are uint32, floats float32."""
    match given:
        case Typed(type, [*elements]):
            code = struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType[type], len(elements))
            return code + b"".join(text(one) if type == "STRING" else number(type, one) for one in elements)
        case Typed(type, one):
            return struct.pack("<I", GGUFValueType[type]) + number(type, one)
        case bool():
            return value(Typed("BOOL", given))
        case int():
            return value(Typed("UINT32", given))
        case float():
            return value(Typed("FLOAT32", given))
        case str() | bytes():
            return struct.pack("<I", GGUFValueType.STRING) + text(given)
        case _:
            raise TypeError(given)


def header(
    metadata: Mapping[str, bytes], infos: Mapping[str, bytes], *, magic: bytes = b"GGUF", version: int = 3,
    keys: int | None = None, tensors: int | None = None,
) -> bytes:  # fmt: skip
    """Return a header of these values and tensor infos, without its padding."""
    counts = (len(infos) if tensors is None else tensors, len(metadata) if keys is None else keys)
    parts = [magic, struct.pack("<IQQ", version, *counts)]
    parts += [text(name) + content for name, content in (*metadata.items(), *infos.items())]
    return b"".join(parts)


def info(type: str | int, shape: tuple[int, ...], offset: int) -> bytes:
    """Return what a header has of a tensor after its name."""
    code = type if isinstance(type, int) else GGMLQuantizationType[type]
    return struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), code, offset)


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Stored | NDArray[Any]]) -> None:
    """Write a file; arrays are float32 or float16."""
    alignment, infos, data = metadata.get("general.alignment", 32), {}, b""
    for name, tensor in tensors.items():
        type, shape, content = tensor if isinstance(tensor, Stored) else plain(tensor)
        infos[name] = info(type, shape, len(data))
        data += content + bytes(-len(content) % alignment)
    start = header({name: value(given) for name, given in metadata.items()}, infos)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + bytes(-len(start) % alignment) + data)


def plain(values: NDArray[Any]) -> Stored:
    """Return float32 or float16 values as a tensor."""
    return Stored({"float32": "F32", "float16": "F16"}[str(values.dtype)], values.shape, values.tobytes())


def blocks(type: str, shape: tuple[int, ...], seed: int = 0, scale: float | None = 0.05) -> Stored:
    """Return random blocks. Scales that are float16 are up to `scale`; None: any bits, also NaN and denormals."""
    size, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    random = np.random.default_rng(seed)
    content = random.integers(0, 256, (int(np.prod(shape)) // size, nbytes), np.uint8)
    if scale is not None:
        for at in _SCALES[type]:
            scales = random.uniform(-scale, scale, len(content)).astype(np.float16)
            content[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return Stored(type, shape, content.tobytes())


#: Where blocks have float16 scales.
_SCALES: Mapping[str, tuple[int, ...]] = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
}  # fmt: skip
