"""A tensor as an answer: a slice of it, in a type, in as many cells as are wanted, in one of four representations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import isfinite, prod
from typing import Any

import numpy as np
from flask import Response
from numpy.typing import NDArray
from werkzeug.exceptions import NotFound

import service.tensors.encode as encode
import service.tensors.reduce as reduce
import worker.trace.detail as detail
from service.http.problems import not_acceptable
from service.http.responses import JSON, has_already, json, octets, primed, representation
from service.tensors.detail_levels import DetailLevel
from service.tensors.encode import BINARY, Scale
from service.tensors.slices import Source, View, parse_slice
from worker.store.arrays import StoredArray

MAX_JSON_CELLS = 65_536
Statistics = tuple[float, float]  # the least and the largest value of a whole tensor

#: What is told of an answer's values by a header, beside `Tensor-Shape`.
HEADERS = ["Tensor-Shape", "Tensor-Dtype", "Tensor-Scale", "Tensor-Zero", "Tensor-Factors"]


@dataclass(frozen=True)
class Content:
    """What an answer holds: `parts` gives the values in C order, a bit at a time, and may be asked for again."""

    shape: tuple[int, ...]
    dtype: str
    parts: Callable[[], Iterable[NDArray[Any]]]
    raw: Callable[[], Iterable[bytes]] | None = None  # the values' bytes, where nothing has to be done with them
    scale: Scale | None = None
    factors: tuple[int, ...] = ()

    def chunks(self) -> Iterable[bytes]:
        """The values, little-endian."""
        if self.raw is not None:
            return self.raw()
        return (encode.convert(values, self.dtype, self.scale).tobytes() for values in self.parts())

    def facts(self) -> dict[str, Any]:
        """What has to be known of the values besides their shape and type."""
        told: dict[str, Any] = self.scale._asdict() if self.scale else {}
        return told | ({"factors": list(self.factors)} if self.factors else {})


def answer(
    name: str,
    source: Source,
    query: dict[str, Any],
    *identity: str,
    known: Statistics | None = None,
    smaller: DetailLevel | None = None,
) -> Response:
    """A tensor as a query wants it, in the representation that the client likes best.

    `identity` is what the answer's ETag is made of: where the client has it already, nothing is read. `known` saves
    looking for the scale of a whole tensor, `smaller` reading all of a large one. Raises Invalid (422) for a slice or a
    number of cells that cannot be, and NotAcceptable (406).
    """
    media_type = representation(JSON, *BINARY)
    view = View(source, parse_slice(query["slice"], source.shape))
    shape, by = view.shape, _factors(view.shape, query.get("max_cells"))
    shape = detail.shrunk(shape, by)
    if media_type == JSON and prod(shape) > MAX_JSON_CELLS:
        why = f"JSON holds up to {MAX_JSON_CELLS:,} cells and this is {prod(shape):,}; slice it or give max_cells"
        raise not_acceptable(list(BINARY), why)
    if has_already(media_type, *identity):
        return Response(content_type=media_type)
    return _encoded(media_type, name, _content(view, by, query, known, smaller))


def find(tensors: Mapping[str, Any], name: str, what: str) -> Any:
    """A tensor of a catalogue by name. 404 that says what there is."""
    if name not in tensors:
        some = ", ".join(islice(tensors, 4))
        raise NotFound(f"There is no tensor {name!r} in {what}: it has {len(tensors)}, such as {some}.")
    return tensors[name]


def _factors(shape: tuple[int, ...], max_cells: int | None) -> tuple[int, ...]:
    """By how much the last axes are shrunk; () where nothing is."""
    if max_cells is None or prod(shape) <= max_cells:
        return ()
    return reduce.factors(shape, min(max_cells, reduce.MAX_CELLS))


def _content(
    view: View, by: tuple[int, ...], query: dict[str, Any], known: Statistics | None, smaller: DetailLevel | None
) -> Content:
    stored = view.source.dtype
    dtype = query.get("dtype") or stored.name
    if by:
        if "dtype" not in query and stored.kind in "iub" and query["reduce"] == "mean":
            dtype = "float32"
        read = smaller.shrink if smaller and smaller.serves(view, by) else reduce.shrink
        values = read(view, by, query["reduce"])
        content = Content(values.shape, dtype, lambda: [values], factors=by)
    else:
        raw, run = None, view.contiguous_range
        if run and isinstance(view.source, StoredArray) and dtype == stored.name:
            source = view.source
            raw = lambda: source.stream(*run)  # noqa: E731 - it is one of three
        content = Content(view.shape, dtype, lambda: (values for _, values in view.parts()), raw)
    if dtype != "uint8":
        return content
    whole = not by and view.shape == view.source.shape and known and all(map(isfinite, known))
    return replace(
        content, scale=Scale.of(*(known if whole and known else encode.finite_range(content.parts()))), raw=None
    )


def _encoded(media_type: str, name: str, content: Content) -> Response:
    facts = content.facts()
    if media_type == JSON:
        values = np.frombuffer(b"".join(content.chunks()), content.dtype).reshape(content.shape)
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        body = {"name": name, "shape": content.shape, "dtype": content.dtype} | facts
        response = json(body | {"data": values if content.shape else values[()]})
    else:
        told = {key: str(value) for key, value in facts.items()}
        head = encode.header(media_type, name, content.dtype, content.shape, told)
        nbytes = len(head) + prod(content.shape) * np.dtype(content.dtype).itemsize
        response = octets(primed(chain([head] if head else [], content.chunks())), nbytes, media_type)
    response.headers["Tensor-Shape"] = ",".join(map(str, content.shape))
    response.headers["Tensor-Dtype"] = content.dtype
    for key, value in facts.items():
        response.headers[f"Tensor-{key.title()}"] = ",".join(map(str, value)) if key == "factors" else repr(value)
    return response
