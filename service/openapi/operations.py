"""What the decorators of operations leave out of the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PROBLEM = "application/problem+json"
_BODY_ERRORS = {
    "400": "The body is not valid JSON",
    "413": "The body is too large",
    "415": "The Content-Type is not JSON",
}
_ALWAYS = {"503": "Redis is temporarily unavailable, or a new checkpoint is still being read"}
_UNAUTHORIZED = {"401": "An API key is required"}
_TOO_MANY = {"429": "Too many requests, or too many jobs; retry after `Retry-After`"}
#: Operations that may compute something (to read what the cache lost, too), or are large reads.
_COMPUTING = re.compile(r"create_|get_(trace|layout|model_tensor)(_|$)|list_(trace|model)_|delete_trace_lens")
_TITLES = {
    "404": "Not found",
    "406": "None of the accepted media types is available",
    "409": "It is not done yet",
    "416": "The range is outside the file",
    "429": "Too many; retry after `Retry-After`",
    "422": "A value is not allowed; `errors` lists which, and what is allowed",
}
_PARAMETERS = {
    "model_id": "The id of a model in GET /v1/models, or a configuration such as `n_layer=3,n_head=3,n_embd=48`, "
    "whose other values are GPT-2's",
    "name": "The name of a tensor in the list of tensors",
}

Operation = dict[str, Any]
Paths = dict[str, dict[str, Any]]


def each_operation(paths: Paths) -> Iterator[tuple[str, str, Operation]]:
    """Yield every operation with its method and path."""
    for path, item in paths.items():
        yield from ((method, path, operation) for method, operation in item.items() if method != "parameters")


def complete(paths: Paths) -> None:
    """Add ids, errors, parameter descriptions and links to all operations."""
    for method, path, operation in each_operation(paths):
        operation.setdefault("operationId", _id(method, path, paths))
        if "description" in operation:
            operation["description"] = _unwrap(operation["description"])
        guarded = path.startswith("/v1/") or path == "/metrics"
        if not guarded:
            operation["security"] = []
        computes = _COMPUTING.match(operation["operationId"])
        _add_errors(operation, (_UNAUTHORIZED if guarded else {}) | (_TOO_MANY if computes else {}))
    for path, item in paths.items():
        for parameter in item.get("parameters", ()):
            name = parameter["name"]
            default = f"The id of a {name.removesuffix('_id')}: the SHA-256 of its request"
            parameter.setdefault("description", _PARAMETERS.get(name, default))
        for method, status, links in _links(path, paths):
            item[method]["responses"][status]["links"] = links


def _id(method: str, path: str, paths: Paths) -> str:
    """Return an operation's id, from which generated clients name a function: `list_traces`, `get_trace_tensor`."""
    parts = path.removeprefix("/v1").strip("/").split("/")
    is_list = method == "get" and any(other.startswith(f"{path}/{{") for other in paths)
    words = []
    for part, next_part in zip(parts, [*parts[1:], ""], strict=True):
        is_one = next_part.startswith("{") or (not next_part and method == "post")
        if not part.startswith("{"):
            words.append(_singular(part) if is_one else part)
    verb = "list" if is_list else {"post": "create"}.get(method, method)
    return re.sub(r"\W", "_", "_".join((verb, *words)))


def _singular(word: str) -> str:
    return word.removesuffix("es") if word.endswith("ches") else word.removesuffix("s")


def _unwrap(text: str) -> str:
    """Return a docstring with each paragraph on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _add_errors(operation: Operation, extra: dict[str, str]) -> None:
    """Add the errors that are always possible; give all errors a description and the schema of problems."""
    responses = operation["responses"]
    responses.pop("default", None)
    added = _ALWAYS | extra | (_BODY_ERRORS if "requestBody" in operation else {})
    for status, description in added.items():
        responses.setdefault(status, {"description": description})
    for status, response in list(responses.items()):
        if int(status) >= 400:
            description = response.get("description") or _TITLES.get(status, "Error")
            schema = {"$ref": "#/components/schemas/Problem"}
            responses[status] = {"description": description, "content": {PROBLEM: {"schema": schema}}}
    operation["responses"] = dict(sorted(responses.items()))


def _links(path: str, paths: Paths) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the links of a path's responses: from a POST to what it created, from a list of tensors to the first."""
    following = [(other, found) for _, other, found in each_operation(paths) if other.startswith(f"{path}/{{")]
    for status in ("200", "202"):
        created = paths[path].get("post", {"responses": {}})["responses"]
        links = {o["operationId"]: _link(o, p, "$response.body#/id") for p, o in following if p.count("{") == 1}
        if status in created and links:
            yield "post", status, links
    if path.endswith("/tensors"):
        yield "get", "200", {o["operationId"]: _link(o, p, "$response.body#/tensors/0/name") for p, o in following}


def _link(operation: Operation, path: str, last: str) -> dict[str, Any]:
    """Return a link to an operation: the last path parameter is from the response, the others from the request."""
    *before, name = re.findall(r"{(\w+)}", path)
    parameters = {parameter: f"$request.path.{parameter}" for parameter in before} | {name: last}
    return {"operationId": operation["operationId"], "parameters": parameters}
