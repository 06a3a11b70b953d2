"""Families: the kinds of model that can be asked for, and the configurations of each."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from service.http.blueprint import Blueprint
from worker.families.family import Family
from worker.families.registry import FAMILIES

blueprint = Blueprint("families", __name__, url_prefix="/v1/families", description="Which kinds of model there are")


class FamilySchema(Schema):
    """A family: `config` is the JSON Schema of its configurations, in which nothing need be given but `model_type`."""

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
    """List the families of models: what each computes, its published models, and the schema of its configurations.

    Wherever a request names a model, a (partial) configuration does as well: its fields have the names of Hugging
    Face's class, and `model_type` says which family it is of.
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
