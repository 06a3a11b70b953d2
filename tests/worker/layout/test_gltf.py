"""GLB files, read as specified: every block's box, id and colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.glb import Glb
from tests.gpt2 import CONFIGS
from worker.families.gpt2 import GPT2Config as Config
from worker.layout.encode import columns
from worker.layout.geometry import STYLES, Geometry, Style
from worker.layout.gltf import COLORS, INSTANCE_BYTES, INSTANCING, glb
from worker.layout.place import place

EPSILON = 2.0**-23  # of float32


def geometry(style: Style = "columns", n_layer: int = 14) -> Geometry:
    return place(Config(n_layer=n_layer, n_head=3, n_embd=12, n_inner=20, n_positions=9, vocab_size=7), 5, 2, style)


def preset(id: str, style: Style) -> Geometry:
    config = CONFIGS[id]
    return place(config, config.n_positions, style=style)


def read(g: Geometry, layers: range | None = None) -> Glb:
    return Glb(b"".join(map(bytes, glb(g, layers))))


CASES = [geometry(), geometry("llm-viz"), geometry(n_layer=1), preset("nano-gpt", "columns"), preset("gpt2", "llm-viz")]
EVERY = pytest.mark.parametrize("g", CASES, ids=lambda g: f"{g.architecture.n_layer} layers, {g.style}")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model", ["nano-gpt", "gpt2", "gpt3-175b"])
def test_every_box_is_precise_to_float32_within_its_layer(model: str, style: Style) -> None:
    g = preset(model, style)
    expected = columns(g)
    row = 0
    for node, found in read(g).parts:
        rows = slice(row, row := row + len(found["_ID"]))
        assert found["_ID"].tolist() == list(range(rows.start, rows.stop))
        position = np.array(node["translation"]) + found["TRANSLATION"].astype(np.float64)
        extent = np.abs(found["TRANSLATION"]).max(0)
        assert (np.abs(position - expected["position"][rows]) <= EPSILON * extent).all()
        np.testing.assert_array_equal(found["SCALE"], expected["size"][rows].astype(np.float32))
    assert row == g.count


def test_layer_origins_make_the_largest_preset_far_more_precise() -> None:
    g = preset("gpt3-175b", "columns")
    position = columns(g)["position"]
    without = np.abs(position.astype(np.float32) - position).max()
    parts = read(g).parts
    rows = np.concatenate([np.array(node["translation"]) + found["TRANSLATION"] for node, found in parts])
    assert without > 4 * np.abs(rows - position).max()


@EVERY
def test_ids_built_from_the_file_are_those_of_the_blocks(g: Geometry) -> None:
    table = columns(g)
    expected = [
        g.architecture.block_id(g.kinds[kind].id, layer, head)
        for kind, layer, head in zip(*(table[name].tolist() for name in ("kind", "layer", "head")), strict=True)
    ]
    assert read(g).ids() == expected
    assert len(set(expected)) == g.count


@EVERY
def test_a_block_has_the_colour_of_its_role(g: Geometry) -> None:
    assert len(set(COLORS.values())) == 3
    found = np.concatenate([found["_COLOR_0"] for _, found in read(g).parts])
    roles = [g.kinds[kind].role for kind in columns(g)["kind"]]
    np.testing.assert_array_equal(found, np.array([COLORS[role] for role in roles], np.float32))


@EVERY
def test_every_layer_has_its_own_node_and_mesh(g: Geometry) -> None:
    file = read(g)
    nodes = [node for node, _ in file.parts]
    names = ["embedding", *(f"blocks.{n}" for n in range(g.architecture.n_layer)), "unembedding"]
    assert [node["name"] for node in nodes] == names
    assert [node["extras"]["layer"] for node in nodes] == [None, *range(g.architecture.n_layer), None]
    assert [node["extras"]["count"] for node in nodes] == [len(found["_ID"]) for _, found in file.parts]
    assert [node["extras"]["first"] for node in nodes] == [int(found["_ID"][0]) for _, found in file.parts]
    meshes = [file.json["meshes"][node["mesh"]]["primitives"][0] for node in nodes]
    assert len({node["mesh"] for node in nodes}) == len({mesh["indices"] for mesh in meshes}) == len(nodes)
    assert all(len({len(values) for values in found.values()}) == 1 for _, found in file.parts)


def test_the_mesh_is_the_unit_box_seen_from_outside() -> None:
    file = read(geometry())
    for mesh in file.json["meshes"]:
        [primitive] = mesh["primitives"]
        position, normal = (file.array(primitive["attributes"][name]) for name in ("POSITION", "NORMAL"))
        a, b, c = np.moveaxis(position[file.array(primitive["indices"]).reshape(-1, 3)], 1, 0)
        face = np.cross(b - a, c - a)
        assert np.abs(face).sum() == 12  # twice the area of two triangles on each of six sides
        np.testing.assert_array_equal(face, normal[file.array(primitive["indices"])[::3]])
        assert ((position - 0.5) * normal).sum(1).tolist() == [0.5] * 24
        accessor = file.json["accessors"][primitive["attributes"]["POSITION"]]
        assert (accessor["min"], accessor["max"]) == (position.min(0).tolist(), position.max(0).tolist())


def test_the_root_flips_y_and_describes_roles_and_kinds() -> None:
    g = geometry()
    file = read(g)
    extras = file.root["extras"]
    assert file.root["scale"] == [1, -1, 1]
    assert (extras["style"], extras["cell"], extras["margin"], extras["layers"]) == ("columns", 1.5, g.margin, "0:14")
    assert [kind["id"] for kind in extras["kinds"]] == [kind.id for kind in g.kinds]
    assert file.json["extensionsUsed"] == file.json["extensionsRequired"] == [INSTANCING]


def nodes(file: Glb) -> list[tuple[Any, ...]]:
    """The parts of a file, without what depends on their position in it."""
    return [
        (node["name"], node["translation"], *(found[name].tobytes() for name in ("TRANSLATION", "SCALE", "_KIND")))
        for node, found in file.parts
    ]


def test_a_range_of_layers_has_the_same_nodes_as_the_whole() -> None:
    g = geometry()
    parts = [read(g, range(n, n + 7)) for n in (0, 7)]
    assert [node for part in parts for node in nodes(part)] == nodes(read(g))
    for part, start in zip(parts, (0, 7), strict=True):
        ids = np.concatenate([found["_ID"] for _, found in part.parts])
        assert ids.tolist() == list(range(g.count_in(range(start, start + 7))))


@EVERY
def test_a_file_is_at_most_as_large_as_estimated(g: Geometry) -> None:
    assert len(read(g).binary) <= INSTANCE_BYTES * g.count + 1000  # and the box
