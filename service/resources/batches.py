"""Batches: many traces in one request."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import marshmallow
import orjson
from flask import Request, Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate
from webargs.flaskparser import is_json_request
from werkzeug.exceptions import NotFound, UnsupportedMediaType

import service.http.event_stream as event_stream
import service.http.json_parsing as json_parsing
import service.jobs.batching as batching
import service.jobs.canonical as canonical
from service.errors import Errors, Invalid
from service.http.auth import client
from service.http.blueprint import Blueprint, Parser, read_body
from service.http.event_stream import EVENT_STREAM
from service.http.negotiation import representation
from service.http.problems import errors_of, flatten
from service.http.responses import json
from service.http.schemas.fields import timestamp
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.requests import STATUSES, PageQuery
from service.http.schemas.traces import TraceRequestSchema
from service.jobs.batch_events import BatchEvents
from service.jobs.batching import Batch, BatchItem
from service.jobs.broker import Status, broker
from service.jobs.canonical import TraceFields
from service.jobs.limits import trace_estimate, trace_timeout
from worker.describe.config import ConfigError
from worker.models.checkpoints import CheckpointError
from worker.models.lookup import Model, UnknownModelError

NDJSON = "application/x-ndjson"
MAX_REQUESTS = 10_000
_MAX_SECONDS = 20.0  # for checking the requests of a batch: other clients wait meanwhile
_MAX_ERRORS = 100  # reported one by one; often all requests have the same mistake


class BatchParser(Parser):
    """Parses a batch from JSON, or from lines of JSON with one request each."""

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        """Return the body. Raises UnsupportedMediaType (415), or Invalid (422) if a line is not JSON."""
        if req.mimetype != NDJSON:
            if not is_json_request(req):
                given = repr(req.mimetype) if req.mimetype else "missing"
                raise UnsupportedMediaType(f"Content-Type must be application/json or {NDJSON}; it is {given}.")
            return super().load_json(req, schema)
        lines, errors = [line for line in read_body(req).split(b"\n") if line.strip()], Errors()
        requests = [_parse_line(n, line, errors) for n, line in enumerate(lines[: MAX_REQUESTS + 1])]
        _raise_any(errors)
        return {"requests": requests}


class BatchBlueprint(Blueprint):
    """A blueprint whose request bodies may be lines of JSON."""

    ARGUMENTS_PARSER = BatchParser()


class UncheckedList(fields.List[Any]):
    """A list that documents its items but leaves them unchecked; the view checks them and collects all errors."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return value


class BatchRequestSchema(Schema):
    """Requests for traces, each as in POST /v1/traces."""

    requests = UncheckedList(
        fields.Nested(TraceRequestSchema), required=True, validate=validate.Length(1, MAX_REQUESTS)
    )


class MemberSchema(Schema):
    index = fields.Integer(required=True)
    id = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))


class CountsSchema(Schema):
    total = fields.Integer(required=True)
    queued = fields.Integer(required=True)
    running = fields.Integer(required=True)
    done = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    cancelled = fields.Integer(required=True)


class BatchSummarySchema(Schema):
    id = fields.String(required=True)
    created_at = timestamp(required=True)
    total = fields.Integer(required=True)


class BatchesSchema(Schema):
    batches = fields.List(fields.Nested(BatchSummarySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class BatchSchema(CountsSchema):
    """The statuses of the traces of a batch, in the order of its requests; equal requests have the same id."""

    id = fields.String(required=True)
    created_at = timestamp(required=True)
    traces = fields.List(fields.Nested(MemberSchema), required=True)


blueprint = BatchBlueprint("batches", __name__, url_prefix="/v1/batches", description="Many traces in one request")

_VARYING = ["id", "queued", "running", "done", "status"]  # fields that differ between recordings of an example
_NDJSON_BODY = {"requestBody": {"content": {NDJSON: {"schema": {"type": "string"}}}}}


@blueprint.route("")
class Batches(MethodView):
    """All batches."""

    @blueprint.arguments(BatchRequestSchema)
    @blueprint.example(
        body={"requests": [{"model": "nano-gpt", "text": "CBABBC"}, {"model": "nano-gpt", "text": "AABBCC"}]},
        varies=_VARYING,
    )
    @blueprint.doc(**_NDJSON_BODY)
    @blueprint.response(202, BatchSchema, description="Accepted; the batch is at the Location")
    def post(self, body: dict[str, Any]) -> Response:
        """Create up to 10,000 traces, sent as JSON or as lines of JSON. All are checked before any is queued.

        Errors are reported by the index of the request, and if there are any, none is queued. Existing results are not
        computed again, and small traces next to each other share a job. `priority` defaults to low. Each POST creates a
        new batch, even of the same requests.
        """
        requests, limit = body["requests"], broker().settings.max_batch
        if len(requests) > limit:
            raise Invalid(
                {"requests": [f"A batch may have at most {limit:,} requests (MAX_BATCH), not {len(requests):,}."]}
            )
        batch, statuses = batching.submit(broker(), _check(requests), client())
        response = json(_represent(batch, statuses))
        response.status_code = 202
        response.headers["Location"] = f"/v1/batches/{batch.id}"
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.arguments(PageQuery, location="query")
    @blueprint.example(query={"limit": 10}, varies=["id"])
    @blueprint.response(200, BatchesSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List batches, newest first, a page at a time.

        `next_cursor` leads to the next page and is null on the last; it stays valid while batches are added. The
        statuses of a batch's traces are at /v1/batches/{id}.
        """
        page, cursor = batching.page(broker(), query.get("cursor"), query["limit"])
        return {
            "batches": [summary._asdict() for summary in page],
            "next_cursor": None if cursor is None else str(cursor),
        }


@blueprint.route("/<batch_id>")
class OneBatch(MethodView):
    """One batch."""

    @blueprint.example(varies=_VARYING)
    @blueprint.response(200, BatchSchema)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def get(self, batch_id: str) -> Response:
        """Read the statuses of the traces of a batch.

        They are in the order of the requests; each is a trace like any other, at /v1/traces/{id}.
        """
        batch = _find(batch_id)
        response = json(_represent(batch, batching.statuses(broker(), batch.traces)))
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.response(204)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def delete(self, batch_id: str) -> None:
        """Cancel the unfinished traces that only this batch requested; delete a batch that has ended. Its traces stay.

        A cancelled batch can still be read; a second DELETE deletes it.
        """
        batch = _find(batch_id)
        if not batching.cancel(broker(), batch):
            batching.delete(broker(), batch)


@event_stream.route(blueprint, "/<batch_id>/events", "Events, until all have ended")
def watch(batch_id: str) -> Response:
    """Watch a batch: `trace` (index, id, status) as each ends, `progress` (the counts), `done` when all have ended.

    These are server-sent events: an EventSource reconnects and resumes by itself.
    """
    representation(EVENT_STREAM)
    batch_events = BatchEvents(broker().for_streams(), _find(batch_id))
    last_id = event_stream.last_event_id()
    if last_id and batch_events.is_last(last_id):
        return Response(status=204)
    return event_stream.streams().respond(batch_events.after(last_id))


def _represent(batch: Batch, statuses: dict[str, Status]) -> dict[str, Any]:
    traces = [{"index": n, "id": id, "status": statuses[id]} for n, id in enumerate(batch.traces)]
    counts = batching.counts([statuses[id] for id in batch.traces])
    return {"id": batch.id, "created_at": batch.created_at, **counts, "traces": traces}


def _find(batch_id: str) -> Batch:
    batch = batching.get(broker(), batch_id)
    if batch is None:
        raise NotFound(f"There is no batch {batch_id!r}.")
    return batch


def _check(requests: list[Any]) -> list[BatchItem]:
    """Return the canonical form of every request. Raises Invalid (422) with the errors of all."""
    loader, errors, checked = _Loader(), Errors(), []
    deadline, settings = time.monotonic() + _MAX_SECONDS, broker().settings
    for n, request in enumerate(requests):
        if time.monotonic() > deadline:
            slow = f"Checking {n:,} of {len(requests):,} requests took {_MAX_SECONDS:.0f} seconds, the limit"
            raise Invalid({"requests": [f"{slow}: send fewer in one batch."]})
        try:
            trace, model = loader.load(request)
            trace_request = canonical.trace_of(model, trace, settings)
            timeout, seconds = trace_timeout(trace_request, settings), trace_estimate(trace_request, settings)
            checked.append(BatchItem(trace_request, timeout, seconds, trace.priority or "low"))
        except marshmallow.ValidationError as error:
            errors |= flatten(_by_field(error.messages), f"requests.{n}")
        except (Invalid, ConfigError, UnknownModelError, CheckpointError) as error:
            errors |= {f"requests.{n}.{field}": messages for field, messages in errors_of(error).items()}
    _raise_any(errors)
    return checked


class _Loader:
    """Loads the requests of a batch. Of those that differ only in their prompt, the rest is loaded once."""

    def __init__(self) -> None:
        self._schema = TraceRequestSchema()
        self._loaded: dict[tuple[str, bytes], tuple[TraceFields, Model]] = {}  # by the prompt's field and the rest

    def load(self, request: Any) -> tuple[TraceFields, Model]:
        """Return the fields and the model of a request. Raises ValidationError and what `canonical.model_of` raises."""
        key = _split(request)
        if key is not None and key in self._loaded:
            trace, model = self._loaded[key]
            with suppress(marshmallow.ValidationError):  # raised below, with the name of the field
                prompt: dict[str, Any] = {key[0]: self._schema.fields[key[0]].deserialize(request[key[0]])}
                return replace(trace, **prompt), model
        trace = self._schema.load(request)
        model = canonical.model_of(trace, broker().settings)
        if key is not None:
            self._loaded[key] = trace, model
        return trace, model


def _split(request: Any) -> tuple[str, bytes] | None:
    """Return the field of a request's prompt, and the rest as JSON; None if it has not exactly one prompt."""
    prompts = [name for name in TraceRequestSchema.prompts if name in request] if isinstance(request, dict) else []
    if len(prompts) != 1:
        return None
    try:
        return prompts[0], orjson.dumps({name: value for name, value in request.items() if name != prompts[0]})
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        return None


def _by_field(messages: Any) -> dict[str, Any]:
    return messages if isinstance(messages, dict) else {"_schema": messages}


def _parse_line(n: int, line: bytes, errors: Errors) -> Any:
    try:
        return json_parsing.loads(line)
    except json_parsing.InvalidJson as error:
        errors[f"requests.{n}"] = [f"Not valid JSON: {error}."]
        return None


def _raise_any(errors: Errors) -> None:
    """Raise Invalid (422) if there are errors: the first of them, and the number of the others."""
    if not errors:
        return
    reported = dict(list(errors.items())[:_MAX_ERRORS])
    if len(errors) > _MAX_ERRORS:
        reported["requests"] = [f"{len(errors) - _MAX_ERRORS:,} more errors."]
    raise Invalid(reported)
