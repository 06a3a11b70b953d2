"""The list of a model's weights as JSON, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import orjson

from worker.describe.architecture import Architecture
from worker.describe.blocks import LAYER

_PIECE = 1 << 16  # bytes, about


def pieces(architecture: Architecture) -> Iterator[bytes]:
    """Yield {"tensors": [{name, shape, dtype, bytes}, …]}, layer by layer.

    The weights of a layer are serialized once for all layers, which differ by their numbers only.
    """
    sizes, start = architecture.sizes(), b'{"tensors":['
    for section in architecture.sections:
        entries = []
        for tensor in section.weights:
            shape = tensor.shape(sizes)
            entry = {"name": tensor.name, "shape": shape, "dtype": "float32", "bytes": 4 * prod(shape)}
            entries.append(orjson.dumps(entry))
        if not entries:
            continue
        text, layers = b",".join(entries), range(1 if section.layers is None else section.layers)
        for some in _runs(layers, max(1, _PIECE // len(text))):
            yield start + b",".join(text.replace(LAYER.encode(), b"%d" % layer) for layer in some)
            start = b","
    yield b"]}"


def _runs(layers: range, length: int) -> Iterator[range]:
    return (layers[first : first + length] for first in range(0, len(layers), length))
