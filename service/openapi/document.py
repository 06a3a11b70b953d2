"""The OpenAPI document, generated from the code."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import yaml
from flask import Flask
from flask_smorest import Api

import service.openapi.examples as examples
import service.openapi.operations as operations

#: Markdown, shown above the operations at /docs.
INTRODUCTION = f"""\
Cutaway shows the inside of a transformer: every intermediate value of an inference (a trace), and the place of every
matrix in a 3D picture (a layout). Begin with a trace of the smallest model, then read its tensors by name:

```sh
curl -s localhost:8000/v1/traces -H 'Prefer: wait=10' --json '{{"model": "nano-gpt", "text": "CBABBC"}}'
```

{examples.NOTE}
"""


def text(app: Flask) -> str:
    """Return the OpenAPI 3.1 document of the app as YAML."""
    return yaml.dump(describe(app)[0], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def describe(app: Flask) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the document, and the example requests that routes declare, by "METHOD /path"."""
    api: Api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    spec = deepcopy(api.spec.to_dict())
    declared = examples.pop_declared(spec["paths"])
    operations.complete(spec["paths"])
    schemes = spec["components"]["securitySchemes"]
    spec["security"] = [{}, *({name: []} for name in schemes)]  # a deployment may require keys or not
    examples.add(spec["paths"])
    spec["components"].pop("responses", None)  # flask-smorest's own, which no operation refers to
    for unused in ("Error", "PaginationMetadata"):
        spec["components"]["schemas"].pop(unused, None)
    return {key: spec[key] for key in ("openapi", "info", "tags", "security", "paths", "components")}, declared


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full: not every OpenAPI tool supports YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _numbers(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    """Represent a list of numbers on one line."""
    flat = all(item is None or isinstance(item, int | float) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _numbers)
