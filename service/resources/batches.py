"""Batches: many traces asked for at once. A batch is who asked: the same requests asked for twice are two batches."""

from __future__ import annotations

import time
from typing import Any

import marshmallow
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
from service.jobs.limits import trace_estimate, trace_timeout
from worker.describe.config import ConfigError
from worker.models.checkpoints import CheckpointError
from worker.models.lookup import UnknownModelError

NDJSON = "application/x-ndjson"
MOST = 10_000  # requests
_SECONDS = 20.0  # that checking them may take: a minute of it would be one that others wait
_NAMED = 100  # bad lines that are told of; one mistake is often in all of them


class LinesParser(Parser):
    """Reads a batch as JSON, or as a line of JSON a request."""

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        """The body. 415 where it is said to be something else, 422 where a line is no JSON."""
        if req.mimetype != NDJSON:
            if not is_json_request(req):
                sent = f"{req.mimetype!r}" if req.mimetype else "nothing"
                raise UnsupportedMediaType(f"Content-Type says {sent}: application/json and {NDJSON} are read here.")
            return super().load_json(req, schema)
        lines, errors = [line for line in read_body(req).split(b"\n") if line.strip()], Errors()
        found = [_loaded(n, line, errors) for n, line in enumerate(lines[: MOST + 1])]
        _refuse(errors)
        return {"requests": found}


class BatchBlueprint(Blueprint):
    """Operations whose bodies may be lines."""

    ARGUMENTS_PARSER = LinesParser()


class Unread(fields.List[Any]):
    """A list whose items are described here and read one by one elsewhere, where what is wrong with any is gathered."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return value


class BatchRequestSchema(Schema):
    """What is asked for at once: each as it would be asked for alone."""

    requests = Unread(fields.Nested(TraceRequestSchema), required=True, validate=validate.Length(1, MOST))


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
    """How the traces of a batch stand, in the order in which they were asked for; the same request is the same id."""

    id = fields.String(required=True)
    created_at = timestamp(required=True)
    traces = fields.List(fields.Nested(MemberSchema), required=True)


blueprint = BatchBlueprint("batches", __name__, url_prefix="/v1/batches", description="Many traces at once")

_STANDING = ["id", "queued", "running", "done", "status"]  # what of a batch is another each time it is asked for
_LINES = {"requestBody": {"content": {NDJSON: {"schema": {"type": "string"}}}}}


@blueprint.route("")
class Batches(MethodView):
    """All batches."""

    @blueprint.arguments(BatchRequestSchema)
    @blueprint.example(
        body={"requests": [{"model": "nano-gpt", "text": "CBABBC"}, {"model": "nano-gpt", "text": "AABBCC"}]},
        varies=_STANDING,
    )
    @blueprint.doc(**_LINES)
    @blueprint.response(202, BatchSchema, description="They are being computed; the batch is at the Location")
    def post(self, wanted: dict[str, Any]) -> Response:
        """Ask for up to 10,000 traces, as JSON or a line of JSON each. All are checked before any is queued.

        What is wrong with any of them is told by its number, and then none is queued. What is known already is not
        computed again, and small traces next to each other share a job. Their `priority` is low where they do not say
        another.
        """
        most = broker().settings.max_batch
        if len(wanted["requests"]) > most:
            told = f"These are {len(wanted['requests']):,}, and at most {most:,} are taken at once here (MAX_BATCH)."
            raise Invalid({"requests": [told]})
        batch, standing = batching.submit(broker(), _checked(wanted["requests"]), client())
        response = json(_represent(batch, standing))
        response.status_code = 202
        response.headers["Location"] = f"/v1/batches/{batch.id}"
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.arguments(PageQuery, location="query")
    @blueprint.example(query={"limit": 10}, varies=["id"])
    @blueprint.response(200, BatchesSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List batches, newest first, a page at a time.

        `next_cursor` leads to the next page and is null on the last; it stays right while batches are added. How the
        traces of one stand is told at /v1/batches/{id}.
        """
        found, cursor = batching.page(broker(), query.get("cursor"), query["limit"])
        return {
            "batches": [one._asdict() for one in found],
            "next_cursor": None if cursor is None else str(cursor),
        }


@blueprint.route("/<batch_id>")
class OneBatch(MethodView):
    """One batch."""

    @blueprint.example(varies=_STANDING)
    @blueprint.response(200, BatchSchema)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def get(self, batch_id: str) -> Response:
        """Read how the traces of a batch stand.

        They come in the order in which they were asked for; each is a trace like any other, at /v1/traces/{id}.
        """
        batch = _find(batch_id)
        response = json(_represent(batch, batching.statuses(broker(), batch.traces)))
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.response(204)
    @blueprint.alt_response(404, schema=ProblemSchema)
    def delete(self, batch_id: str) -> None:
        """Cancel what is left of a batch and nobody else asked for; forget one that has ended. Its traces stay.

        A batch that was cancelled can still be read; asked to be deleted again, it is forgotten.
        """
        batch = _find(batch_id)
        if not batching.cancel(broker(), batch):
            batching.delete(broker(), batch)


@event_stream.route(blueprint, "/<batch_id>/events", "Events, until all have ended")
def watch(batch_id: str) -> Response:
    """Watch a batch: `trace` (index, id, status) as each ends, `progress` (the counts), `done` when all have ended.

    These are server-sent events: an EventSource goes on where it was by itself.
    """
    representation(EVENT_STREAM)
    watched = BatchEvents(broker().for_streams(), _find(batch_id))
    seen = event_stream.last_event_id()
    if seen and watched.is_last(seen):
        return Response(status=204)
    return event_stream.streams().respond(watched.after(seen))


def _represent(batch: Batch, standing: dict[str, Status]) -> dict[str, Any]:
    traces = [{"index": n, "id": id, "status": standing[id]} for n, id in enumerate(batch.traces)]
    told = batching.counts([standing[id] for id in batch.traces])
    return {"id": batch.id, "created_at": batch.created_at, **told, "traces": traces}


def _find(batch_id: str) -> Batch:
    batch = batching.get(broker(), batch_id)
    if batch is None:
        raise NotFound(f"Nobody has asked for a batch {batch_id!r}.")
    return batch


def _checked(requests: list[Any]) -> list[BatchItem]:
    """Every request in its canonical form. 422 names all that are wrong, and what is wrong with them."""
    schema, errors, found = TraceRequestSchema(), Errors(), []
    deadline, settings = time.monotonic() + _SECONDS, broker().settings
    for n, request in enumerate(requests):
        if time.monotonic() > deadline:
            told = f"Checking the first {n:,} took {_SECONDS:.0f} seconds, and more may not be spent: ask for fewer"
            raise Invalid({"requests": [f"{told} at once."]})
        try:
            trace = schema.load(request)
            _, asked = canonical.trace(trace, settings)
            timeout, seconds = trace_timeout(asked, settings), trace_estimate(asked, settings)
            found.append(BatchItem(asked, timeout, seconds, trace.priority or "low"))
        except marshmallow.ValidationError as error:
            errors |= flatten(_named(error.messages), f"requests.{n}")
        except (Invalid, ConfigError, UnknownModelError, CheckpointError) as error:
            errors |= {f"requests.{n}.{field}": said for field, said in errors_of(error).items()}
    _refuse(errors)
    return found


def _named(messages: Any) -> dict[str, Any]:
    return messages if isinstance(messages, dict) else {"_schema": messages}


def _loaded(n: int, line: bytes, errors: Errors) -> Any:
    try:
        return json_parsing.loads(line)
    except json_parsing.InvalidJson as error:
        errors[f"requests.{n}"] = [f"It is not JSON: {error}."]
        return None


def _refuse(errors: Errors) -> None:
    if not errors:
        return
    told = dict(list(errors.items())[:_NAMED])
    if len(errors) > _NAMED:
        told["requests"] = [f"{len(errors) - _NAMED:,} more are wrong."]
    raise Invalid(told)
