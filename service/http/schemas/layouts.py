"""Layouts: what is asked for, and the blocks of one."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from service.http.schemas.fields import whole
from service.http.schemas.models import ConfigField, ModelField
from service.http.schemas.requests import SummarySchema
from service.jobs.canonical import LayoutFields
from worker.describe.config import MAX_BATCH, MAX_POSITIONS

STYLES = ["columns", "llm-viz"]


class LayoutRequestSchema(Schema):
    """A model and how many tokens it reads: all it can, where nothing is said."""

    model = ModelField(required=True)
    tokens = whole(1, MAX_POSITIONS, allow_none=True, load_default=None)
    batch = whole(1, MAX_BATCH, load_default=1)
    style = fields.String(load_default="columns", validate=validate.OneOf(STYLES))

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> LayoutFields:
        return LayoutFields(**data)


class LayoutQuery(Schema):
    layers = fields.String(metadata={"description": "a range of layers", "example": "0:4"})
    heads = fields.String(metadata={"description": "a range of heads in each layer", "example": "0:12"})
    fields_ = fields.String(
        data_key="fields", metadata={"description": "which keys of a block", "example": "id,position,size"}
    )


class CellsSchema(Schema):
    """Where a block's values lie: a row [a, b, c, d] an axis of the tensor; cell (i, j, k) is at a·i+b·j+c·k+d."""

    name = fields.String(required=True)
    index = fields.List(fields.List(fields.Integer()), required=True)


class InputSchema(Schema):
    """A block that a formula reads: rows [a, b, c, e, d] for its x, y, z: cell a·i + b·j + c·k + e·s + d."""

    block = fields.String(required=True)
    index = fields.List(fields.List(fields.Integer()), required=True)


class FormulaSchema(Schema):
    """How a cell is made of cells of other blocks."""

    op = fields.String(required=True)
    over = fields.Integer(allow_none=True, metadata={"description": "how many values s takes"})
    inputs = fields.List(fields.Nested(InputSchema), required=True)
    scale = fields.Float()
    mask = fields.String()
    window = fields.Integer()
    epsilon = fields.Float()
    function = fields.String()
    pairs = fields.String(metadata={"description": "which channels turn together: halves or neighbours"})
    base = fields.Float()
    width = fields.Integer(metadata={"description": "how many channels turn"})


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
    """A kind of block: what its blocks in all layers and members of a group have in common."""

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
    part = fields.String(required=True, allow_none=True, metadata={"description": "what it is in any transformer"})
    parameters = fields.String(
        required=True, allow_none=True, metadata={"description": "the part of a model's parameters that it counts as"}
    )


class StackSchema(Schema):
    name = fields.String(required=True)
    layers = fields.Integer(required=True)


class MembersSchema(Schema):
    """What each layer has several of, each with the same kinds of block."""

    name = fields.String(required=True, metadata={"example": "head"})
    count = fields.Integer(required=True)
    pattern = fields.String(required=True, metadata={"example": "heads.{head}"})


class StepSchema(Schema):
    """A step of the computation: the kinds that it computes, and those that they are computed from."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    text = fields.String(required=True)
    formula = fields.String(required=True)
    kinds = fields.List(fields.String(), required=True)
    from_ = fields.List(fields.String(), required=True, data_key="from")


class ArchitectureSchema(Schema):
    """What a front end of any family must not guess."""

    kinds = fields.List(fields.Nested(KindSchema), required=True)
    stacks = fields.List(fields.Nested(StackSchema), required=True)
    groups = fields.List(fields.Nested(MembersSchema), required=True)
    steps = fields.List(fields.Nested(StepSchema), required=True)
    context = fields.Integer(required=True, metadata={"description": "the most positions"})
    activation = fields.String(required=True, allow_none=True)
    tied = fields.List(fields.String(), required=True, metadata={"description": "parts that repeat another's numbers"})


class BoundsSchema(Schema):
    min = fields.List(fields.Float(), required=True)
    max = fields.List(fields.Float(), required=True)


class LayoutSchema(SummarySchema):
    """A layout; what follows `style` is there when it is done. Over 20,000 blocks are null, and `links` leads on."""

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
