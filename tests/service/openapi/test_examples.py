"""The examples of the OpenAPI description: every operation has one, and it is what the service answers.

RECORD_EXAMPLES=1 (make examples) writes what it answers now.
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
from service.openapi.examples import FILE, shortened
from service.settings import Settings
from tests.conftest import running_servers, running_worker
from tests.service.openapi.test_document import CHECKS

DESCRIBED, DECLARED = document.describe(create_app(Settings()))
ORDER = {"POST": 0, "GET": 1, "DELETE": 2}  # what is asked for, read, forgotten
VOLATILE = {"created_at", "started_at", "finished_at", "queue_position", "seconds_left"}
#: The whole of a thing is asked for and read before its parts, and forgotten after them.
OPERATIONS = sorted(DECLARED, key=lambda name: (ORDER[name.split()[0]], -len(name) if name[0] == "D" else 0))

Example = dict[str, Any]


def operation(name: str) -> dict[str, Any]:
    method, path = name.split()
    described: dict[str, Any] = DESCRIBED["paths"][path][method.lower()]
    return described


def parameters(name: str) -> list[dict[str, Any]]:
    return [*DESCRIBED["paths"][name.split()[1]].get("parameters", []), *operation(name).get("parameters", [])]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_and_its_parameters_are_described_in_sentences(name: str) -> None:
    assert operation(name).get("description", "").endswith("."), "the docstring's second paragraph describes it"
    undescribed = [parameter["name"] for parameter in parameters(name) if not parameter.get("description")]
    assert undescribed == [], "metadata={'description': …} in the schema of the query"


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_an_example_with_its_real_answer(name: str) -> None:
    described = operation(name)
    recorded = orjson.loads(FILE.read_bytes()).get(name)
    assert recorded, "give it @blueprint.example(…) where it needs a body or a path, then: make examples"
    assert recorded["answer"]["status"] < HTTPStatus.BAD_REQUEST
    if "requestBody" in described:
        assert described["requestBody"]["content"]["application/json"]["example"] == recorded["request"]["body"]
    content = described["responses"][str(recorded["answer"]["status"])].get("content", {})
    assert [held["example"] for held in content.values() if "example" in held] == [recorded["answer"]["body"]] * bool(
        content
    )


def test_no_example_is_of_what_is_not_there_any_more() -> None:
    assert set(orjson.loads(FILE.read_bytes())) <= set(DECLARED), "make examples"


def test_the_service_answers_the_examples_as_described_and_as_recorded() -> None:
    with running_servers() as servers, running_worker(servers):
        asked = ask_all(create_app(servers.settings))
    recorded = orjson.loads(FILE.read_bytes())
    if os.environ.get("RECORD_EXAMPLES"):
        same = {name: recorded[name] for name in asked if is_still(name, recorded.get(name), asked[name])}
        recorded = asked | same
        FILE.write_bytes(orjson.dumps(recorded, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for name, example in asked.items():
        assert is_still(name, recorded.get(name), example), f"{name}: if {example} is right, make examples"


def ask_all(app: Flask) -> dict[str, Example]:
    """Ask every example of an app with nothing in it; each answer is checked against the description."""
    schema = schemathesis.openapi.from_wsgi("/openapi.yaml", app)
    ids: dict[str, str] = {}  # by the path of the POST that they come from
    asked = {}
    for name in OPERATIONS:
        method, path = name.split()
        given = DECLARED[name]["request"]
        request = given | {"path": known(path, ids) | given["path"]}
        assert set(request["path"]) == set(re.findall(r"{(\w+)}", path)), f"{name}: @blueprint.example(path=…)"
        body = {} if request["body"] is None else {"body": request["body"], "media_type": "application/json"}
        case = schema[path][method].Case(path_parameters=request["path"], query=request["query"], **body)
        answer = case.call_and_validate(checks=CHECKS, headers={"Accept-Encoding": "identity"} | request["headers"])
        assert answer.status_code < HTTPStatus.BAD_REQUEST, f"{name}: {answer.text}"
        asked[name] = {"request": request, "answer": told(answer)}
        if method == "POST":
            ids[path] = answer.json()["id"]
    return asked


def known(path: str, ids: dict[str, str]) -> dict[str, str]:
    """The path parameters that are ids of what was asked for before."""
    names = {name: path.partition(f"/{{{name}}}")[0] for name in re.findall(r"{(\w+)}", path)}
    return {name: ids[before] for name, before in names.items() if before in ids}


def told(answer: Any) -> dict[str, Any]:
    """An answer as the description shows it."""
    kind = answer.headers.get("content-type", [""])[0].partition(";")[0]
    if not answer.content:
        kind, body = "", None
    elif kind.endswith("json"):
        body = shortened(orjson.loads(answer.content))
    elif kind.startswith("text/") or kind.endswith("yaml"):
        body = shortened(answer.content.decode())
    else:
        body = f"{len(answer.content):,} bytes"
    return {"status": answer.status_code, "type": kind, "body": body}


def is_still(name: str, recorded: Example | None, asked: Example) -> bool:
    """Whether an example was asked like this, and was answered the same in all that does not vary."""
    if recorded is None:
        return False
    given, varies = DECLARED[name]["request"], VOLATILE | set(DECLARED[name]["varies"])
    if not asked["answer"]["type"].endswith("json"):
        varies |= {"body"}
    before = recorded["request"] | {"path": given["path"]}
    return before == given and alike(recorded["answer"], asked["answer"], varies)


def alike(one: Any, other: Any, varies: set[str]) -> bool:
    """Whether two values of JSON are the same but for what varies, and for the last digits of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        lasting = one.keys() - varies
        return lasting == other.keys() - varies and all(alike(one[key], other[key], varies) for key in lasting)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other, repeat(varies)))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-6)
    return bool(one == other)
