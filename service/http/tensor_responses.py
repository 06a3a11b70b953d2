"""Responses with a tensor: slices, types, levels of detail, media types."""

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
from service.http.negotiation import representation
from service.http.problems import not_acceptable
from service.http.responses import JSON, client_has, json, octets, primed
from service.tensors.detail_levels import DetailLevel
from service.tensors.encode import BINARY, Scale
from service.tensors.slices import Source, View, parse_slice
from worker.store.arrays import StoredArray

MAX_JSON_CELLS = 65_536
ValueRange = tuple[float, float]  # the smallest and the largest value of a whole tensor

#: Headers that describe the values of a response.
HEADERS = ["Tensor-Shape", "Tensor-Dtype", "Tensor-Scale", "Tensor-Zero", "Tensor-Factors"]


@dataclass(frozen=True)
class Content:
    """The values of a response: `parts` returns them in C order, in several arrays; it can be called again."""

    shape: tuple[int, ...]
    dtype: str
    parts: Callable[[], Iterable[NDArray[Any]]]
    raw: Callable[[], Iterable[bytes]] | None = None  # returns the stored bytes, if they are sent unchanged
    scale: Scale | None = None
    factors: tuple[int, ...] = ()

    def chunks(self) -> Iterable[bytes]:
        """Return the bytes of the values, little-endian."""
        if self.raw is not None:
            return self.raw()
        return (encode.convert(values, self.dtype, self.scale).tobytes() for values in self.parts())

    def metadata(self) -> dict[str, Any]:
        """Return what describes the values in addition to shape and type: scale and factors."""
        metadata: dict[str, Any] = self.scale._asdict() if self.scale else {}
        return metadata | ({"factors": list(self.factors)} if self.factors else {})


def respond(
    name: str,
    source: Source,
    query: dict[str, Any],
    *identity: str,
    value_range: ValueRange | None = None,
    smaller: DetailLevel | None = None,
) -> Response:
    """Respond with the part of a tensor that a query selects, in the media type that the client prefers.

    `identity` determines the ETag: nothing is read if the client has the response. `value_range` saves computing the
    scale of a whole tensor, `smaller` reading all of a large one. Raises Invalid (422) for an invalid slice or number
    of cells, and NotAcceptable (406).
    """
    media_type = representation(JSON, *BINARY)
    view = View(source, parse_slice(query["slice"], source.shape))
    shape, by = view.shape, _factors(view.shape, query.get("max_cells"))
    shape = detail.shrunk(shape, by)
    if media_type == JSON and prod(shape) > MAX_JSON_CELLS:
        reason = f"JSON is limited to {MAX_JSON_CELLS:,} cells, and these are {prod(shape):,}: use slice or max_cells"
        raise not_acceptable(list(BINARY), f"{reason}, or another media type")
    if client_has(media_type, *identity):
        return Response(content_type=media_type)
    return _encoded(media_type, name, _content(view, by, query, value_range, smaller))


def find(tensors: Mapping[str, Any], name: str, owner: str) -> Any:
    """Return the entry of a tensor by name. Raises NotFound (404), whose message calls the trace or model `owner`."""
    if name not in tensors:
        some = ", ".join(islice(tensors, 4))
        raise NotFound(f"There is no tensor {name!r} in {owner}: it has {len(tensors)}, such as {some}.")
    return tensors[name]


def _factors(shape: tuple[int, ...], max_cells: int | None) -> tuple[int, ...]:
    """Return the factors by which the last axes are shrunk; () if they are not."""
    if max_cells is None or prod(shape) <= max_cells:
        return ()
    return reduce.factors(shape, min(max_cells, reduce.MAX_CELLS))


def _content(
    view: View, by: tuple[int, ...], query: dict[str, Any], value_range: ValueRange | None, smaller: DetailLevel | None
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
            raw = lambda: source.stream(*run)  # noqa: E731 - a def would be no clearer
        content = Content(view.shape, dtype, lambda: (values for _, values in view.parts()), raw)
    if dtype != "uint8":
        return content
    is_whole = not by and view.shape == view.source.shape
    if not (is_whole and value_range and all(map(isfinite, value_range))):
        value_range = encode.finite_range(content.parts())
    return replace(content, scale=Scale.of(*value_range), raw=None)


def _encoded(media_type: str, name: str, content: Content) -> Response:
    metadata = content.metadata()
    if media_type == JSON:
        values = np.frombuffer(b"".join(content.chunks()), content.dtype).reshape(content.shape)
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        body = {"name": name, "shape": content.shape, "dtype": content.dtype} | metadata
        response = json(body | {"data": values if content.shape else values[()]})
    else:
        text = {key: str(value) for key, value in metadata.items()}
        head = encode.header(media_type, name, content.dtype, content.shape, text)
        nbytes = len(head) + prod(content.shape) * np.dtype(content.dtype).itemsize
        response = octets(primed(chain([head] if head else [], content.chunks())), nbytes, media_type)
    response.headers["Tensor-Shape"] = ",".join(map(str, content.shape))
    response.headers["Tensor-Dtype"] = content.dtype
    for key, value in metadata.items():
        response.headers[f"Tensor-{key.title()}"] = ",".join(map(str, value)) if key == "factors" else repr(value)
    return response
