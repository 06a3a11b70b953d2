"""The logit lens: what each layer of a trace would predict if it were the last."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod
from typing import Any, NamedTuple

import numpy as np
from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate
from numpy.typing import NDArray
from werkzeug.exceptions import NotFound

import service.resources.traces as traces
import worker.store.stored_bytes as stored_bytes
from service.errors import Invalid
from service.http.auth import admit, check_rate_limit, client
from service.http.blueprint import PREFER, Blueprint
from service.http.large_reads import large_reads
from service.http.responses import respond
from service.http.schemas.fields import QueryInteger
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.requests import SummarySchema
from service.http.schemas.traces import ProbabilitySchema
from service.jobs.broker import State, broker
from service.jobs.limits import LENS_TOP, lens_estimate, lens_timeout
from service.tensors.slices import parse_range
from worker.models.lookup import Model
from worker.models.tokens import Vocabulary
from worker.requests import LensRequest, TraceRequest
from worker.store.keys import request_id

MAX_NUMBERS = 131_072
_MAX_SMALL_READ = 16_384  # numbers; more are a large read

blueprint = Blueprint("lens", __name__, url_prefix="/v1/traces", description="What each layer would predict")


class LensQuery(Schema):
    top = QueryInteger(
        load_default=5,
        validate=validate.Range(1, LENS_TOP),
        metadata={"description": "the number of tokens to predict at each position"},
    )
    layers = fields.String(
        load_default=":",
        metadata={"description": "a range of 0 to n_layer, the output of the last layer", "example": "0:4"},
    )
    positions = fields.String(load_default=":", metadata={"description": "a range of positions", "example": "0:16"})
    attention = fields.String(
        validate=validate.OneOf(["rollout"]),
        metadata={"description": "add what attention mixed into each position"},
    )


class PredictionSchema(Schema):
    position = fields.Integer(required=True)
    top = fields.List(fields.Nested(ProbabilitySchema), required=True)


class LayerSchema(Schema):
    """What the residual stream would predict at the input of a layer; the last entry is for the last layer's output."""

    layer = fields.Integer(required=True)
    tensor = fields.String(required=True)
    predictions = fields.List(fields.Nested(PredictionSchema), required=True)


class SharesSchema(Schema):
    """How much each token up to a position contributes to it after all layers; the sum is 1."""

    position = fields.Integer(required=True)
    shares = fields.List(fields.Float(), required=True)


class LensSchema(SummarySchema):
    """A lens; `layers` is present once it is done, `rollout` (Abnar and Zuidema 2020) if requested."""

    layers = fields.List(fields.Nested(LayerSchema))
    rollout = fields.List(fields.Nested(SharesSchema))


@blueprint.route("/<trace_id>/lens")
class Lens(MethodView):
    """The lens of a trace."""

    @blueprint.arguments(LensQuery, location="query")
    @blueprint.example(query={"top": 2, "positions": "5:7"}, headers={"Prefer": "wait=10"})
    @blueprint.headers(PREFER)
    @blueprint.response(200, LensSchema)
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    def get(self, query: dict[str, Any], trace_id: str) -> Response:
        """Read what each layer of a finished trace would predict. It is computed on the first read.

        The residual stream of each layer goes through the final norm and the unembedding as if it were the last layer's
        (the logit lens). A separate job computes it once; until it is done, the response has the job's status.
        """
        trace = traces.done(trace_id)
        model, request = traces.model_of(trace), _request(trace)
        sizes = (model.config, len(request.tokens), broker().settings)
        selection = _select(query, model, len(request.tokens))
        state = broker().find(LensRequest, request_id(request), admit=admit)
        if state is None:
            check_rate_limit()
            state = broker().submit(request, lens_timeout(*sizes), lens_estimate(*sizes), client=client())

        def represent(state: State[LensRequest]) -> dict[str, Any]:
            with large_reads().take() if selection.numbers > _MAX_SMALL_READ else nullcontext():
                return {"model": model.id} | _represent(state, model, selection)

        return respond(state, represent)

    @blueprint.response(204)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    def delete(self, trace_id: str) -> None:
        """Cancel a lens that is queued or running; delete one that has ended.

        A cancelled lens can still be read; a second DELETE deletes it, and the next GET computes it again. Traces of
        the same tokens share a lens.
        """
        if not broker().cancel(LensRequest, request_id(_request(traces.done(trace_id)))):
            raise NotFound(f"There is no lens of trace {trace_id!r}.")


def _request(trace: State[TraceRequest]) -> LensRequest:
    """Return the request for the lens of a finished trace, over all tokens that it fed: not the last generated one."""
    return trace.request.lens(step["token"] for step in trace.manifest["generated"][:-1])


class _Selection(NamedTuple):
    """Layers, positions, the number of tokens of each, whether to include the rollout, and the count of all numbers."""

    layers: range
    positions: range
    top: int
    rollout: bool
    numbers: int


def _select(query: dict[str, Any], model: Model, length: int) -> _Selection:
    """Return what a query selects. Raises Invalid (422) if a range is out of bounds or the result too large."""
    layers = parse_range("layers", query["layers"], model.architecture.n_layer + 1)
    positions = parse_range("positions", query["positions"], length)
    top = min(query["top"], model.architecture.fixed_sizes["V"])
    rollout = "attention" in query
    count = len(positions) * (len(layers) * top + (length if rollout else 0))
    if count > MAX_NUMBERS:
        message = f"{len(layers):,} layers of {len(positions):,} positions with {top} tokens each"
        message += f", and the rollout over {length:,}," if rollout else ""
        message += f" are {count:,} numbers; at most {MAX_NUMBERS:,} are allowed: select a range, as in 0:16."
        raise Invalid({"positions": [message]})
    return _Selection(layers, positions, top, rollout, count)


def _represent(state: State[LensRequest], model: Model, selection: _Selection) -> dict[str, Any]:
    if state.status != "done":
        return {}
    layers, positions, top, with_rollout, _ = selection
    n_layer, vocabulary = model.architecture.n_layer, model.vocabulary
    entering, leaving = model.architecture.landmark("entering"), model.architecture.landmark("leaving")
    part = (slice(None), slice(positions.start, positions.stop), slice(top))
    best = [_read(state, name, layers)[part].tolist() for name in ("tokens", "probabilities")]
    body = [
        {
            "layer": layer,
            "tensor": entering.name_in(layer) if layer < n_layer else leaving.name_in(layer - 1),
            "predictions": [
                {"position": position, "top": _predictions(vocabulary, *of_position)}
                for position, *of_position in zip(positions, *of_layer, strict=True)
            ],
        }
        for layer, *of_layer in zip(layers, *best, strict=True)
    ]
    if not with_rollout:
        return {"layers": body}
    rows = zip(positions, _read(state, "rollout", positions), strict=True)
    return {"layers": body, "rollout": [{"position": n, "shares": row[: n + 1].tolist()} for n, row in rows]}


def _predictions(vocabulary: Vocabulary, tokens: list[int], probabilities: list[float]) -> list[dict[str, Any]]:
    return [
        {"token": token, "text": vocabulary.piece(token).decode(errors="replace"), "probability": probability}
        for token, probability in zip(tokens, probabilities, strict=True)
    ]


def _read(state: State[LensRequest], name: str, rows: range) -> NDArray[Any]:
    """Return some rows of an array of the lens, along its first axis."""
    slot = state.manifest["arrays"][name]
    _, *shape = slot["shape"]
    dtype = np.dtype(slot["dtype"])
    start, stop = (slot["offset"] + row * prod(shape) * dtype.itemsize for row in (rows.start, rows.stop))
    return np.frombuffer(stored_bytes.read(broker().bytes_of(state), start, stop), dtype).reshape(len(rows), *shape)
