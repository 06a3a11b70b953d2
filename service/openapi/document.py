"""The OpenAPI description, made from the code."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import yaml
from flask import Flask
from flask_smorest import Api

import service.openapi.examples as examples
import service.openapi.operations as operations


def text(app: Flask) -> str:
    """The description of the app's API as YAML (OpenAPI 3.1)."""
    return yaml.dump(describe(app)[0], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def describe(app: Flask) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The description, and by "METHOD /path" the example requests that the routes declare."""
    api: Api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    described = deepcopy(api.spec.to_dict())
    declared = examples.take(described["paths"])
    operations.complete(described["paths"])
    schemes = described["components"]["securitySchemes"]
    described["security"] = [{}, *({name: []} for name in schemes)]  # a deployment may set keys, or not
    examples.add(described["paths"])
    described["components"].pop("responses", None)  # the framework's own, which no operation refers to any more
    for unused in ("Error", "PaginationMetadata"):
        described["components"]["schemas"].pop(unused, None)
    return {key: described[key] for key in ("openapi", "info", "tags", "security", "paths", "components")}, declared


class _Dumper(yaml.SafeDumper):
    """Writes what is the same twice instead of pointing at it, which not every reader of OpenAPI understands."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _numbers(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    """A list of plain values on one line."""
    flat = all(item is None or isinstance(item, int | float) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _numbers)
