"""A geometry as numeric columns, one row per block, and as safetensors.

Columns may be limited to a range of layers. Blocks before the layers come with the first layer, blocks after them
with the last, so the columns of consecutive ranges concatenate to those of the whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import accumulate, groupby
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from worker.describe.blocks import Role
from worker.describe.outline import outline
from worker.layout.geometry import COLUMN, Geometry, Ints, Run
from worker.store.safetensors import Entries, header

ROLES: tuple[Role, ...] = ("weight", "activation", "statistic")

#: Dtype and row shape of each column. Wide elements come first, so that all are aligned in a file.
COLUMNS: Mapping[str, tuple[DTypeLike, tuple[int, ...]]] = {
    "position": ("<f8", (3,)),
    "size": ("<f8", (3,)),
    "cells": ("<i4", (3,)),
    "layer": ("<i4", ()),
    "head": ("<i4", ()),
    "role": ("u1", ()),
    "kind": ("u1", ()),
}


def columns(geometry: Geometry, layers: slice | range | None = None) -> dict[str, NDArray[Any]]:
    """Return the columns of the N blocks of these layers, in block order.

    `position` (minimum corner) and `size` are float64 [N, 3], `cells` int32 [N, 3], `layer` and `head` int32 [N]
    (-1: none), `role` (index in ROLES) and `kind` (index in `geometry.kinds`) uint8 [N].

    Raises ValueError for layers that do not exist.
    """
    span = geometry.layers(layers)
    table = {name: np.empty(shape, dtype) for name, (dtype, shape) in _entries(geometry, span).items()}
    _fill(table, geometry, span)
    return table


def safetensors(geometry: Geometry, layers: slice | range | None = None) -> memoryview:
    """Return the columns as a safetensors file whose metadata lists roles and kinds. Raises as `columns` does."""
    span = geometry.layers(layers)
    entries = _entries(geometry, span)
    head = header(entries, _header_metadata(geometry, span))
    file = np.empty(len(head) + sum(np.dtype(dtype).itemsize * prod(shape) for dtype, shape in entries.values()), "u1")
    file[: len(head)] = np.frombuffer(head, "u1")
    table, start = {}, len(head)
    for name, (dtype, shape) in entries.items():
        end = start + np.dtype(dtype).itemsize * prod(shape)
        table[name] = file[start:end].view(dtype).reshape(shape)
        start = end
    _fill(table, geometry, span)
    return file.data


def _entries(geometry: Geometry, layers: range) -> Entries:
    rows = geometry.count_in(layers)
    return {name: (dtype, (rows, *row)) for name, (dtype, row) in COLUMNS.items()}


def metadata(geometry: Geometry, layers: range) -> dict[str, Any]:
    """Return what is needed to read the columns of these layers: roles, kinds and id patterns."""
    kinds = [
        {"id": kind.id, "name": kind.name, "role": kind.role, "scope": "head" if kind.group else kind.scope,
         "dims": kind.cells, "minor": kind.minor, "tensor": kind.tensor, "merges": kind.merges}
        for kind in geometry.kinds
    ]  # fmt: skip
    return {
        "roles": ROLES,
        "kinds": kinds,
        "style": geometry.style,
        "cell": geometry.cell,
        "margin": geometry.margin,
        "count": geometry.count,
        "layers": f"{layers.start}:{layers.stop}",
    }


def _header_metadata(geometry: Geometry, layers: range) -> dict[str, str]:
    fields = metadata(geometry, layers) | {"architecture": outline(geometry.architecture)}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }


def _fill(table: Mapping[str, NDArray[Any]], geometry: Geometry, layers: range) -> None:
    roles = np.array([ROLES.index(kind.role) for kind in geometry.kinds], "u1")
    numbers = np.arange(len(geometry.kinds), dtype="u1")
    for section in _sections(geometry, layers):
        position, size, cells, layer, head, role, kind = (section.of(table[name]) for name in COLUMNS)
        kinds = section.run.kinds
        at = section.layers.clip(0)  # kinds outside the layers have the same x and y in every column and row
        position[..., 0] = geometry.x[kinds, at // COLUMN].T[:, None]
        position[..., 1] = geometry.y[kinds, at % COLUMN].T[:, None]
        position[..., 2] = geometry.back(section.run).T
        size[:] = geometry.size[kinds]
        cells[:] = geometry.cells[kinds]
        layer[:] = section.layers[:, None, None]
        head[:] = section.members[:, None]
        role[:] = roles[kinds]
        kind[:] = numbers[kinds]


class _Section(NamedTuple):
    """The rows of a run's blocks in the columns."""

    run: Run
    layers: Ints  # [l], -1: none
    members: Ints  # [m], -1: no group
    rows: slice  # rows of the section in the columns
    within: slice  # the run's rows within each layer

    def of(self, column: NDArray[Any]) -> NDArray[Any]:
        """[N, …] -> [l, m, k, …], a view."""
        row = column.shape[1:]
        by_layer = column[self.rows].reshape(len(self.layers), -1, *row)[:, self.within]
        return by_layer.reshape(*by_layer.shape[:1], len(self.members), -1, *row)


def _sections(geometry: Geometry, layers: range) -> Iterator[_Section]:
    none, start = np.array([-1]), 0
    for section, some in groupby(geometry.runs, lambda run: run.section):
        runs, times = list(some), geometry.repeats(section, layers)
        lengths = [run.length * geometry.members(run) for run in runs]
        rows = slice(start, start := start + times * sum(lengths))
        if not times:
            continue
        for run, length, end in zip(runs, lengths, accumulate(lengths), strict=True):
            of = none if section.layers is None else np.array(layers)
            members = np.arange(geometry.members(run)) if run.group else none
            yield _Section(run, of, members, rows, slice(end - length, end))
