"""A reader of GLB files, written from the specifications of glTF 2.0 and EXT_mesh_gpu_instancing."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {5123: "<u2", 5126: "<f4"}
_WIDTHS = {"SCALAR": (), "VEC3": (3,)}


class Glb:
    """A GLB file: its JSON, and its accessors as arrays."""

    def __init__(self, content: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert (kind, size % 4) == (b"JSON", 0)
        self.json: dict[str, Any] = json.loads(content[20 : 20 + size])
        length, kind = struct.unpack_from("<I4s", content, 20 + size)
        self.binary = content[28 + size :]
        assert (kind, length % 4, length) == (b"BIN\0", 0, len(self.binary))
        assert self.json["buffers"] == [{"byteLength": length}]

    def array(self, accessor: int) -> NDArray[Any]:
        """Return the values of an accessor: [n] or [n, 3]."""
        entry = self.json["accessors"][accessor]
        view, dtype = self.json["bufferViews"][entry["bufferView"]], np.dtype(_DTYPES[entry["componentType"]])
        shape = (entry["count"], *_WIDTHS[entry["type"]])
        start, nbytes = entry.get("byteOffset", 0), int(np.prod(shape)) * dtype.itemsize
        assert (view["byteOffset"] + start) % dtype.itemsize == 0
        assert start + nbytes <= view["byteLength"]
        assert view.get("byteStride", dtype.itemsize) == dtype.itemsize * (shape[1] if shape[1:] else 1)
        return np.frombuffer(self.binary, dtype, int(np.prod(shape)), view["byteOffset"] + start).reshape(shape)

    @property
    def root(self) -> dict[str, Any]:
        """The scene's only node, whose children are drawn."""
        [root] = self.json["scenes"][self.json["scene"]]["nodes"]
        node: dict[str, Any] = self.json["nodes"][root]
        return node

    @property
    def parts(self) -> list[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
        """Return the drawn nodes, with the attributes of their instances."""
        children = [self.json["nodes"][n] for n in self.root["children"]]
        attributes = [node["extensions"]["EXT_mesh_gpu_instancing"]["attributes"] for node in children]
        return [
            (node, {name: self.array(n) for name, n in of_node.items()})
            for node, of_node in zip(children, attributes, strict=True)
        ]

    def ids(self) -> list[str]:
        """Return the ids of the blocks in the order of their instances, as a client derives them."""
        kinds = self.root["extras"]["kinds"]
        return [
            kinds[int(kind)]["id"].replace("{layer}", str(node["extras"]["layer"])).replace("{head}", f"{head:.0f}")
            for node, found in self.parts
            for kind, head in zip(found["_KIND"], found["_HEAD"], strict=True)
        ]
