"""Schemas of layouts: requests, blocks and architectures."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from service.http.schemas.fields import integer
from service.http.schemas.models import ConfigField, ModelField
from service.http.schemas.requests import SummarySchema
from service.jobs.canonical import LayoutFields
from worker.describe.config import MAX_BATCH, MAX_POSITIONS

STYLES = ["columns", "llm-viz"]


class LayoutRequestSchema(Schema):
    """A model and its number of input tokens, by default the most that it can read."""

    model = ModelField(required=True)
    tokens = integer(1, MAX_POSITIONS, allow_none=True, load_default=None)
    batch = integer(1, MAX_BATCH, load_default=1)
    style = fields.String(load_default="columns", validate=validate.OneOf(STYLES))

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> LayoutFields:
        return LayoutFields(**data)


class LayoutQuery(Schema):
    layers = fields.String(metadata={"description": "a range of layers", "example": "0:4"})
    heads = fields.String(metadata={"description": "a range of heads in each layer", "example": "0:12"})
    fields_ = fields.String(
        data_key="fields", metadata={"description": "which fields of a block", "example": "id,position,size"}
    )


class CellsSchema(Schema):
    """Where a block's values are: a row [a, b, c, d] per axis of the tensor; cell (i, j, k) is at a·i+b·j+c·k+d."""

    name = fields.String(required=True)
    index = fields.List(fields.List(fields.Integer()), required=True)


class InputSchema(Schema):
    """A block that a formula reads: rows [a, b, c, e, d] for its x, y and z, read at a·i + b·j + c·k + e·s + d."""

    block = fields.String(required=True)
    index = fields.List(fields.List(fields.Integer()), required=True)


class FormulaSchema(Schema):
    """How a cell is computed from cells of other blocks."""

    op = fields.String(required=True)
    over = fields.Integer(allow_none=True, metadata={"description": "the number of values of s"})
    inputs = fields.List(fields.Nested(InputSchema), required=True)
    scale = fields.Float()
    mask = fields.String()
    window = fields.Integer()
    epsilon = fields.Float()
    offset = fields.Float(metadata={"description": "added to the gain of a norm"})
    function = fields.String()
    pairs = fields.String(metadata={"description": "which channels rotate together: halves or neighbours"})
    base = fields.Float()
    width = fields.Integer(metadata={"description": "the number of channels that rotate"})
    scaling = fields.Dict(metadata={"description": "of their frequencies, with the names of rope_parameters"})
    cap = fields.Float()
    bias = fields.String(metadata={"description": "distance: the input left over is multiplied by i − j"})
    heads = fields.Integer()


class BlockSchema(Schema):
    id = fields.String()
    name = fields.String()
    role = fields.String(validate=validate.OneOf(["weight", "activation", "statistic"]))
    layer = fields.Integer(allow_none=True)
    head = fields.Integer(allow_none=True)
    position = fields.List(fields.Float())
    size = fields.List(fields.Float())
    cells = fields.List(fields.Integer())
    dims = fields.List(fields.String())
    minor = fields.Boolean()
    tensor = fields.Nested(CellsSchema, allow_none=True)
    formula = fields.Nested(FormulaSchema, allow_none=True)


class GroupSchema(Schema):
    id = fields.String(required=True)
    name = fields.String(required=True)
    blocks = fields.List(fields.String(), required=True)


class KindSchema(Schema):
    """A kind of block: what its blocks in all layers and group members have in common."""

    id = fields.String(required=True, metadata={"example": "blocks.{layer}.attn.heads.{head}.q"})
    name = fields.String(required=True)
    role = fields.String(required=True)
    scope = fields.String(required=True, validate=validate.OneOf(["model", "layer", "head"]))
    dims = fields.List(fields.String(), required=True)
    minor = fields.Boolean(required=True)
    tensor = fields.String(required=True, allow_none=True)
    merges = fields.List(fields.String(), required=True)
    stack = fields.String(required=True, allow_none=True)
    group = fields.String(required=True, allow_none=True)
    step = fields.String(required=True, allow_none=True)
    part = fields.String(required=True, allow_none=True, metadata={"description": "the same part in any transformer"})
    parameters = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the part of the model's parameters that it belongs to"},
    )


class StackSchema(Schema):
    name = fields.String(required=True)
    layers = fields.Integer(required=True)


class MembersSchema(Schema):
    """What each layer has several of, such as heads; each has the same kinds of block."""

    name = fields.String(required=True, metadata={"example": "head"})
    count = fields.Integer(required=True)
    pattern = fields.String(required=True, metadata={"example": "heads.{head}"})


class StepSchema(Schema):
    """A step of the computation: the kinds of block that it computes, and those that it reads."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    text = fields.String(required=True)
    formula = fields.String(required=True)
    kinds = fields.List(fields.String(), required=True)
    from_ = fields.List(fields.String(), required=True, data_key="from")


class ArchitectureSchema(Schema):
    """What a front end needs to show a model of any family."""

    kinds = fields.List(fields.Nested(KindSchema), required=True)
    stacks = fields.List(fields.Nested(StackSchema), required=True)
    groups = fields.List(fields.Nested(MembersSchema), required=True)
    steps = fields.List(fields.Nested(StepSchema), required=True)
    context = fields.Integer(required=True, metadata={"description": "the maximum number of positions"})
    activation = fields.String(required=True, allow_none=True)
    tied = fields.List(
        fields.String(), required=True, metadata={"description": "parts that share another part's parameters"}
    )


class BoundsSchema(Schema):
    min = fields.List(fields.Float(), required=True)
    max = fields.List(fields.Float(), required=True)


class LayoutSchema(SummarySchema):
    """A layout. The fields after `style` exist once it is done. Over 20,000 blocks are null; use `links` instead."""

    config = ConfigField(required=True)
    tokens = fields.Integer(required=True)
    batch = fields.Integer(required=True)
    style = fields.String(required=True, validate=validate.OneOf(STYLES))
    cell = fields.Float()
    margin = fields.Float()
    count = fields.Integer()
    bounds = fields.Nested(BoundsSchema)
    architecture = fields.Nested(ArchitectureSchema)
    blocks = fields.List(fields.Nested(BlockSchema), allow_none=True)
    groups = fields.List(fields.Nested(GroupSchema), allow_none=True)
    links = fields.List(fields.String())
