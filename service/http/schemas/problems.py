"""The schema of error responses."""

from __future__ import annotations

from marshmallow import Schema, fields


class ProblemSchema(Schema):
    """A problem (RFC 9457)."""

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True, metadata={"example": "Unprocessable Entity"})
    status = fields.Integer(required=True, metadata={"example": 422})
    detail = fields.String(required=True, metadata={"example": "text: 'D' is not allowed: must be one of A, B, C."})
    request_id = fields.String(
        metadata={
            "description": "the response's `X-Request-ID`: the request's own or a new one; logs contain it",
            "example": "6f1d2a3b9c1e4f0d8a7b6c5d4e3f2a1b",
        }
    )
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={
            "description": "by field: what is wrong and what is allowed",
            "example": {"text": ["'D' is not allowed: must be one of A, B, C."]},
        },
    )
