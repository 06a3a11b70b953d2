"""Traces: every intermediate value of a model's inference over some tokens."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from flask import Response
from flask.views import MethodView
from werkzeug.exceptions import Conflict, NotFound

import service.http.event_stream as event_stream
import service.http.tensor_responses as tensor_responses
import service.jobs.canonical as canonical
import worker.models.lookup as models
from service.http.auth import admit, client
from service.http.blueprint import PREFER, Blueprint, other_media_types
from service.http.large_reads import large_reads
from service.http.responses import immutable, json, respond, summary, wait_if_preferred
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import TensorQuery, TensorsSchema, TensorValuesSchema
from service.http.schemas.traces import TraceRequestSchema, TraceSchema, TracesQuery, TracesSchema
from service.jobs.broker import State, broker
from service.jobs.canonical import TraceFields
from service.jobs.limits import trace_estimate, trace_timeout
from service.resources.models import tokenized, weights_of
from service.tensors.detail_levels import DetailLevel
from service.tensors.encode import BINARY
from service.tensors.slices import View, parse_slice
from worker.describe.hooks import value_name
from worker.models.checkpoints import BeingReadError
from worker.models.lookup import Model
from worker.models.tokens import Vocabulary
from worker.requests import TraceRequest
from worker.store.arrays import StoredArray

#: The trace of the documentation's examples: nano-gpt sorts six letters.
SORTING = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}

_MAX_SMALL_READ = 1 << 22  # values of a slice; a larger one is a large read

blueprint = Blueprint("traces", __name__, url_prefix="/v1/traces", description="Every value of an inference")


@blueprint.route("")
class Traces(MethodView):
    """All traces."""

    @blueprint.arguments(TraceRequestSchema)
    @blueprint.example(body=SORTING, headers={"Prefer": "wait=10"})
    @blueprint.headers(PREFER)
    @blueprint.response(202, TraceSchema, description="Accepted; the trace is at the Location")
    @blueprint.alt_response(200, schema=TraceSchema, description="It has ended", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def post(self, fields: TraceFields) -> Response:
        """Create a trace: run a model on a prompt and record every value. Equal requests are the same trace.

        Its id is the SHA-256 of the request, so it is computed once for all clients and never changes. The response is
        202 with a Location to poll, or, with `Prefer: wait`, the trace when it is done.
        """
        settings = broker().settings
        model, request = canonical.trace(fields, settings)
        timeout, seconds = trace_timeout(request, settings), trace_estimate(request, settings)
        state = broker().submit(request, timeout, seconds, fields.priority or "normal", client())
        return respond(state, lambda state: _represent(state, model), created=True)

    @blueprint.arguments(TracesQuery, location="query")
    @blueprint.example(query={"model": "nano-gpt", "limit": 10}, varies=["status", "queue_position", "progress"])
    @blueprint.response(200, TracesSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List traces, newest first, a page at a time.

        `next_cursor` leads to the next page and is null on the last; it stays valid while traces are added.
        """
        model = query.get("model")
        if model and "=" in model:  # sizes may be written in any order
            model = models.resolve(model, broker().settings.models_dir).id

        model_ids: dict[str, str] = {}  # by trace id

        def matches(state: State[TraceRequest]) -> bool:
            if query.get("status") not in (None, state.status):
                return False
            try:
                model_ids[state.id] = model_of(state).id
            except BeingReadError:
                model_ids[state.id] = models.id_of(state.request.config)  # as if its weights were gone
            return model in (None, model_ids[state.id])

        page, cursor = broker().page(TraceRequest, query.get("cursor"), query["limit"], matches)
        return {
            "traces": [summary(state) | {"model": model_ids[state.id]} for state in page],
            "next_cursor": None if cursor is None else str(cursor),
        }


@blueprint.route("/<trace_id>")
class Trace(MethodView):
    """One trace."""

    @blueprint.headers(PREFER)
    @blueprint.response(200, TraceSchema)
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def get(self, trace_id: str) -> Response:
        """Read a trace: its status, and once it is done what it generated and which tensors it has.

        A finished trace never changes and may be cached forever; before that, the response must not be cached.
        """
        return respond(_find(trace_id), _represent)

    @blueprint.response(204)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def delete(self, trace_id: str) -> None:
        """Cancel a trace that is queued or running; delete one that has ended.

        A cancelled trace can still be read; another POST of the same request computes it again.
        """
        if not broker().cancel(TraceRequest, trace_id):
            raise _not_found(trace_id)


@event_stream.route(blueprint, "/<trace_id>/events")
def watch(trace_id: str) -> Response:
    """Watch a trace as it is computed: queued, started, progress; then done, failed or cancelled, the last event.

    These are server-sent events, as EventSource reads them. A client that connects late gets all of them; one that
    sends `Last-Event-ID` gets those after that event.
    """
    return event_stream.stream(_find(trace_id))


@blueprint.get("/<trace_id>/tensors")
@blueprint.headers(PREFER)
@blueprint.response(200, TensorsSchema)
@blueprint.alt_response(304, description="The cached copy is current", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(409, schema=ProblemSchema)
def list_tensors(trace_id: str) -> Response:
    """List the tensors of a finished trace, in order of computation.

    The names are TransformerLens's; the statistics leave masked cells (−inf) out.
    """
    state = done(trace_id)
    tensors = [{"name": name} | tensor for name, tensor in _tensors(state).items()]
    return immutable(json({"tensors": tensors}), state, "tensors")


@blueprint.route("/<trace_id>/tensors/<name>")
class Tensor(MethodView):
    """One tensor of a trace."""

    @blueprint.arguments(TensorQuery, location="query")
    @blueprint.example(path={"name": "blocks.0.attn.pattern"}, query={"slice": "0,0,:3,:3"})
    @blueprint.headers(PREFER)
    @blueprint.doc(**other_media_types(*BINARY))
    @blueprint.response(200, TensorValuesSchema)
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    def get(self, query: dict[str, Any], trace_id: str, name: str) -> Response:
        """Read a tensor, a slice of it or a smaller version; Accept selects JSON, raw bytes, .npy or safetensors.

        Raw bytes are little-endian in C order. Headers give the shape and the dtype, and for uint8 the scale and the
        zero: value = scale · (byte − zero), where the byte 0 stands for −inf and NaN. With `max_cells`, each cell is
        the `reduce` of the unmasked cells of a tile, or −inf if all are masked. TransformerLens's hook names
        (blocks.0.attn.hook_pattern) are accepted, too.
        """
        state = done(trace_id)
        name = value_name(name)
        slot = tensor_responses.find(state.manifest["tensors"], name, "this trace")
        array = StoredArray(broker().bytes_of(state), tuple(slot["shape"]), np.dtype(slot["dtype"]), slot["offset"])
        identity = (name, str(query))
        known = None if slot["min"] is None or slot["max"] is None else (slot["min"], slot["max"])  # not finite: null
        smaller = DetailLevel.of(array, slot["smaller"]) if slot.get("smaller") else None
        cells = prod(View(array, parse_slice(query["slice"], array.shape)).shape)

        def make() -> Response:
            response = tensor_responses.respond(
                name, array, query, trace_id, *identity, value_range=known, smaller=smaller
            )
            return immutable(response, state, *identity)

        return large_reads().respond(make) if cells > _MAX_SMALL_READ else make()


def _find(trace_id: str) -> State[TraceRequest]:
    state = broker().find(TraceRequest, trace_id, admit=admit)
    if state is None:
        raise _not_found(trace_id)
    return state


def done(trace_id: str) -> State[TraceRequest]:
    """Return a finished trace, after waiting as long as `Prefer: wait` asks.

    Raises NotFound (404) if there is no such trace, and Conflict (409) if it is not done.
    """
    state = wait_if_preferred(_find(trace_id))
    if state.status != "done":
        reason = f": {state.reason}" if state.reason else ""
        raise Conflict(f"This trace has no tensors: it is {state.status}{reason}. Wait for it with Prefer: wait.")
    return state


def _not_found(trace_id: str) -> NotFound:
    return NotFound(f"There is no trace {trace_id!r}.")


def model_of(state: State[TraceRequest]) -> Model:
    """Return the model of a trace, even if its weights are gone."""
    return models.from_old_reference(state.request.model, broker().settings.models_dir)


def _represent(state: State[TraceRequest], model: Model | None = None) -> dict[str, Any]:
    """Return a trace as JSON. `model` is its model, if the view has it already."""
    model = model or model_of(state)
    vocabulary = model.vocabulary
    body: dict[str, Any] = {
        "model": model.id,
        "config": model.config.to_mapping(),
        "weights": weights_of(model),
        **tokenized(state.request.tokens, vocabulary),
    }
    if state.status != "done":
        return body
    generated = state.manifest["generated"]
    output = b"".join(vocabulary.piece(step["token"]) for step in generated).decode(errors="replace")
    return body | {
        "output": None if vocabulary.kind == "ids" else output,
        "generated": [
            _with_text(step, vocabulary)
            | {"sampling_probability": step.get("sampling_probability")}  # older manifests have none
            | {"top": [_with_text(token, vocabulary) for token in step["top"]]}
            for step in generated
        ],
        "tensors": _tensors(state),
        "layout": _layout_link(state.manifest["layout"]),
    }


def _tensors(state: State[TraceRequest]) -> dict[str, dict[str, Any]]:
    """Return a manifest's table of tensors without their offsets, which clients have no use for."""
    slots = state.manifest["tensors"].items()
    return {name: {key: value for key, value in slot.items() if key != "offset"} for name, slot in slots}


def _layout_link(stored: str) -> str:
    """Return the link to a layout from a manifest's entry: its id or, in older manifests, the link itself."""
    return f"/v1/layouts/{stored.rpartition('/')[2]}"


def _with_text(token: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    return token | {"text": vocabulary.piece(token["token"]).decode(errors="replace")}
