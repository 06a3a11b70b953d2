"""The OpenAPI description, made from the code."""

from __future__ import annotations

from typing import Any, cast

import yaml
from flask import Flask, Response, current_app
from flask_smorest import Api

from service.answers import YAML
from service.blueprint import Blueprint

PROBLEM = "application/problem+json"
_BODY_ERRORS = {"400": "The body is not JSON", "413": "The body is too large", "415": "The body is not said to be JSON"}
_ALWAYS = {"503": "Redis is away for the moment"}

blueprint = Blueprint("openapi", __name__, description="This description")


@blueprint.get("/openapi.yaml")
@blueprint.response(200, {"type": "object"}, content_type=YAML)
def get() -> Response:
    """Read this description of the API."""
    return Response(text(current_app), content_type=YAML)


def text(app: Flask) -> str:
    """The description of the app's API as YAML (OpenAPI 3.1)."""
    api: Api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    described = api.spec.to_dict()
    for path in described["paths"].values():
        for method, operation in path.items():
            if method != "parameters":
                _complete(operation)
    described["components"].pop("responses", None)  # the framework's own, which no operation refers to any more
    for unused in ("Error", "PaginationMetadata"):
        described["components"]["schemas"].pop(unused, None)
    return yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120)


def _complete(operation: dict[str, Any]) -> None:
    """Say of an operation what holds for all: its errors are problems, and which can always be."""
    responses = cast("dict[str, Any]", operation["responses"])
    responses.pop("default", None)
    added = _ALWAYS | (_BODY_ERRORS if "requestBody" in operation else {})
    for status, description in added.items():
        responses.setdefault(status, {"description": description})
    for status, response in list(responses.items()):
        if int(status) >= 400:
            described = response.get("description") or _TITLES.get(status, "It went wrong")
            schema = {"$ref": "#/components/schemas/Problem"}
            responses[status] = {"description": described, "content": {PROBLEM: {"schema": schema}}}
    operation["responses"] = dict(sorted(responses.items()))


_TITLES = {
    "404": "There is no such thing",
    "406": "There is no such representation",
    "409": "It is not done",
    "422": "A value is not allowed; `errors` says which and what is",
}
