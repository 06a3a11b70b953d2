"""Examples: requests are declared at their routes, responses recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from service.openapi.operations import Operation, Paths, each_operation

FILE = Path(__file__).with_name("examples.json")
NOTE = (
    "The responses in the examples are real, but shortened: of lists and mappings of objects they have the first two, "
    "of long texts the beginning, of bytes the number."
)
_MAX_TEXT = 300  # characters of a text


def declare(
    path: dict[str, str] | None = None,
    query: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    body: Any = None,
    varies: Sequence[str] = (),
) -> dict[str, Any]:
    """Return an example request; `make examples` sends it and records the response.

    A missing path parameter is the id in the response to the example of its POST: {trace_id} is the trace of POST
    /v1/traces. `varies` names fields of the response that differ each time, in addition to times.
    """
    return {
        "request": {"path": path or {}, "query": query or {}, "headers": headers or {}, "body": body},
        "varies": list(varies),
    }


def pop_declared(paths: Paths) -> dict[str, dict[str, Any]]:
    """Remove the example requests from operations; return them, or a default one, by "METHOD /path"."""
    return {
        f"{method.upper()} {path}": operation.pop("x-example", None) or declare()
        for method, path, operation in each_operation(paths)
    }


def add(paths: Paths) -> None:
    """Add the recorded examples to the operations."""
    recorded = orjson.loads(FILE.read_bytes())
    for method, path, operation in each_operation(paths):
        example = recorded.get(f"{method.upper()} {path}")
        if example is not None:
            _add(operation, paths[path].get("parameters", []), example["request"], example["answer"])


def _add(
    operation: Operation, path_parameters: list[dict[str, Any]], request: dict[str, Any], response: dict[str, Any]
) -> None:
    values = {("path", k): v for k, v in request["path"].items()} | {
        ("query", k): v for k, v in request["query"].items()
    }
    for parameter in [*path_parameters, *operation.get("parameters", [])]:
        key = (parameter["in"], parameter["name"])
        if key in values:
            parameter["example"] = values[key]
    if request["body"] is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = request["body"]
    content = operation["responses"].get(str(response["status"]), {}).get("content", {})
    if response["type"] in content:
        content[response["type"]]["example"] = response["body"]


def shorten(value: Any) -> Any:
    """Return a JSON value, shortened for an example."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
    if isinstance(value, list):
        return [shorten(item) for item in (value[:2] if value and isinstance(value[0], dict) else value)]
    if isinstance(value, dict):
        is_mapping = len(value) > 2 and all(isinstance(item, dict) for item in value.values())
        return {key: shorten(item) for key, item in (list(value.items())[:2] if is_mapping else value.items())}
    return value
