"""Schemas of all kinds of request: status, progress, pages."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from service.http.schemas.fields import QueryInteger, timestamp

STATUSES = ["queued", "running", "done", "failed", "cancelled"]


class ProgressSchema(Schema):
    done = fields.Integer(required=True)
    total = fields.Integer(required=True)
    unit = fields.String(required=True)
    seconds_left = fields.Float(
        required=True, allow_none=True, metadata={"description": "an estimate; null if there is none yet"}
    )


class FailureSchema(Schema):
    detail = fields.String(required=True)


class SummarySchema(Schema):
    """A request and its status."""

    id = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    model = fields.String(
        required=True,
        metadata={"description": "its id; for a configuration, its sizes: `n_layer=3,n_head=3,…`"},
    )
    created_at = timestamp(required=True)
    started_at = timestamp(required=True, allow_none=True)
    finished_at = timestamp(required=True, allow_none=True)
    queue_position = fields.Integer(
        required=True, allow_none=True, metadata={"description": "the number of jobs before it; 0 is next"}
    )
    progress = fields.Nested(ProgressSchema, required=True, allow_none=True)
    error = fields.Nested(FailureSchema)


class PageQuery(Schema):
    """Which page of a list."""

    limit = QueryInteger(
        load_default=50, validate=validate.Range(1, 500), metadata={"description": "the maximum number of items"}
    )
    cursor = QueryInteger(
        validate=validate.Range(0, 2**53), metadata={"description": "`next_cursor` of the previous page"}
    )
