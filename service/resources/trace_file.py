"""A trace, or some of its tensors, as one safetensors file: its bytes come from the cache as they are asked for."""

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
from service.http.responses import immutable, ranged
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import patterns
from service.jobs.broker import broker
from service.tensors.encode import SAFETENSORS
from service.tensors.patterns import select
from worker.describe.architecture import value_name
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
    @blueprint.alt_response(206, schema=BYTES, content_type=SAFETENSORS, description="The range", success=True)
    @blueprint.alt_response(304, description="What you have is still right", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    @blueprint.alt_response(416, schema=ProblemSchema)
    def get(self, query: dict[str, Any], trace_id: str) -> Response:
        """Read a trace, or the tensors that match a pattern, as one safetensors file; or a range of its bytes.

        A range of the first eight bytes tells how long the header is, the header where each tensor lies, and further
        ranges are the tensors. The patterns are the shell's, and know TransformerLens's own names as well.
        """
        representation(SAFETENSORS)
        state = traces.done(trace_id)
        model = traces.recalled(state).id
        metadata = {
            "id": trace_id,
            "model": model or "",
            "config": dumps(state.request.config.to_mapping()).decode(),
            "weights": state.request.model.weights,
            "tokens": dumps(state.request.tokens).decode(),
        }
        file = of(broker().bytes_of(state), state.manifest["tensors"], query.get("tensors", []), metadata)
        response = immutable(Response(content_type=SAFETENSORS), state, file.digest)
        name = f"{model or 'gpt'}-{trace_id[:12]}.safetensors"
        response.headers.set("Content-Disposition", "attachment", filename=name)
        return ranged(response, file.length, file.read)


@dataclass(frozen=True)
class File:
    """The file of some tensors of a trace: in its bytes `run` they begin and end at `places`."""

    run: StoredBytes
    head: bytes
    places: list[tuple[int, int]]

    @property
    def length(self) -> int:
        return len(self.head) + sum(stop - start for start, stop in self.places)

    @property
    def digest(self) -> str:
        """What tells files of a trace from each other: all else follows from the header."""
        return hashlib.sha256(self.head).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`. Raises Missing."""
        values = self._values(start, stop)
        yield self.head[start:stop] + next(values, b"")  # together, so that what is lost is said before all else
        yield from values

    def _values(self, start: int, stop: int) -> Iterator[bytes]:
        ends = [*accumulate((high - low for low, high in self.places), initial=len(self.head))]
        for (low, _), (begin, end) in zip(self.places, pairwise(ends), strict=True):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                yield from self.run.stream(low + first - begin, low + last - begin)


def of(run: StoredBytes, held: dict[str, Any], asked: list[str], metadata: dict[str, str]) -> File:
    """The file of those tensors in the manifest's table `held` that a pattern matches. Raises Invalid (422).

    They stand in order of computation, but that wide elements come first: all are aligned.
    """
    names = select(held, asked, "tensor of this trace", value_name)
    found = {name: (np.dtype(held[name]["dtype"]), tuple(held[name]["shape"])) for name in names}
    entries = dict(sorted(found.items(), key=lambda entry: -entry[1][0].itemsize))
    places = ((held[name]["offset"], held[name]["bytes"]) for name in entries)
    return File(run, safetensors.header(entries, metadata), _joined(places))


def _joined(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of bytes from offsets and sizes: neighbours are one."""
    runs: list[tuple[int, int]] = []
    for offset, size in places:
        if runs and runs[-1][1] == offset:
            runs[-1] = runs[-1][0], offset + size
        else:
            runs.append((offset, offset + size))
    return runs
