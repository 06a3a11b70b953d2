"""Tensors of traces and models: what they are, and what of one is asked for."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from service.http.schemas.fields import Digits
from service.tensors.encode import DTYPES
from service.tensors.patterns import PATTERNS
from service.tensors.reduce import REDUCTIONS


class TensorSchema(Schema):
    """One tensor, without its values. The statistics, which weights have not, leave masked cells (−inf) out; null is
    one that is no number, as where float16 did not hold the values."""

    name = fields.String()
    shape = fields.List(fields.Integer(), required=True)
    dtype = fields.String(required=True)
    bytes = fields.Integer(required=True)
    min = fields.Float(allow_none=True)
    max = fields.Float(allow_none=True)
    mean = fields.Float(allow_none=True)
    absmax = fields.Float(allow_none=True)


class TensorsSchema(Schema):
    tensors = fields.List(fields.Nested(TensorSchema), required=True)


class TensorValuesSchema(Schema):
    """One tensor, or what was asked for of it, as nested lists; −inf is null."""

    name = fields.String(required=True)
    shape = fields.List(fields.Integer(), required=True)
    dtype = fields.String(required=True)
    scale = fields.Float(metadata={"description": "of bytes (uint8): value = scale · (byte − zero)"})
    zero = fields.Float()
    factors = fields.List(
        fields.Integer(), metadata={"description": "by which the last axes were shrunk, if they were"}
    )
    data = fields.Raw(required=True, allow_none=True, metadata={"allOf": [{"$ref": "#/components/schemas/Values"}]})


def _nested(axes: int) -> dict[str, Any]:
    """Lists in lists of numbers. A schema that refers to itself would say it, but TypeScript can't."""
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
        metadata={"description": "the type of the values; that which is stored, where it is left out"},
    )
    max_cells = Digits(
        validate=validate.Range(1),
        metadata={
            "description": "shrink the two last axes by whole factors until no more cells are left, "
            "and no more than 4,194,304",
            "example": 65536,
        },
    )
    reduce = fields.String(
        load_default="mean",
        validate=validate.OneOf(REDUCTIONS),
        metadata={"description": "what of a tile of cells is kept, where it is shrunk"},
    )


def patterns(*example: str) -> fields.List[Any]:
    """Which of many tensors are asked for, by their names."""
    return fields.List(
        fields.String(validate=validate.Length(1, 2000)),
        validate=validate.Length(max=PATTERNS),
        metadata={
            "description": "shell-style patterns of names, one a query or with commas between them; all by default",
            "example": list(example),
        },
    )
