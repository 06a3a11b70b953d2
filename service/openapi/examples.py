"""Real examples in the OpenAPI description: requests stand beside their routes, answers were recorded by asking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from service.openapi.operations import Operation, Paths, each

FILE = Path(__file__).with_name("examples.json")
NOTE = (
    "The answers in the examples are real. They are shortened: lists and mappings of objects to their first two, "
    "long texts to their beginning, bytes to their number."
)
_TEXT = 300  # characters of a long text that are shown


def declared(
    path: dict[str, str] | None = None,
    query: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    body: Any = None,
    varies: Sequence[str] = (),
) -> dict[str, Any]:
    """An example request; `make examples` asks it and records the answer.

    A path parameter that is left out is the id in the answer to the example of the POST before it: {trace_id} is the
    trace of POST /v1/traces. `varies` names what of the answer is another each time, besides times.
    """
    return {
        "request": {"path": path or {}, "query": query or {}, "headers": headers or {}, "body": body},
        "varies": list(varies),
    }


def take(paths: Paths) -> dict[str, dict[str, Any]]:
    """Take the example requests out of the operations, by "METHOD /path"; where none is declared it is the plainest."""
    return {
        f"{method.upper()} {path}": operation.pop("x-example", None) or declared()
        for method, path, operation in each(paths)
    }


def add(paths: Paths) -> None:
    """Put the recorded examples where the description has a place for them."""
    recorded = orjson.loads(FILE.read_bytes())
    for method, path, operation in each(paths):
        example = recorded.get(f"{method.upper()} {path}")
        if example is not None:
            _add(operation, paths[path].get("parameters", []), example["request"], example["answer"])


def _add(operation: Operation, of_path: list[dict[str, Any]], request: dict[str, Any], answer: dict[str, Any]) -> None:
    values = {("path", k): v for k, v in request["path"].items()} | {
        ("query", k): v for k, v in request["query"].items()
    }
    for parameter in [*of_path, *operation.get("parameters", [])]:
        key = (parameter["in"], parameter["name"])
        if key in values:
            parameter["example"] = values[key]
    if request["body"] is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = request["body"]
    content = operation["responses"].get(str(answer["status"]), {}).get("content", {})
    if answer["type"] in content:
        content[answer["type"]]["example"] = answer["body"]


def shortened(value: Any) -> Any:
    """A value of JSON as an example shows it: enough to see what it is like."""
    if isinstance(value, str):
        return value if len(value) <= _TEXT else value[:_TEXT] + "…"
    if isinstance(value, list):
        return [shortened(item) for item in (value[:2] if value and isinstance(value[0], dict) else value)]
    if isinstance(value, dict):
        alike = len(value) > 2 and all(isinstance(item, dict) for item in value.values())
        return {key: shortened(item) for key, item in (list(value.items())[:2] if alike else value.items())}
    return value
