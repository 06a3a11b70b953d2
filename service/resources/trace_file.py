"""A trace's tensors as one safetensors file, streamed from storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from flask import Response
from flask.views import MethodView
from marshmallow import Schema
from orjson import dumps

import service.resources.traces as traces
import worker.store.safetensors as safetensors
from service.http.blueprint import BYTES, PREFER, RANGE, Blueprint
from service.http.negotiation import representation
from service.http.responses import attachment, immutable, ranged
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import patterns
from service.jobs.broker import broker
from service.tensors.encode import SAFETENSORS
from service.tensors.patterns import select
from worker.describe.hooks import value_patterns
from worker.store.stored_bytes import StoredBytes

blueprint = Blueprint("trace files", __name__, url_prefix="/v1/traces", description="A trace as one file")


class FileQuery(Schema):
    tensors = patterns("blocks.0.*", "logits")


@blueprint.route("/<trace_id>/safetensors")
class TraceFile(MethodView):
    """A trace as a file."""

    @blueprint.arguments(FileQuery, location="query")
    @blueprint.example(query={"tensors": ["blocks.0.attn.*"]})
    @blueprint.headers(PREFER, RANGE)
    @blueprint.response(200, BYTES, content_type=SAFETENSORS)
    @blueprint.alt_response(
        206, schema=BYTES, content_type=SAFETENSORS, description="The requested range", success=True
    )
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    @blueprint.alt_response(416, schema=ProblemSchema)
    def get(self, query: dict[str, Any], trace_id: str) -> Response:
        """Read a trace, or the tensors that match a pattern, as one safetensors file; or a range of its bytes.

        The first eight bytes are the length of the header, and the header has the offsets of each tensor, so a client
        can read any tensor by ranges. Patterns are as in a shell, and also match TransformerLens's hook names.
        """
        representation(SAFETENSORS)
        state = traces.done(trace_id)
        model = traces.model_of(state).id
        metadata = {
            "id": trace_id,
            "model": model or "",
            "config": dumps(state.request.config.to_mapping()).decode(),
            "weights": state.request.model.weights,
            "tokens": dumps(state.request.tokens).decode(),
        }
        file = build(broker().bytes_of(state), state.manifest["tensors"], query.get("tensors", []), metadata)
        response = immutable(Response(content_type=SAFETENSORS), state, file.digest)
        name = f"{model or 'gpt'}-{trace_id[:12]}.safetensors"
        attachment(response, name)
        return ranged(response, file.length, file.read)


@dataclass(frozen=True)
class File:
    """A header, then some tensors of a trace: the bytes of `run` in `ranges`, each a start and a stop."""

    run: StoredBytes
    header: bytes
    ranges: list[tuple[int, int]]

    @property
    def length(self) -> int:
        return len(self.header) + sum(stop - start for start, stop in self.ranges)

    @property
    def digest(self) -> str:
        """Return the hash of the header, which identifies the file among those of the same trace."""
        return hashlib.sha256(self.header).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop`. Raises Missing if some are lost."""
        values = self._values(start, stop)
        # One chunk, so that Missing is raised before the first byte is sent.
        yield self.header[start:stop] + next(values, b"")
        yield from values

    def _values(self, start: int, stop: int) -> Iterator[bytes]:
        ends = [*accumulate((high - low for low, high in self.ranges), initial=len(self.header))]
        for (low, _), (begin, end) in zip(self.ranges, pairwise(ends), strict=True):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                yield from self.run.stream(low + first - begin, low + last - begin)


def build(run: StoredBytes, slots: dict[str, Any], wanted: list[str], metadata: dict[str, str]) -> File:
    """Return the file of the tensors in the manifest's table `slots` that a pattern of `wanted` matches.

    They are in order of computation, but with the widest elements first, so that all are aligned. Raises Invalid (422)
    if a pattern matches nothing.
    """
    names = select(slots, wanted, "tensor of this trace", lambda pattern: value_patterns(pattern, slots))
    types = {name: (np.dtype(slots[name]["dtype"]), tuple(slots[name]["shape"])) for name in names}
    entries = dict(sorted(types.items(), key=lambda entry: -entry[1][0].itemsize))
    sizes = ((slots[name]["offset"], slots[name]["bytes"]) for name in entries)
    return File(run, safetensors.header(entries, metadata), _merged(sizes))


def _merged(sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of bytes from offsets and sizes; adjacent ones are merged."""
    ranges: list[tuple[int, int]] = []
    for offset, size in sizes:
        if ranges and ranges[-1][1] == offset:
            ranges[-1] = ranges[-1][0], offset + size
        else:
            ranges.append((offset, offset + size))
    return ranges
