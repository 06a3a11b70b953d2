"""What requests and answers look like; `openapi.yaml` is made from these."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from service.reading.encode import DTYPES
from service.reading.reduce import HOW
from worker.gpt.config import ACTIVATION_FUNCTIONS, LIMITS, MAX_BATCH
from worker.store.queues import PRIORITIES

STATUSES = ["queued", "running", "done", "failed", "cancelled"]
STYLES = ["columns", "llm-viz"]


def whole(least: int, most: int, **kwargs: Any) -> fields.Integer:
    """A whole number in a range; numbers as text are refused."""
    return fields.Integer(strict=True, validate=validate.Range(least, most), **kwargs)


class Number(fields.Float):
    """A number; one as text is refused."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value + 0.0, attr, data, **kwargs)  # −0 is 0


class Digits(fields.Integer):
    """A whole number in a query: an optional sign and digits, as JSON has them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not re.fullmatch(r"-?\d{1,19}", value, re.ASCII):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Tokens(fields.List[Any]):
    """Whole numbers in a list that may be long: only what looks wrong is looked at closely, and little of that."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        for validator in self.validators:
            validator(value)
        errors, most = {}, LIMITS["vocab_size"] - 1
        for n in islice((n for n, token in enumerate(value) if type(token) is not int or not 0 <= token <= most), 100):
            try:
                self.inner.deserialize(value[n])
            except ValidationError as error:
                errors[n] = error.messages
        if errors:
            raise ValidationError(errors)
        return value


def moment(**kwargs: Any) -> fields.String:
    """A time as RFC 3339, in UTC."""
    return fields.String(**kwargs, metadata={"format": "date-time"})


class ProblemSchema(Schema):
    """RFC 9457."""

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True, metadata={"example": "Unprocessable Entity"})
    status = fields.Integer(required=True, metadata={"example": 422})
    detail = fields.String(
        required=True, metadata={"example": "text: 'D' is no letter of this model: only A, B, C are."}
    )
    request_id = fields.String(
        metadata={
            "description": "the answer's `X-Request-ID`: as it came with the request, or a new one; logs name it",
            "example": "6f1d2a3b9c1e4f0d8a7b6c5d4e3f2a1b",
        }
    )
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={
            "description": "by field, what is wrong and what is allowed",
            "example": {"text": ["'D' is no letter of this model: only A, B, C are."]},
        },
    )


class PartialConfigSchema(Schema):
    """Sizes by the names of Hugging Face's GPT2Config; what is left out is GPT-2's."""

    n_layer = whole(1, LIMITS["n_layer"])
    n_head = whole(1, LIMITS["n_head"])
    n_embd = whole(1, LIMITS["n_embd"])
    d_head = whole(1, LIMITS["d_head"], allow_none=True)
    n_inner = whole(1, LIMITS["n_inner"], allow_none=True)
    n_positions = whole(1, LIMITS["n_positions"])
    vocab_size = whole(1, LIMITS["vocab_size"])
    layer_norm_epsilon = fields.Float(validate=validate.Range(0, 1, min_inclusive=False, max_inclusive=False))
    activation_function = fields.String(validate=validate.OneOf(ACTIVATION_FUNCTIONS))
    tie_word_embeddings = fields.Boolean()


class ConfigSchema(PartialConfigSchema):
    """All sizes of a model, by the names of Hugging Face's GPT2Config."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = True
        field_obj.allow_none = False


class ModelField(fields.Field[Any]):
    """A model's id or a (partial) configuration. The domain says what of a configuration is wrong."""

    def __init__(self, **kwargs: Any) -> None:
        either = [{"type": "string", "example": "nano-gpt"}, {"$ref": "#/components/schemas/PartialConfig"}]
        super().__init__(**kwargs, metadata={"oneOf": either})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | dict[str, Any]:
        if not isinstance(value, str | dict):
            raise ValidationError('The id of a model, as in "gpt2", or an object with its configuration.')
        return value


class PartSchema(Schema):
    total = fields.Integer(required=True)
    non_embedding = fields.Integer(required=True)
    by_part = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class WeightsSchema(Schema):
    source = fields.String(required=True, validate=validate.OneOf(["trained", "checkpoint", "synthetic"]))
    digest = fields.String(required=True)
    note = fields.String(required=True)


class VocabularySchema(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(["letters", "gpt2", "ids"]))
    size = fields.Integer(required=True)
    tokens = fields.List(fields.String())


class ModelSchema(Schema):
    id = fields.String(required=True)
    name = fields.String(required=True)
    family = fields.String(required=True)
    note = fields.String(required=True)
    config = fields.Nested(ConfigSchema, required=True)
    parameters = fields.Nested(PartSchema, required=True)
    weights = fields.Nested(WeightsSchema, required=True)
    vocabulary = fields.Nested(VocabularySchema, required=True)


class UnusableSchema(Schema):
    """A checkpoint that cannot be used, and why."""

    id = fields.String(required=True)
    detail = fields.String(required=True)


class ModelsSchema(Schema):
    models = fields.List(fields.Nested(ModelSchema), required=True)
    problems = fields.List(fields.Nested(UnusableSchema), required=True)


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
        validate=validate.OneOf(HOW),
        metadata={"description": "what of a tile of cells is kept, where it is shrunk"},
    )


class GenerateSchema(Schema):
    """How new tokens are drawn; temperature 0 is greedy."""

    max_new_tokens = whole(1, LIMITS["n_positions"], required=True)
    temperature = Number(load_default=0.0, validate=validate.Range(0, 100))
    top_k = whole(1, LIMITS["vocab_size"], load_default=None, allow_none=True)
    top_p = Number(load_default=None, allow_none=True, validate=validate.Range(0, 1, min_inclusive=False))
    seed = whole(0, 2**63 - 1, load_default=0)


class WeightsChoiceSchema(Schema):
    synthetic = whole(0, 2**63 - 1, required=True, metadata={"description": "the seed"})


class TraceRequestSchema(Schema):
    """A model, and text or tokens for it."""

    model = ModelField(required=True)
    text = fields.String()
    tokens = Tokens(whole(0, LIMITS["vocab_size"] - 1), validate=validate.Length(max=LIMITS["n_positions"]))
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
            "description": "`low` waits for what is `normal`, which it is by itself, but in a batch; "
            "asked for again as `normal`, what waits is moved up. It is no part of what the id is made of"
        },
    )

    @validates_schema
    def one_prompt(self, data: dict[str, Any], **kwargs: Any) -> None:
        if ("text" in data) == ("tokens" in data):
            raise ValidationError('Exactly one of "text" and "tokens" is needed.', "text")


class ProgressSchema(Schema):
    done = fields.Integer(required=True)
    total = fields.Integer(required=True)
    unit = fields.String(required=True)
    seconds_left = fields.Float(
        required=True, allow_none=True, metadata={"description": "an estimate; null where there is none yet"}
    )


class PieceSchema(Schema):
    """A token with its bytes: not every token is valid UTF-8 by itself."""

    token = fields.Integer(required=True)
    text = fields.String(required=True)
    bytes = fields.List(fields.Integer(), required=True)


class ProbabilitySchema(Schema):
    token = fields.Integer(required=True)
    text = fields.String(required=True)
    probability = fields.Float(required=True)


class GeneratedSchema(ProbabilitySchema):
    """A new token; `position` is the one whose distribution it was drawn from."""

    position = fields.Integer(required=True)
    top = fields.List(fields.Nested(ProbabilitySchema), required=True)


class FailureSchema(Schema):
    detail = fields.String(required=True)


class SummarySchema(Schema):
    """How a request stands."""

    id = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    model = fields.String(required=True, allow_none=True, metadata={"description": "null for a size of one's own"})
    created_at = moment(required=True)
    started_at = moment(required=True, allow_none=True)
    finished_at = moment(required=True, allow_none=True)
    queue_position = fields.Integer(
        required=True, allow_none=True, metadata={"description": "how many jobs are before it; 0 is next"}
    )
    progress = fields.Nested(ProgressSchema, required=True, allow_none=True)
    error = fields.Nested(FailureSchema)


class TraceSchema(SummarySchema):
    """A trace; `output`, `generated`, `tensors` and `layout` are there when it is done."""

    config = fields.Nested(ConfigSchema, required=True)
    weights = fields.Nested(WeightsSchema, required=True)
    tokens = fields.List(fields.Integer(), required=True)
    pieces = fields.List(fields.Nested(PieceSchema), required=True)
    output = fields.String(allow_none=True)
    generated = fields.List(fields.Nested(GeneratedSchema))
    tensors = fields.Dict(keys=fields.String(), values=fields.Nested(TensorSchema))
    layout = fields.String(metadata={"description": "where the picture of this trace is"})


class TracesSchema(Schema):
    traces = fields.List(fields.Nested(SummarySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class PageQuery(Schema):
    """Which part of a list."""

    limit = Digits(load_default=50, validate=validate.Range(1, 500), metadata={"description": "how many at most"})
    cursor = Digits(validate=validate.Range(0, 2**53), metadata={"description": "`next_cursor` of the page before"})


class TracesQuery(PageQuery):
    model = fields.String(metadata={"description": "only those of the model with this id"})
    status = fields.String(
        validate=validate.OneOf(STATUSES), metadata={"description": "only those that stand like this now"}
    )


class LayoutRequestSchema(Schema):
    """A model and how many tokens it reads: all it can, where nothing is said."""

    model = ModelField(required=True)
    tokens = whole(1, LIMITS["n_positions"], allow_none=True, load_default=None)
    batch = whole(1, MAX_BATCH, load_default=1)
    style = fields.String(load_default="columns", validate=validate.OneOf(STYLES))


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
    epsilon = fields.Float()
    function = fields.String()


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


class BoundsSchema(Schema):
    min = fields.List(fields.Float(), required=True)
    max = fields.List(fields.Float(), required=True)


class LayoutSchema(SummarySchema):
    """A layout; what follows `style` is there when it is done. Over 20,000 blocks are null, and `links` leads on."""

    config = fields.Nested(ConfigSchema, required=True)
    tokens = fields.Integer(required=True)
    batch = fields.Integer(required=True)
    style = fields.String(required=True, validate=validate.OneOf(STYLES))
    cell = fields.Float()
    margin = fields.Float()
    count = fields.Integer()
    bounds = fields.Nested(BoundsSchema)
    blocks = fields.List(fields.Nested(BlockSchema), allow_none=True)
    groups = fields.List(fields.Nested(GroupSchema), allow_none=True)
    links = fields.List(fields.String())


class HealthSchema(Schema):
    status = fields.String(required=True)
    detail = fields.Dict(keys=fields.String(), values=fields.String())
