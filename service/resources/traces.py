"""Traces: every intermediate value of a model's inference over some tokens."""

from __future__ import annotations

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
from service.http.responses import immutable, json, respond, summary, wait_if_preferred
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import TensorQuery, TensorsSchema, TensorValuesSchema
from service.http.schemas.traces import TraceRequestSchema, TraceSchema, TracesQuery, TracesSchema
from service.jobs.broker import State, broker
from service.jobs.canonical import TraceFields
from service.jobs.limits import trace_estimate, trace_timeout
from service.resources.models import weights_of
from service.tensors.detail_levels import DetailLevel
from service.tensors.encode import BINARY
from worker.describe.architecture import value_name
from worker.models.lookup import Model
from worker.models.tokens import Vocabulary
from worker.requests import TraceRequest
from worker.store.arrays import StoredArray

#: The example that others read: nano-gpt sorts six letters.
SORTING = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}

blueprint = Blueprint("traces", __name__, url_prefix="/v1/traces", description="Every value of an inference")


@blueprint.route("")
class Traces(MethodView):
    """All traces."""

    @blueprint.arguments(TraceRequestSchema)
    @blueprint.example(body=SORTING, headers={"Prefer": "wait=10"})
    @blueprint.headers(PREFER)
    @blueprint.response(202, TraceSchema, description="It is being computed, at the Location")
    @blueprint.alt_response(200, schema=TraceSchema, description="It has ended", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def post(self, fields: TraceFields) -> Response:
        """Ask for a trace: a model over text or tokens, with what it generates. The same request is the same trace.

        Its id is the SHA-256 of what was asked, so that it is computed once however many ask, and never changes.
        The answer comes at once with 202 and a Location to look at, or, with `Prefer: wait`, when the trace is done.
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

        `next_cursor` leads to the next page and is null on the last; it stays right while traces are added.
        """
        model = query.get("model")
        if model and "=" in model:  # sizes may be written in any order
            model = models.resolve(model, broker().settings.models_dir).id

        ids: dict[str, str] = {}  # the models' by the traces'

        def wanted(state: State[TraceRequest]) -> bool:
            if query.get("status") not in (None, state.status):
                return False
            ids[state.id] = recalled(state).id
            return model in (None, ids[state.id])

        found, cursor = broker().page(TraceRequest, query.get("cursor"), query["limit"], wanted)
        return {
            "traces": [summary(state) | {"model": ids[state.id]} for state in found],
            "next_cursor": None if cursor is None else str(cursor),
        }


@blueprint.route("/<trace_id>")
class Trace(MethodView):
    """One trace."""

    @blueprint.headers(PREFER)
    @blueprint.response(200, TraceSchema)
    @blueprint.alt_response(304, description="What you have is still right", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def get(self, trace_id: str) -> Response:
        """Read a trace: how it stands, and when it is done what it generated and which tensors it holds.

        What is done never changes and may be kept for ever; until then the answer is not to be stored.
        """
        return respond(_find(trace_id), _represent)

    @blueprint.response(204)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def delete(self, trace_id: str) -> None:
        """Cancel a trace that is queued or running; forget one that has ended.

        A trace that was cancelled stays to be read as such; asked for again, it is computed again.
        """
        if not broker().cancel(TraceRequest, trace_id):
            raise _unknown(trace_id)


@event_stream.route(blueprint, "/<trace_id>/events")
def watch(trace_id: str) -> Response:
    """Watch a trace as it is computed: queued, started, progress, then done, failed or cancelled, the last event.

    These are server-sent events, as EventSource reads them: whoever comes late is told all, and `Last-Event-ID` goes on
    after the one that it names.
    """
    return event_stream.stream(_find(trace_id))


@blueprint.get("/<trace_id>/tensors")
@blueprint.headers(PREFER)
@blueprint.response(200, TensorsSchema)
@blueprint.alt_response(304, description="What you have is still right", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(409, schema=ProblemSchema)
def list_tensors(trace_id: str) -> Response:
    """List the tensors that a finished trace holds, in order of computation.

    The names are TransformerLens's; the statistics leave masked cells (−inf) out.
    """
    state = done(trace_id)
    held = state.manifest["tensors"]
    listed = [{"name": name} | {k: v for k, v in slot.items() if k != "offset"} for name, slot in held.items()]
    return immutable(json({"tensors": listed}), state, "tensors")


@blueprint.route("/<trace_id>/tensors/<name>")
class Tensor(MethodView):
    """One tensor of a trace."""

    @blueprint.arguments(TensorQuery, location="query")
    @blueprint.example(path={"name": "blocks.0.attn.pattern"}, query={"slice": "0,0,:3,:3"})
    @blueprint.headers(PREFER)
    @blueprint.doc(**other_media_types(*BINARY))
    @blueprint.response(200, TensorValuesSchema)
    @blueprint.alt_response(304, description="What you have is still right", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    @blueprint.alt_response(409, schema=ProblemSchema)
    def get(self, query: dict[str, Any], trace_id: str, name: str) -> Response:
        """Read a tensor, a slice of it or a smaller version: JSON, raw bytes, NumPy's file or safetensors by Accept.

        Raw bytes are little-endian in C order; headers tell their shape and type, and the scale and zero of bytes
        (uint8): value = scale · (byte − zero), where the byte 0 stands for −inf and NaN. Shrunk by `max_cells`, a
        cell is the `reduce` of a tile of cells that are not masked (−inf), and −inf where all are. TransformerLens's
        own names (blocks.0.attn.hook_pattern) are understood as well.
        """
        state = done(trace_id)
        held = state.manifest["tensors"]
        name = value_name(name)
        slot = tensor_responses.find(held, name, "this trace")
        array = StoredArray(broker().bytes_of(state), tuple(slot["shape"]), np.dtype(slot["dtype"]), slot["offset"])
        identity = (name, str(query))
        known = None if slot["min"] is None or slot["max"] is None else (slot["min"], slot["max"])  # not finite: null
        smaller = DetailLevel.of(array, slot["smaller"]) if slot.get("smaller") else None
        told = tensor_responses.respond(name, array, query, trace_id, *identity, value_range=known, smaller=smaller)
        return immutable(told, state, *identity)


def _find(trace_id: str) -> State[TraceRequest]:
    state = broker().find(TraceRequest, trace_id, admit=admit)
    if state is None:
        raise _unknown(trace_id)
    return state


def done(trace_id: str) -> State[TraceRequest]:
    """A finished trace, waited for as long as the client would. 404 where there is none, 409 where it is not done."""
    state = wait_if_preferred(_find(trace_id))
    if state.status != "done":
        raise _not_done(f"it is {state.status}" + (f": {state.reason}" if state.reason else ""))
    return state


def _unknown(trace_id: str) -> NotFound:
    return NotFound(f"Nobody has asked for a trace {trace_id!r}.")


def _not_done(why: str) -> Conflict:
    """409: a trace has tensors only when it is done."""
    return Conflict(f"This trace has no tensors now: {why}. Wait for it with Prefer: wait.")


def recalled(state: State[TraceRequest]) -> Model:
    """The model of a trace, even if its weights no longer exist."""
    return models.from_old_reference(state.request.model, broker().settings.models_dir)


def _represent(state: State[TraceRequest], model: Model | None = None) -> dict[str, Any]:
    """A trace as JSON. `model` is its model, if that is known already."""
    model = model or recalled(state)
    vocabulary = model.vocabulary
    pieces = [(token, vocabulary.piece(token)) for token in state.request.tokens]
    body: dict[str, Any] = {
        "model": model.id,
        "config": model.config.to_mapping(),
        "weights": weights_of(model),
        "tokens": state.request.tokens,
        "pieces": [{"token": t, "text": b.decode(errors="replace"), "bytes": list(b)} for t, b in pieces],
    }
    if state.status != "done":
        return body
    held, generated = state.manifest["tensors"].items(), state.manifest["generated"]
    output = b"".join(vocabulary.piece(step["token"]) for step in generated).decode(errors="replace")
    return body | {
        "output": None if vocabulary.kind == "ids" else output,
        "generated": [
            _spelled(step, vocabulary) | {"top": [_spelled(one, vocabulary) for one in step["top"]]}
            for step in generated
        ],
        "tensors": {name: {k: v for k, v in slot.items() if k != "offset"} for name, slot in held},
        "layout": _layout_link(state.manifest["layout"]),
    }


def _layout_link(stored: str) -> str:
    """Return the link to a layout from what a manifest holds: its id, or, in an older one, the link itself."""
    return f"/v1/layouts/{stored.rpartition('/')[2]}"


def _spelled(drawn: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    return drawn | {"text": vocabulary.piece(drawn["token"]).decode(errors="replace")}
