"""A model's weights, or some of them, as one safetensors file: what is read of it is made or read, and no more."""

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
from service.http.responses import ranged, revalidated
from service.http.schemas.models import WeightsQuery
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import patterns
from service.jobs.broker import broker
from service.tensors.encode import SAFETENSORS
from service.tensors.patterns import select
from worker.models.sources import catalogue
from worker.weights.base import Weights

_AT_ONCE = 1 << 20  # bytes, about

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
    @blueprint.alt_response(206, schema=BYTES, content_type=SAFETENSORS, description="The range", success=True)
    @blueprint.alt_response(304, description="What you have is still right", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    @blueprint.alt_response(416, schema=ProblemSchema)
    @blueprint.alt_response(422, schema=ProblemSchema)
    def get(self, query: dict[str, Any], model_id: str) -> Response:
        """Read a model's weights, or those that match a pattern, as one safetensors file; or a range of its bytes.

        They are float32 and have the names that the list of them tells. A file is at most MAX_EXPORT_BYTES long: of a
        larger model, ask for some of its weights. A range costs no more than what lies in it.
        """
        representation(SAFETENSORS)
        settings = broker().settings
        model = models.resolve(model_id, settings.models_dir, synthetic_seed=query.get("synthetic"))
        known = dict(catalogue(model.config))
        shapes = {name: known[name] for name in select(known, query.get("tensors", []), f"weight of {model.id}")}
        file = File.of(model.weights(), shapes, {"model": model.id, "weights": model.digest})
        if file.length > settings.max_export_bytes:
            most = f"{file.length:,} bytes are too many for one file: at most {settings.max_export_bytes:,}"
            raise Invalid({"tensors": [f"{most}. Ask for some of the weights by their names."]})
        response = revalidated(Response(content_type=SAFETENSORS), model.digest, file.digest)
        response.headers.set("Content-Disposition", "attachment", filename=f"{model.id}.safetensors")
        return ranged(response, file.length, file.read)


@dataclass(frozen=True)
class File:
    """The file of weights of these shapes, in their order."""

    weights: Weights
    shapes: dict[str, tuple[int, ...]]
    head: bytes

    @classmethod
    def of(cls, source: Weights, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> File:
        entries = {name: ("<f4", shape) for name, shape in shapes.items()}
        return cls(source, shapes, safetensors.header(entries, {"format": "pt"} | metadata))

    @property
    def length(self) -> int:
        return len(self.head) + sum(4 * prod(shape) for shape in self.shapes.values())

    @property
    def digest(self) -> str:
        """What tells files of the same weights from each other."""
        return hashlib.sha256(self.head).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`."""
        yield self.head[start:stop]
        ends = accumulate((4 * prod(shape) for shape in self.shapes.values()), initial=len(self.head))
        for name, (begin, end) in zip(self.shapes, pairwise(ends), strict=True):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                yield from self._tensor(name, first - begin, last - begin)

    def _tensor(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Bytes of one tensor, some whole rows of it at a time."""
        row = 4 * prod(self.shapes[name][1:])
        rows = max(_AT_ONCE // row, 1)
        for first in range(start // row, -(-stop // row), rows):
            last = min(first + rows, -(-stop // row))
            part = self.weights.read(name, (slice(first, last),)).astype("<f4", copy=False).tobytes()
            yield part[max(start - first * row, 0) : stop - first * row]
