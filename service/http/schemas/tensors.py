"""Schemas of tensors, and of queries that select their values."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from service.http.schemas.fields import QueryInteger
from service.tensors.encode import DTYPES
from service.tensors.patterns import PATTERNS
from service.tensors.reduce import REDUCTIONS


class TensorSchema(Schema):
    """A tensor without its values. Weights have no statistics. Statistics ignore masked cells (−inf) and are null if
    they are not finite, for example because float16 overflowed."""

    name = fields.String()
    shape = fields.List(fields.Integer(), required=True)
    dtype = fields.String(required=True)
    bytes = fields.Integer(required=True)
    stored = fields.String(
        metadata={"description": "of a checkpoint's weight: the type in which it is stored", "example": "Q4_K"}
    )
    min = fields.Float(allow_none=True)
    max = fields.Float(allow_none=True)
    mean = fields.Float(allow_none=True)
    absmax = fields.Float(allow_none=True)


class TensorsSchema(Schema):
    tensors = fields.List(fields.Nested(TensorSchema), required=True)


class TensorValuesSchema(Schema):
    """The selected part of a tensor as nested lists; −inf is null."""

    name = fields.String(required=True)
    shape = fields.List(fields.Integer(), required=True)
    dtype = fields.String(required=True)
    scale = fields.Float(metadata={"description": "for uint8: value = scale · (byte − zero)"})
    zero = fields.Float()
    factors = fields.List(
        fields.Integer(), metadata={"description": "the factors by which the last axes were shrunk, if they were"}
    )
    data = fields.Raw(required=True, allow_none=True, metadata={"allOf": [{"$ref": "#/components/schemas/Values"}]})


def _nested(axes: int) -> dict[str, Any]:
    """Return the schema of nested lists. A recursive one would be shorter, but TypeScript cannot express it."""
    return {"type": "array", "items": _nested(axes - 1)} if axes else {"type": ["number", "null"]}


#: The values of a tensor in JSON.
VALUES = {
    "description": "a number or nested lists of numbers; −inf is null",
    "anyOf": [_nested(axes) for axes in range(5)],
}


class TensorQuery(Schema):
    slice = fields.String(
        load_default="",
        validate=validate.Length(max=200),
        metadata={"description": "basic NumPy slicing", "example": "0,:,5"},
    )
    dtype = fields.String(
        validate=validate.OneOf(DTYPES),
        metadata={"description": "the type of the values, by default the stored one"},
    )
    max_cells = QueryInteger(
        validate=validate.Range(1),
        metadata={
            "description": "shrink the last two axes by integer factors until there are at most so many cells, "
            "and at most 4,194,304",
            "example": 65536,
        },
    )
    reduce = fields.String(
        load_default="mean",
        validate=validate.OneOf(REDUCTIONS),
        metadata={"description": "how a tile of cells becomes one if the tensor is shrunk"},
    )


def patterns(*example: str) -> fields.List[Any]:
    """Return a query field for patterns that select tensors by name."""
    return fields.List(
        fields.String(validate=validate.Length(1, 2000)),
        validate=validate.Length(max=PATTERNS),
        metadata={
            "description": "shell-style patterns of names, separated by commas or repeated; by default all",
            "example": list(example),
        },
    )
