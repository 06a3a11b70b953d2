"""Families: the supported kinds of model, and their configurations."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from service.http.blueprint import Blueprint
from worker.families.family import Family
from worker.families.registry import FAMILIES

blueprint = Blueprint("families", __name__, url_prefix="/v1/families", description="The supported kinds of model")


class FamilySchema(Schema):
    """A family; `config` is the JSON Schema of its configurations, of which only `model_type` is required."""

    model_type = fields.String(required=True, metadata={"example": "gpt2"})
    title = fields.String(required=True)
    description = fields.String(required=True, metadata={"description": "what it computes, in a sentence"})
    config = fields.Dict(required=True)
    presets = fields.List(fields.String(), required=True, metadata={"description": "ids, as in /v1/models"})


class FamiliesSchema(Schema):
    families = fields.List(fields.Nested(FamilySchema), required=True)


@blueprint.get("")
@blueprint.response(200, FamiliesSchema)
def index() -> dict[str, Any]:
    """List the families of models: what each computes, its published models and the schema of its configurations.

    Wherever a request takes a model's id, it also takes a (partial) configuration. The fields are named as in Hugging
    Face's configuration class, and `model_type` selects the family.
    """
    return {"families": [_describe(family) for family in FAMILIES.values()]}


def _describe(family: Family) -> dict[str, Any]:
    return {
        "model_type": family.name,
        "title": family.title,
        "description": family.description,
        "config": family.Config.json_schema(partial=True),
        "presets": [preset.id for preset in family.presets],
    }
