"""Schemas of models, and the fields that select one."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from service.http.schemas.fields import QueryInteger, to_integer
from service.http.schemas.tensors import TensorQuery
from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES


class ConfigField(fields.Raw):
    """A complete configuration, with the names of its family's Hugging Face class."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, metadata={"allOf": [{"$ref": "#/components/schemas/Config"}]})


def config_components() -> dict[str, dict[str, Any]]:
    """Return the schemas of configurations, derived from the families: complete ones, and partial ones for requests."""
    components: dict[str, dict[str, Any]] = {}
    for partial in (False, True):
        prefix = "Partial" if partial else ""
        schemas = {
            f"{prefix}{family.Config.__name__}": family.Config.json_schema(partial) for family in FAMILIES.values()
        }
        any_of = [{"$ref": f"#/components/schemas/{name}"} for name in schemas]
        sizes = "Some sizes, the others being the family's defaults" if partial else "All sizes of a model"
        description = (
            f"{sizes}, with the names of Hugging Face's class. `model_type` is {DEFAULT_MODEL_TYPE} by default."
        )
        components |= {f"{prefix}Config": {"description": description, "anyOf": any_of}} | schemas
    return components


class ModelField(fields.Field[Any]):
    """A model's id or a partial configuration, which its family validates later."""

    def __init__(self, **kwargs: Any) -> None:
        one_of = [{"type": "string", "example": "nano-gpt"}, {"$ref": "#/components/schemas/PartialConfig"}]
        super().__init__(**kwargs, metadata={"oneOf": one_of})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | dict[str, Any]:
        if not isinstance(value, str | dict):
            raise ValidationError('Must be the id of a model, such as "gpt2", or an object with a configuration.')
        return value if isinstance(value, str) else {name: to_integer(number) for name, number in value.items()}


class PartSchema(Schema):
    total = fields.Integer(required=True)
    non_embedding = fields.Integer(required=True)
    by_part = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class WeightsSchema(Schema):
    source = fields.String(required=True, validate=validate.OneOf(["trained", "checkpoint", "synthetic"]))
    digest = fields.String(required=True)
    note = fields.String(required=True)
    format = fields.String(
        validate=validate.OneOf(["safetensors", "gguf"]), metadata={"description": "of a checkpoint"}
    )
    dtypes = fields.List(
        fields.String(),
        metadata={"description": "the types in which a checkpoint is stored", "example": ["float32", "Q4_K"]},
    )
    tensors = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "where to read them; null if they no longer exist",
            "example": "/v1/models/n_layer=3,n_head=3,n_embd=48/tensors?synthetic=7",
        },
    )


class WeightsQuery(Schema):
    """Which weights of a model, by default its own."""

    synthetic = QueryInteger(
        validate=validate.Range(0, 2**63 - 1),
        metadata={"description": "use synthetic weights from this seed, like `weights` in POST /v1/traces"},
    )


class WeightQuery(WeightsQuery, TensorQuery):
    """Which weights, and which part of one."""


class VocabularySchema(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(["letters", "gpt2", "tokenizer.json", "ids"]))
    size = fields.Integer(required=True)
    tokens = fields.List(fields.String())


class ModelSchema(Schema):
    id = fields.String(required=True)
    name = fields.String(required=True)
    family = fields.String(required=True, metadata={"description": "the series of models, for display"})
    model_type = fields.String(required=True, metadata={"description": "the id of the family in /v1/families"})
    note = fields.String(required=True)
    config = ConfigField(required=True)
    parameters = fields.Nested(PartSchema, required=True)
    weights = fields.Nested(WeightsSchema, required=True)
    vocabulary = fields.Nested(VocabularySchema, required=True)


class ReadingProgressSchema(Schema):
    done = fields.Integer(required=True)
    total = fields.Integer(required=True)
    unit = fields.String(required=True, validate=validate.Equal("bytes"))


class ReadingSchema(Schema):
    """A new checkpoint that is being read to identify its weights; requests that need them get 503 until then."""

    id = fields.String(required=True)
    detail = fields.String(required=True)
    progress = fields.Nested(ReadingProgressSchema, required=True)


class UnusableSchema(Schema):
    """A checkpoint that cannot be used, and why."""

    id = fields.String(required=True)
    detail = fields.String(required=True)


class ModelsSchema(Schema):
    models = fields.List(fields.Nested(ModelSchema), required=True)
    reading = fields.List(fields.Nested(ReadingSchema), required=True)
    problems = fields.List(fields.Nested(UnusableSchema), required=True)
