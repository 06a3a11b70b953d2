"""Schemas of traces: requests, queries and responses."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from service.http.schemas.fields import Number, Tokens, integer
from service.http.schemas.models import ConfigField, ModelField, WeightsSchema
from service.http.schemas.requests import STATUSES, PageQuery, SummarySchema
from service.http.schemas.tensors import TensorSchema
from service.http.schemas.tokens import PieceSchema, PromptSchema
from service.jobs.canonical import TraceFields
from worker.describe.config import MAX_POSITIONS, MAX_TOKENS
from worker.store.queues import PRIORITIES
from worker.trace.sampling import Sampling


class GenerateSchema(Schema):
    """How to sample new tokens; temperature 0 is greedy."""

    max_new_tokens = integer(1, MAX_POSITIONS, required=True)
    temperature = Number(load_default=0.0, validate=validate.Range(0, 100))
    top_k = integer(1, MAX_TOKENS, load_default=None, allow_none=True)
    top_p = Number(load_default=None, allow_none=True, validate=validate.Range(0, 1, min_inclusive=False))
    seed = integer(0, 2**63 - 1, load_default=0)

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> Sampling:
        return Sampling(**data)


class WeightsChoiceSchema(Schema):
    synthetic = integer(0, 2**63 - 1, required=True, metadata={"description": "the seed"})

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> int:
        seed: int = data["synthetic"]
        return seed


class TraceRequestSchema(PromptSchema):
    """A model and its prompt: exactly one of text, tokens and messages."""

    prompts = ("text", "tokens", "messages")

    model = ModelField(required=True)
    tokens = Tokens(integer(0, MAX_TOKENS - 1), validate=validate.Length(max=MAX_POSITIONS))
    generate = fields.Nested(GenerateSchema, load_default=None, allow_none=True)
    capture = fields.List(
        fields.String(validate=validate.Length(1, 200)), load_default=lambda: ["*"], validate=validate.Length(1, 100)
    )
    dtype = fields.String(load_default="float32", validate=validate.OneOf(["float32", "float16"]))
    weights = fields.Nested(WeightsChoiceSchema)
    priority = fields.String(
        load_default=None,
        validate=validate.OneOf(PRIORITIES),
        metadata={
            "description": "`low` requests wait for `normal` ones. The default is `normal`, in a batch `low`. "
            "Submitting a waiting request again as `normal` moves it up. The priority does not affect the id"
        },
    )

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> TraceFields:
        return TraceFields(**data)


class ProbabilitySchema(Schema):
    """A token and the probability that the model gives it, at temperature 1."""

    token = fields.Integer(required=True)
    text = fields.String(required=True)
    probability = fields.Float(required=True)


class GeneratedSchema(ProbabilitySchema):
    """A new token; it was sampled from the distribution at `position`."""

    position = fields.Integer(required=True)
    sampling_probability = fields.Float(
        required=True,
        allow_none=True,
        metadata={
            "description": "the probability with which it was sampled: after temperature, top_k and top_p; 1 at "
            "temperature 0, null in traces of earlier versions"
        },
    )
    top = fields.List(fields.Nested(ProbabilitySchema), required=True)


class TraceSchema(SummarySchema):
    """A trace; `output`, `generated`, `tensors` and `layout` exist once it is done."""

    config = ConfigField(required=True)
    weights = fields.Nested(WeightsSchema, required=True)
    tokens = fields.List(fields.Integer(), required=True)
    pieces = fields.List(fields.Nested(PieceSchema), required=True)
    output = fields.String(allow_none=True)
    generated = fields.List(fields.Nested(GeneratedSchema))
    tensors = fields.Dict(keys=fields.String(), values=fields.Nested(TensorSchema))
    layout = fields.String(metadata={"description": "the path of this trace's layout"})


class TracesSchema(Schema):
    traces = fields.List(fields.Nested(SummarySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class TracesQuery(PageQuery):
    model = fields.String(metadata={"description": "only traces of the model with this id or these sizes"})
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"description": "only traces with this status"})
