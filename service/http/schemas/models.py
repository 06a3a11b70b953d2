"""Models: their sizes, their weights, and how a request names one."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from service.http.schemas.fields import Digits
from service.http.schemas.tensors import TensorQuery
from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES


class ConfigField(fields.Raw):
    """A whole configuration, by the names of its family's Hugging Face class."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, metadata={"allOf": [{"$ref": "#/components/schemas/Config"}]})


def config_components() -> dict[str, dict[str, Any]]:
    """The schemas of configurations, from the families' own rules: whole ones, and partial ones in requests."""
    components: dict[str, dict[str, Any]] = {}
    for partial in (False, True):
        before = "Partial" if partial else ""
        named = {
            f"{before}{family.Config.__name__}": family.Config.json_schema(partial) for family in FAMILIES.values()
        }
        either = [{"$ref": f"#/components/schemas/{name}"} for name in named]
        what = "Sizes; what is left out is as usual in the family" if partial else "All sizes of a model"
        said = f"{what}, by the names of Hugging Face's class. Without `model_type` it is {DEFAULT_MODEL_TYPE}'s."
        components |= {f"{before}Config": {"description": said, "anyOf": either}} | named
    return components


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
    tensors = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "where they are read; null where they are not here any more",
            "example": "/v1/models/n_layer=3,n_head=3,n_embd=48/tensors?synthetic=7",
        },
    )


class WeightsQuery(Schema):
    """Which weights of a model, where it is not its own."""

    synthetic = Digits(
        validate=validate.Range(0, 2**63 - 1),
        metadata={"description": "synthetic weights from this seed, as `weights` asks for in POST /v1/traces"},
    )


class WeightQuery(WeightsQuery, TensorQuery):
    """What of a weight."""


class VocabularySchema(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(["letters", "gpt2", "ids"]))
    size = fields.Integer(required=True)
    tokens = fields.List(fields.String())


class ModelSchema(Schema):
    id = fields.String(required=True)
    name = fields.String(required=True)
    family = fields.String(required=True, metadata={"description": "its series, for people"})
    model_type = fields.String(required=True, metadata={"description": "the family, as in /v1/families"})
    note = fields.String(required=True)
    config = ConfigField(required=True)
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
