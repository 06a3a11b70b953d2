"""The logit lens: what each layer of a trace would predict if it were the last."""

from __future__ import annotations

import re
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
from service.http.responses import respond
from service.http.schemas.fields import QueryInteger
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.requests import SummarySchema
from service.http.schemas.traces import ProbabilitySchema
from service.jobs.broker import State, broker
from service.jobs.limits import LENS_TOP, lens_estimate, lens_timeout
from worker.models.lookup import Model
from worker.models.tokens import Vocabulary
from worker.requests import LensRequest, TraceRequest
from worker.store.keys import request_id

MAX_NUMBERS = 131_072
_RANGE = re.compile(r"(\d{0,9}):(\d{0,9})", re.ASCII)

blueprint = Blueprint("lens", __name__, url_prefix="/v1/traces", description="What each layer would predict")


class LensQuery(Schema):
    top = QueryInteger(load_default=5, validate=validate.Range(1, LENS_TOP))
    layers = fields.String(
        load_default=":", metadata={"description": "a range of 0 to n_layer, which is the end", "example": "0:4"}
    )
    positions = fields.String(load_default=":", metadata={"description": "a range of positions", "example": "0:16"})
    attention = fields.String(
        validate=validate.OneOf(["rollout"]), metadata={"description": "what attention mixed into each position, too"}
    )


class PredictionSchema(Schema):
    position = fields.Integer(required=True)
    top = fields.List(fields.Nested(ProbabilitySchema), required=True)


class LayerSchema(Schema):
    """What the residual stream would predict where it enters a layer; the last one is where it leaves all of them."""

    layer = fields.Integer(required=True)
    tensor = fields.String(required=True)
    predictions = fields.List(fields.Nested(PredictionSchema), required=True)


class SharesSchema(Schema):
    """How much of a position, after all layers, is of each token up to it; together 1."""

    position = fields.Integer(required=True)
    shares = fields.List(fields.Float(), required=True)


class LensSchema(SummarySchema):
    """A lens; `layers` is there when it is done, and `rollout` where that was asked for (Abnar and Zuidema 2020)."""

    layers = fields.List(fields.Nested(LayerSchema))
    rollout = fields.List(fields.Nested(SharesSchema))


@blueprint.route("/<trace_id>/lens")
class Lens(MethodView):
    """The lens of a trace."""

    @blueprint.arguments(LensQuery, location="query")
    @blueprint.example(query={"top": 2, "positions": "5:7"}, headers={"Prefer": "wait=10"})
    @blueprint.headers(PREFER)
    @blueprint.response(200, LensSchema)
    @blueprint.alt_response(304, description="What you have is still right", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    def get(self, query: dict[str, Any], trace_id: str) -> Response:
        """Read what each layer of a finished trace would predict. It is computed when it is first asked for.

        The residual stream of each layer goes through the final norm and the unembedding, as if it were the last (the
        logit lens). A job of its own computes it once; until it is done, the answer says how it stands.
        """
        trace = traces.done(trace_id)
        model, request = traces.recalled(trace), _request(trace)
        sized = (model.config, len(request.tokens), broker().settings)
        chosen = _chosen(query, model, len(request.tokens))
        state = broker().find(LensRequest, request_id(request), admit=admit)
        if state is None:
            check_rate_limit()
            state = broker().submit(request, lens_timeout(*sized), lens_estimate(*sized), client=client())
        return respond(state, lambda state: {"model": model.id} | _represent(state, model, chosen))

    @blueprint.response(204)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    def delete(self, trace_id: str) -> None:
        """Cancel a lens that is queued or running; forget one that has ended.

        One that was cancelled can still be read as such; deleted again, it is forgotten, and computed again for who
        asks for it then. Traces of the same tokens share it.
        """
        if not broker().cancel(LensRequest, request_id(_request(traces.done(trace_id)))):
            raise NotFound(f"Nobody has asked for the lens of trace {trace_id!r}.")


def _request(trace: State[TraceRequest]) -> LensRequest:
    """The lens of a finished trace, over all tokens that were fed: the last new one was not."""
    return trace.request.lens(step["token"] for step in trace.manifest["generated"][:-1])


class _Chosen(NamedTuple):
    """Which layers and positions, how many tokens of each, and whether with the rollout."""

    layers: range
    positions: range
    top: int
    rollout: bool


def _chosen(query: dict[str, Any], model: Model, length: int) -> _Chosen:
    """What a query asks for. 422 where there is no such part or too much of it."""
    layers = _range("layers", query["layers"], model.architecture.n_layer + 1)
    positions = _range("positions", query["positions"], length)
    top = min(query["top"], model.architecture.fixed_sizes["V"])
    rollout = "attention" in query
    count = len(positions) * (len(layers) * top + (length if rollout else 0))
    if count > MAX_NUMBERS:
        told = f"{len(layers):,} layers of {len(positions):,} positions with {top} tokens each"
        told += f", and the rollout over {length:,}," if rollout else ""
        told += f" are {count:,} numbers, and at most {MAX_NUMBERS:,} are told: choose a range, as in 0:16."
        raise Invalid({"positions": [told]})
    return _Chosen(layers, positions, top, rollout)


def _range(name: str, text: str, count: int) -> range:
    match = _RANGE.fullmatch(text)
    if match:
        start, stop = int(match[1] or 0), int(match[2] or count)
        if start < stop <= count:
            return range(start, stop)
    raise Invalid({name: [f"{text!r} is no range of the {count:,} {name}: start:stop, as in 0:{count}."]})


def _represent(state: State[LensRequest], model: Model, chosen: _Chosen) -> dict[str, Any]:
    if state.status != "done":
        return {}
    layers, positions, top, with_rollout = chosen
    n_layer, vocabulary = model.architecture.n_layer, model.vocabulary
    entering, leaving = model.architecture.landmark("entering"), model.architecture.landmark("leaving")
    part = (slice(None), slice(positions.start, positions.stop), slice(top))
    best = [_read(state, name, layers)[part].tolist() for name in ("tokens", "probabilities")]
    body = [
        {
            "layer": layer,
            "tensor": entering.name_in(layer) if layer < n_layer else leaving.name_in(layer - 1),
            "predictions": [
                {"position": position, "top": _spelled(vocabulary, *of_position)}
                for position, *of_position in zip(positions, *of_layer, strict=True)
            ],
        }
        for layer, *of_layer in zip(layers, *best, strict=True)
    ]
    if not with_rollout:
        return {"layers": body}
    rows = zip(positions, _read(state, "rollout", positions), strict=True)
    return {"layers": body, "rollout": [{"position": n, "shares": row[: n + 1].tolist()} for n, row in rows]}


def _spelled(vocabulary: Vocabulary, tokens: list[int], probabilities: list[float]) -> list[dict[str, Any]]:
    return [
        {"token": token, "text": vocabulary.piece(token).decode(errors="replace"), "probability": probability}
        for token, probability in zip(tokens, probabilities, strict=True)
    ]


def _read(state: State[LensRequest], name: str, rows: range) -> NDArray[Any]:
    """Some rows of one of the lens's arrays, along its first axis."""
    slot = state.manifest["arrays"][name]
    _, *shape = slot["shape"]
    dtype = np.dtype(slot["dtype"])
    start, stop = (slot["offset"] + row * prod(shape) * dtype.itemsize for row in (rows.start, rows.stop))
    return np.frombuffer(stored_bytes.read(broker().bytes_of(state), start, stop), dtype).reshape(len(rows), *shape)
