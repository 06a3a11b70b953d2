"""What every operation of the OpenAPI description says besides what its own decorators do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PROBLEM = "application/problem+json"
_BODY_ERRORS = {"400": "The body is not JSON", "413": "The body is too large", "415": "The body is not said to be JSON"}
_ALWAYS = {"503": "Redis is away for the moment"}
_GUARDED = {"401": "A key is needed here"}
_FULL = {"429": "Too often, or too much is to be done already; `Retry-After` says when to ask again"}
_COMPUTING = re.compile(
    r"create_|get_(trace|layout)(_|$)|list_trace_|delete_trace_lens"
)  # by reading what the cache lost, too
_TITLES = {
    "404": "There is no such thing",
    "406": "There is no such representation",
    "409": "It is not done",
    "416": "The file has no such range",
    "429": "There are too many; `Retry-After` says when to ask again",
    "422": "A value is not allowed; `errors` says which and what is",
}
_PARAMETERS = {
    "model_id": "The id of a model, as GET /v1/models lists them, or a configuration: `n_layer=3,n_head=3,n_embd=48`; "
    "what is left out is GPT-2's",
    "name": "The name of a tensor, as the list of tensors has it",
}

Operation = dict[str, Any]
Paths = dict[str, dict[str, Any]]


def each(paths: Paths) -> Iterator[tuple[str, str, Operation]]:
    """Every operation with its method and its path."""
    for path, item in paths.items():
        yield from ((method, path, operation) for method, operation in item.items() if method != "parameters")


def complete(paths: Paths) -> None:
    """Give every operation its id, its errors, its parameters' descriptions, and links to what its answer leads to."""
    for method, path, operation in each(paths):
        operation.setdefault("operationId", _id(method, path, paths))
        if "description" in operation:
            operation["description"] = _unwrapped(operation["description"])
        guarded = path.startswith("/v1/") or path == "/metrics"
        if not guarded:
            operation["security"] = []
        computes = _COMPUTING.match(operation["operationId"])
        _errors(operation, (_GUARDED if guarded else {}) | (_FULL if computes else {}))
    for path, item in paths.items():
        for parameter in item.get("parameters", ()):
            name = parameter["name"]
            of = f"The id of a {name.removesuffix('_id')}: the SHA-256 of what was asked for"
            parameter.setdefault("description", _PARAMETERS.get(name, of))
        for method, status, links in _links(path, paths):
            item[method]["responses"][status]["links"] = links


def _id(method: str, path: str, paths: Paths) -> str:
    """`list_traces`, `create_trace`, `get_trace_tensor`: what clients that are generated call an operation."""
    parts = path.removeprefix("/v1").strip("/").split("/")
    several = method == "get" and any(other.startswith(f"{path}/{{") for other in paths)
    words = []
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        one = following.startswith("{") or (not following and method == "post")
        if not part.startswith("{"):
            words.append(_singular(part) if one else part)
    verb = "list" if several else {"post": "create"}.get(method, method)
    return re.sub(r"\W", "_", "_".join((verb, *words)))


def _singular(word: str) -> str:
    return word.removesuffix("es") if word.endswith("ches") else word.removesuffix("s")


def _unwrapped(text: str) -> str:
    """Paragraphs of a docstring, each in one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _errors(operation: Operation, more: dict[str, str]) -> None:
    """Errors are problems, and some can always be."""
    responses = operation["responses"]
    responses.pop("default", None)
    added = _ALWAYS | more | (_BODY_ERRORS if "requestBody" in operation else {})
    for status, description in added.items():
        responses.setdefault(status, {"description": description})
    for status, response in list(responses.items()):
        if int(status) >= 400:
            described = response.get("description") or _TITLES.get(status, "It went wrong")
            schema = {"$ref": "#/components/schemas/Problem"}
            responses[status] = {"description": described, "content": {PROBLEM: {"schema": schema}}}
    operation["responses"] = dict(sorted(responses.items()))


def _links(path: str, paths: Paths) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What an answer leads to: who asked for a thing can read it, and who listed tensors can read the first."""
    following = [(other, found) for _, other, found in each(paths) if other.startswith(f"{path}/{{")]
    for status in ("200", "202"):
        asked = paths[path].get("post", {"responses": {}})["responses"]
        near = {o["operationId"]: _link(o, p, "$response.body#/id") for p, o in following if p.count("{") == 1}
        if status in asked and near:
            yield "post", status, near
    if path.endswith("/tensors"):
        yield "get", "200", {o["operationId"]: _link(o, p, "$response.body#/tensors/0/name") for p, o in following}


def _link(operation: Operation, path: str, last: str) -> dict[str, Any]:
    """A link to an operation: its last path parameter is taken from the answer, those before from the request."""
    *before, name = re.findall(r"{(\w+)}", path)
    parameters = {known: f"$request.path.{known}" for known in before} | {name: last}
    return {"operationId": operation["operationId"], "parameters": parameters}
