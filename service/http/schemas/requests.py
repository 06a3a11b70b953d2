"""How anything that was asked for stands, and lists of it."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from service.http.schemas.fields import Digits, moment

STATUSES = ["queued", "running", "done", "failed", "cancelled"]


class ProgressSchema(Schema):
    done = fields.Integer(required=True)
    total = fields.Integer(required=True)
    unit = fields.String(required=True)
    seconds_left = fields.Float(
        required=True, allow_none=True, metadata={"description": "an estimate; null where there is none yet"}
    )


class FailureSchema(Schema):
    detail = fields.String(required=True)


class SummarySchema(Schema):
    """How a request stands."""

    id = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    model = fields.String(
        required=True,
        metadata={"description": "its id; of sizes of one's own, those in a line: `n_layer=3,n_head=3,…`"},
    )
    created_at = moment(required=True)
    started_at = moment(required=True, allow_none=True)
    finished_at = moment(required=True, allow_none=True)
    queue_position = fields.Integer(
        required=True, allow_none=True, metadata={"description": "how many jobs are before it; 0 is next"}
    )
    progress = fields.Nested(ProgressSchema, required=True, allow_none=True)
    error = fields.Nested(FailureSchema)


class PageQuery(Schema):
    """Which part of a list."""

    limit = Digits(load_default=50, validate=validate.Range(1, 500), metadata={"description": "how many at most"})
    cursor = Digits(validate=validate.Range(0, 2**53), metadata={"description": "`next_cursor` of the page before"})
