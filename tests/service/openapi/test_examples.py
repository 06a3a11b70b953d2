"""The examples of the OpenAPI document: every operation has one, and it is current.

RECORD_EXAMPLES=1 (make examples) records the responses of the service.
"""

from __future__ import annotations

import math
import os
import re
from http import HTTPStatus
from itertools import repeat
from typing import Any

import orjson
import pytest
import schemathesis
from flask import Flask

import service.openapi.document as document
from service.app import create_app
from service.openapi.examples import FILE, shorten
from service.settings import Settings
from tests.conftest import running_servers, running_worker
from tests.service.openapi.test_document import CHECKS

SPEC, DECLARED = document.describe(create_app(Settings()))
ORDER = {"POST": 0, "GET": 1, "DELETE": 2}  # create, read, delete
VOLATILE = {"created_at", "started_at", "finished_at", "queue_position", "seconds_left"}
#: A resource is created and read before its parts, and deleted after them.
OPERATIONS = sorted(DECLARED, key=lambda name: (ORDER[name.split()[0]], -len(name) if name[0] == "D" else 0))

Example = dict[str, Any]


def operation(name: str) -> dict[str, Any]:
    method, path = name.split()
    described: dict[str, Any] = SPEC["paths"][path][method.lower()]
    return described


def parameters(name: str) -> list[dict[str, Any]]:
    return [*SPEC["paths"][name.split()[1]].get("parameters", []), *operation(name).get("parameters", [])]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_their_parameters_have_descriptions(name: str) -> None:
    assert operation(name).get("description", "").endswith("."), "describe it in the docstring's second paragraph"
    undescribed = [parameter["name"] for parameter in parameters(name) if not parameter.get("description")]
    assert undescribed == [], "set metadata={'description': …} in the schema of the query"


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_a_recorded_example(name: str) -> None:
    described = operation(name)
    recorded = orjson.loads(FILE.read_bytes()).get(name)
    assert recorded, "add @blueprint.example(…) if it needs a body or a path, then run make examples"
    assert recorded["answer"]["status"] < HTTPStatus.BAD_REQUEST
    if "requestBody" in described:
        assert described["requestBody"]["content"]["application/json"]["example"] == recorded["request"]["body"]
    content = described["responses"][str(recorded["answer"]["status"])].get("content", {})
    assert [media["example"] for media in content.values() if "example" in media] == [
        recorded["answer"]["body"]
    ] * bool(content)


def test_there_are_no_examples_of_removed_operations() -> None:
    assert set(orjson.loads(FILE.read_bytes())) <= set(DECLARED), "run make examples"


def test_responses_conform_to_the_document_and_to_the_recorded_examples() -> None:
    with running_servers() as servers, running_worker(servers):
        current = run_examples(create_app(servers.settings))
    recorded = orjson.loads(FILE.read_bytes())
    if os.environ.get("RECORD_EXAMPLES"):
        same = {name: recorded[name] for name in current if is_current(name, recorded.get(name), current[name])}
        recorded = current | same
        FILE.write_bytes(orjson.dumps(recorded, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for name, example in current.items():
        assert is_current(name, recorded.get(name), example), f"{name}: if {example} is right, run make examples"


def run_examples(app: Flask) -> dict[str, Example]:
    """Send the examples to an empty app, checking each response against the document."""
    schema = schemathesis.openapi.from_wsgi("/openapi.yaml", app)
    ids: dict[str, str] = {}  # by the path of the POST that returned them
    examples = {}
    for name in OPERATIONS:
        method, path = name.split()
        declared = DECLARED[name]["request"]
        request = declared | {"path": path_ids(path, ids) | declared["path"]}
        assert set(request["path"]) == set(re.findall(r"{(\w+)}", path)), f"{name}: @blueprint.example(path=…)"
        body = {} if request["body"] is None else {"body": request["body"], "media_type": "application/json"}
        case = schema[path][method].Case(path_parameters=request["path"], query=request["query"], **body)
        response = case.call_and_validate(checks=CHECKS, headers={"Accept-Encoding": "identity"} | request["headers"])
        assert response.status_code < HTTPStatus.BAD_REQUEST, f"{name}: {response.text}"
        examples[name] = {"request": request, "answer": record(response)}
        if method == "POST":
            ids[path] = response.json().get("id", "")  # none: it only computes
    return examples


def path_ids(path: str, ids: dict[str, str]) -> dict[str, str]:
    """Return the path parameters that are ids of resources created before."""
    names = {name: path.partition(f"/{{{name}}}")[0] for name in re.findall(r"{(\w+)}", path)}
    return {name: ids[before] for name, before in names.items() if before in ids}


def record(response: Any) -> dict[str, Any]:
    """Return a response as the examples contain it."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if not response.content:
        kind, body = "", None
    elif kind.endswith("json"):
        body = shorten(orjson.loads(response.content))
    elif kind.startswith("text/") or kind.endswith("yaml"):
        body = shorten(response.content.decode())
    else:
        body = f"{len(response.content):,} bytes"
    return {"status": response.status_code, "type": kind, "body": body}


def is_current(name: str, recorded: Example | None, current: Example) -> bool:
    """Return whether the request of an example is unchanged, and the response too except for what varies."""
    if recorded is None:
        return False
    declared, varies = DECLARED[name]["request"], VOLATILE | set(DECLARED[name]["varies"])
    if not current["answer"]["type"].endswith("json"):
        varies |= {"body"}
    before = recorded["request"] | {"path": declared["path"]}
    return before == declared and alike(recorded["answer"], current["answer"], varies)


def alike(one: Any, other: Any, varies: set[str]) -> bool:
    """Return whether two JSON values are equal except for what varies and the last digits of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        stable = one.keys() - varies
        return stable == other.keys() - varies and all(alike(one[key], other[key], varies) for key in stable)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other, repeat(varies)))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-6)
    return bool(one == other)
