"""The list of a model's weights as JSON, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import orjson

from worker.describe.architecture import Architecture
from worker.describe.blocks import LAYER

_PIECE = 1 << 16  # bytes, about


def pieces(architecture: Architecture, stored: Callable[[str], str] | None = None) -> Iterator[bytes]:
    """Yield {"tensors": [{name, shape, dtype, bytes}, …]}, layer by layer; `stored` gives the type that a file has.

    Without `stored`, the weights of a layer are serialized once for all layers, which differ by their numbers only.
    """
    if stored is not None:
        yield from _pieces_with_types(architecture, stored)
        return
    sizes, start = architecture.sizes(), b'{"tensors":['
    for section in architecture.sections:
        entries = [orjson.dumps(_entry(tensor.name, tensor.shape(sizes))) for tensor in section.weights]
        if not entries:
            continue
        text, layers = b",".join(entries), range(1 if section.layers is None else section.layers)
        for some in _runs(layers, max(1, _PIECE // len(text))):
            yield start + b",".join(text.replace(LAYER.encode(), b"%d" % layer) for layer in some)
            start = b","
    yield b"]}"


def _pieces_with_types(architecture: Architecture, stored: Callable[[str], str]) -> Iterator[bytes]:
    sizes, start = architecture.sizes(), b'{"tensors":['
    for name, tensor in architecture.all_weights():
        yield start + orjson.dumps(_entry(name, tensor.shape(sizes)) | {"stored": stored(name)})
        start = b","
    yield b"]}"


def _entry(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": "float32", "bytes": 4 * prod(shape)}


def _runs(layers: range, length: int) -> Iterator[range]:
    return (layers[first : first + length] for first in range(0, len(layers), length))
