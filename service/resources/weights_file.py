"""A model's weights as one safetensors file, generated while streamed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import Any

from flask import Response
from flask.views import MethodView

import worker.models.lookup as models
import worker.store.safetensors as safetensors
from service.errors import Invalid
from service.http.blueprint import BYTES, RANGE, Blueprint
from service.http.negotiation import representation
from service.http.responses import attachment, ranged, revalidated
from service.http.schemas.models import WeightsQuery
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import patterns
from service.jobs.broker import broker
from service.tensors.encode import SAFETENSORS
from service.tensors.patterns import select
from worker.models.sources import catalogue
from worker.weights.base import Weights

_CHUNK = 1 << 20  # bytes, approximately

blueprint = Blueprint("weights files", __name__, url_prefix="/v1/models", description="A model's weights as one file")


class WeightsFileQuery(WeightsQuery):
    tensors = patterns("h.0.attn.*", "ln_f.*")


@blueprint.route("/<model_id>/safetensors")
class WeightsFile(MethodView):
    """A model's weights as a file."""

    @blueprint.arguments(WeightsFileQuery, location="query")
    @blueprint.example(path={"model_id": "nano-gpt"}, query={"tensors": ["h.0.ln_1.*"]})
    @blueprint.headers(RANGE)
    @blueprint.response(200, BYTES, content_type=SAFETENSORS)
    @blueprint.alt_response(
        206, schema=BYTES, content_type=SAFETENSORS, description="The requested range", success=True
    )
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    @blueprint.alt_response(416, schema=ProblemSchema)
    @blueprint.alt_response(422, schema=ProblemSchema)
    def get(self, query: dict[str, Any], model_id: str) -> Response:
        """Read a model's weights, or those that match a pattern, as one safetensors file; or a range of its bytes.

        They are float32, with the names of the list of weights. A file has at most MAX_EXPORT_BYTES; of a larger model,
        select some weights. Only the weights in the requested range are generated or read.
        """
        representation(SAFETENSORS)
        settings = broker().settings
        model = models.resolve(model_id, settings.models_dir, synthetic_seed=query.get("synthetic"))
        known = dict(catalogue(model.config))
        shapes = {name: known[name] for name in select(known, query.get("tensors", []), f"weight of {model.id}")}
        file = File.build(model.weights(), shapes, {"model": model.id, "weights": model.digest})
        if file.length > settings.max_export_bytes:
            size = f"The file would take {file.length:,} bytes; at most {settings.max_export_bytes:,} are allowed"
            raise Invalid({"tensors": [f"{size} (MAX_EXPORT_BYTES): select some weights by name."]})
        response = revalidated(Response(content_type=SAFETENSORS), model.digest, file.digest)
        attachment(response, f"{model.id}.safetensors")
        return ranged(response, file.length, file.read)


@dataclass(frozen=True)
class File:
    """A header, then the weights of `shapes`, in that order."""

    weights: Weights
    shapes: dict[str, tuple[int, ...]]
    header: bytes

    @classmethod
    def build(cls, weights: Weights, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> File:
        entries = {name: ("<f4", shape) for name, shape in shapes.items()}
        return cls(weights, shapes, safetensors.header(entries, {"format": "pt"} | metadata))

    @property
    def length(self) -> int:
        return len(self.header) + sum(4 * prod(shape) for shape in self.shapes.values())

    @property
    def digest(self) -> str:
        """Return the hash of the header, which identifies the file among those of the same weights."""
        return hashlib.sha256(self.header).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop`."""
        yield self.header[start:stop]
        ends = accumulate((4 * prod(shape) for shape in self.shapes.values()), initial=len(self.header))
        for name, (begin, end) in zip(self.shapes, pairwise(ends), strict=True):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                yield from self._tensor(name, first - begin, last - begin)

    def _tensor(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of one tensor from `start` to before `stop`, generating some whole rows at a time."""
        row = 4 * prod(self.shapes[name][1:])
        rows = max(_CHUNK // row, 1)
        for first in range(start // row, -(-stop // row), rows):
            last = min(first + rows, -(-stop // row))
            part = self.weights.read(name, (slice(first, last),)).astype("<f4", copy=False).tobytes()
            yield part[max(start - first * row, 0) : stop - first * row]
