"""A geometry as a glTF 2.0 binary file (GLB).

A unit box is instanced for every block (EXT_mesh_gpu_instancing). float32 is not precise enough for the extent of a
large model. So every layer has a node with its own origin, exact in JSON, and its blocks are relative to it. Data that
is equal in every layer is stored once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.describe.blocks import Role
from worker.layout.encode import ROLES, columns, metadata
from worker.layout.geometry import Geometry

MEDIA_TYPE = "model/gltf-binary"
INSTANCING = "EXT_mesh_gpu_instancing"
INSTANCE_BYTES = 48  # at most, per block: three vectors and three numbers of four bytes
COLORS: dict[Role, tuple[float, float, float]] = {
    "weight": (0.08, 0.16, 0.72),
    "activation": (0.06, 0.42, 0.12),
    "statistic": (0.72, 0.32, 0.04),
}  # linear red, green and blue

_FLOAT, _USHORT = 5126, 5123  # component types
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963  # targets of buffer views
_ROWS = 1 << 14  # of the columns that are built at a time
_TYPES = {1: "SCALAR", 3: "VEC3"}
_JSON, _BIN = 0x4E4F534A, 0x004E4942  # chunk types

Array = NDArray[Any]


def glb(geometry: Geometry, layers: slice | range | None = None) -> list[bytes | memoryview]:
    """Return the file of these layers' blocks, in chunks: 16 bytes per block, plus 32 per block of one layer.

    Blocks before the layers come with the first layer, blocks after them with the last. The root node flips y from
    down, as in the layout, to up, as in glTF; below it, units are those of the layout. A block is the box from its
    node's translation + TRANSLATION, of size SCALE. Instances are in block order. `_ID` is a block's row in the
    columns of the same layers; `_KIND` is its index in `kinds` of the root's extras, whose id pattern, with `_HEAD`
    (-1: none) and `layer` of the node's extras, gives the block's id. All are float32, exact for integers up to 2²⁴:
    glTF allows 32-bit integers only for triangle indices.

    Raises ValueError for layers that do not exist.
    """
    span = geometry.layers(layers)
    parts = list(_parts(geometry, span))
    file = _File()
    box, triangles = _box(file)
    root = {"name": "layout", "scale": [1, -1, 1], "extras": metadata(geometry, span)}
    nodes = [root | {"children": list(range(1, len(parts) + 1))}, *_nodes(file, parts)]
    return file.chunks(
        {
            "asset": {"version": "2.0", "generator": "Cutaway"},
            "extensionsUsed": [INSTANCING],
            "extensionsRequired": [INSTANCING],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": nodes,
            "meshes": [{"primitives": [box | {"indices": file.indices(triangles)}]} for _ in parts],
            "materials": [{"name": "block", "pbrMetallicRoughness": {"metallicFactor": 0}}],
        }
    )


class _Part(NamedTuple):
    """The blocks that share an origin: those of a layer, or before or after all layers."""

    section: str
    layer: int | None
    first: int  # row of the first block
    origin: list[float]  # centre of its bounding box
    translation: NDArray[np.float32]  # [n, 3]
    same: dict[str, Array]  # columns shared by all parts of its section


def _parts(geometry: Geometry, layers: range) -> Iterator[_Part]:
    same: dict[str, dict[str, Array]] = {}
    names = [section.name for section in geometry.architecture.sections]  # before the layers, the layers, after them
    first, together = 0, max(1, _ROWS // geometry.count_in(layers[:1]))
    for at in range(0, len(layers), together):
        table = columns(geometry, layers[at : at + together])
        inside = np.flatnonzero(table["layer"] >= 0)
        stops = [0, int(inside[0]), int(inside[-1]) + 1, len(table["layer"])]
        for section, start, stop in zip(names, stops, stops[1:], strict=False):
            if start == stop:
                continue
            of = layers[at : at + together] if section == geometry.architecture.stack.name else [None]
            rows = {name: array[start:stop].reshape(len(of), -1, *array.shape[1:]) for name, array in table.items()}
            low, size = rows["position"], rows["size"]
            origins = (low.min(1) + (low + size).max(1)) / 2  # [parts, 3]
            places = (low - origins[:, None]).astype("<f4")
            shared = same.setdefault(section, {name: array[0] for name, array in rows.items()})
            for layer, origin, translation in zip(of, origins.tolist(), places, strict=True):
                yield _Part(section, layer, first, origin, translation, shared)
                first += len(translation)


def _nodes(file: _File, parts: list[_Part]) -> list[dict[str, Any]]:
    shared = _shared(file, {part.section: part.same for part in parts})
    lengths = [len(part.translation) for part in parts]
    places = file.accessors([part.translation for part in parts])
    numbers = file.accessors(np.split(np.arange(sum(lengths), dtype="<f4"), np.cumsum(lengths)[:-1]))
    return [
        {
            "name": part.section if part.layer is None else f"{part.section}.{part.layer}",
            "mesh": n,
            "translation": part.origin,
            "extras": {"layer": part.layer, "first": part.first, "count": lengths[n]},
            "extensions": {
                INSTANCING: {"attributes": {"TRANSLATION": places[n], "_ID": numbers[n], **shared[part.section]}}
            },
        }
        for n, part in enumerate(parts)
    ]


def _shared(file: _File, tables: dict[str, dict[str, Array]]) -> dict[str, dict[str, int]]:
    """Return the accessors of the shared columns of each section, by attribute name."""
    palette = np.array([COLORS[role] for role in ROLES], "<f4")
    values = {
        "SCALE": [table["size"].astype("<f4") for table in tables.values()],
        "_COLOR_0": [palette[table["role"]] for table in tables.values()],
        "_KIND": [table["kind"].astype("<f4") for table in tables.values()],
        "_HEAD": [table["head"].astype("<f4") for table in tables.values()],
    }
    accessors = {name: file.accessors(arrays) for name, arrays in values.items()}
    return {section: {name: found[n] for name, found in accessors.items()} for n, section in enumerate(tables)}


def _box(file: _File) -> tuple[dict[str, Any], int]:
    """Return the primitive of the unit box, with separate corners for each face, and the view of its triangles."""
    corners, normals = [], []
    for axis in range(3):
        for side in (0, 1):
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1))[:: 1 if side else -1]:  # counter-clockwise from outside
                corners.append(np.roll([side, u, v], axis))
                normals.append(np.roll([2 * side - 1, 0, 0], axis))
    [position], [normal] = (file.accessors([np.array(vectors, "<f4")]) for vectors in (corners, normals))
    file.described[position] |= {"min": [0, 0, 0], "max": [1, 1, 1]}
    faces = 4 * np.arange(6, dtype="<u2")[:, None] + np.array([0, 1, 2, 0, 2, 3], "<u2")
    primitive = {"attributes": {"POSITION": position, "NORMAL": normal}, "material": 0}
    return primitive, file.view([faces], _ELEMENT_ARRAY_BUFFER)


@dataclass
class _File:
    """Builds the binary chunk of a file, its views and accessors."""

    arrays: list[Array] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    described: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0

    def view(self, arrays: list[Array], target: int, **more: int) -> int:
        """Add a view of concatenated arrays; return its index."""
        length = sum(array.nbytes for array in arrays)
        self.views.append({"buffer": 0, "byteOffset": self.size, "byteLength": length, "target": target, **more})
        self.arrays += arrays
        self.size += length
        return len(self.views) - 1

    def accessors(self, arrays: list[Array]) -> list[int]:
        """Add a view of float32 arrays, [n] or [n, 3] each, and an accessor for each; return the accessors' indices."""
        width = arrays[0][0].size
        view, start, first = self.view(arrays, _ARRAY_BUFFER, byteStride=4 * width), 0, len(self.described)
        for array in arrays:
            self.described.append(
                {"bufferView": view, "byteOffset": start, "componentType": _FLOAT, "count": len(array),
                 "type": _TYPES[width]}
            )  # fmt: skip
            start += array.nbytes
        return list(range(first, len(self.described)))

    def indices(self, view: int) -> int:
        """Add another accessor of a view of uint16: some readers merge meshes that share all accessors."""
        count = self.views[view]["byteLength"] // 2
        self.described.append({"bufferView": view, "componentType": _USHORT, "count": count, "type": "SCALAR"})
        return len(self.described) - 1

    def chunks(self, head: dict[str, Any]) -> list[bytes | memoryview]:
        """Return the file: header, the JSON `head` completed with buffers, views and accessors, and the arrays."""
        buffers = {"buffers": [{"byteLength": self.size}], "bufferViews": self.views, "accessors": self.described}
        text = orjson.dumps(head | buffers)
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + self.size
        words = np.array([0x46546C67, 2, length, len(text), _JSON], "<u4").tobytes()  # 0x46546C67: "glTF"
        binary = np.array([self.size, _BIN], "<u4").tobytes()
        return [words + text + binary, *(array.data.cast("B") for array in self.arrays)]
