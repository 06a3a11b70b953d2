"""The OpenAPI description: it is what the code says, it is valid, and the service keeps to it."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app, openapi_yaml
from tests.conftest import running_servers, running_worker
from worker.store.connection import connect

FILE = Path(__file__).parents[3] / "openapi.yaml"
DESCRIBED = yaml.safe_load(openapi_yaml())
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DESCRIBED["paths"].items()
    for method, operation in operations.items()
    if method != "parameters"
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]

operations = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text(encoding="utf-8") == openapi_yaml(), "write it anew: make openapi"


def test_the_service_serves_it(app: Flask) -> None:
    answer = app.test_client().get("/openapi.yaml")
    assert (answer.status_code, answer.content_type) == (HTTPStatus.OK, "application/yaml")
    assert answer.text == openapi_yaml()


def test_it_is_valid_openapi_3_1() -> None:
    assert DESCRIBED["openapi"].startswith("3.1.")
    validate(DESCRIBED)


def test_every_route_is_described(app: Flask) -> None:
    pages = ("viewer.", "docs_files.")  # and what belongs to them
    routes = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.startswith(pages)]
    assert {str(rule).replace("<", "{").replace(">", "}") for rule in routes} == set(DESCRIBED["paths"])


@operations
def test_an_operation_has_a_summary_and_its_errors_are_problems(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"].endswith(".")
    responses = operation["responses"]
    errors = {status for status in responses if int(status) >= 400}
    assert "503" in errors
    assert ("404" in errors) >= ("{" in path)
    if "requestBody" in operation:
        assert errors >= {"400", "413", "415", "422"}
    for status in errors:
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        assert responses[status]["content"] == problem
        assert responses[status]["description"]


def test_what_needs_a_key_and_what_can_be_too_much_says_so() -> None:
    described = yaml.safe_load(openapi_yaml())
    schemes = described["components"]["securitySchemes"]
    assert {tuple(one) for one in described["security"]} == {(), *((name,) for name in schemes)}
    for path, item in described["paths"].items():
        for method in {*item} - {"parameters"}:
            guarded = path.startswith("/v1/") or path == "/metrics"
            assert ("401" in item[method]["responses"]) == guarded == ("security" not in item[method])
            reads = method == "get" and path.startswith(
                ("/v1/traces/{", "/v1/layouts/{")
            )  # what the cache may have lost
            asks = method == "post" or reads or path.endswith(("/events", "/lens"))
            assert ("429" in item[method]["responses"]) == asks


# ---------------------------------------------------------------------------------------- the service keeps to it


@pytest.fixture(scope="module")
def driven() -> Iterator[tuple[Any, dict[str, str]]]:
    """The schema over an app, and the ids of a finished trace, its layout, its model and a batch of it there.

    What is asked for later stays queued: it may be huge.
    """
    with running_servers() as servers:
        with running_worker(servers):
            app = create_app(servers.settings)
            client = app.test_client()
            body = {"model": "nano-gpt", "text": "CABABC", "generate": {"max_new_tokens": 6}}  # no example deletes it
            trace = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()
        queue = connect(servers.queue_url)
        for key in queue.scan_iter("rq:worker:*", _type="hash"):
            queue.persist(key)  # it counts as alive however long this takes
        batch = client.post("/v1/batches", json={"requests": [body]}).get_json()
        ids = {
            "batch_id": batch["id"],
            "trace_id": trace["id"],
            "layout_id": trace["layout"].rpartition("/")[2],
            "model_id": "nano-gpt",
        }
        yield schemathesis.openapi.from_wsgi("/openapi.yaml", app), ids


@operations
def test_answers_are_as_described(
    driven: tuple[Any, dict[str, str]], method: str, path: str, operation: dict[str, Any]
) -> None:
    schema, known = driven
    names = ["probs", "blocks.0.attn.scores", "h.0.ln_1.bias"]
    kinds = ["json", "octet-stream", "x-safetensors"]
    accepts = ["*/*", *(f"application/{kind}" for kind in kinds), "model/gltf-binary", "text/html"]

    @settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        case=schema[path][method].as_strategy(),
        exists=st.booleans(),
        name=st.sampled_from(names),
        accept=st.sampled_from(accepts),
        wait=st.sampled_from([None, "wait=0"]),
    )
    def drive(case: Any, exists: bool, name: str, accept: str, wait: str | None) -> None:
        if exists and method != "DELETE":
            of_path = known | {"name": name}
            case.path_parameters = {key: of_path[key] for key in case.path_parameters}
        case.headers = {"Accept": accept, "Accept-Encoding": "identity"} | ({"Prefer": wait} if wait else {})
        case.call_and_validate(checks=CHECKS)

    drive()


def test_a_finished_trace_and_its_layout_are_as_described(driven: tuple[Any, dict[str, str]]) -> None:
    schema, known = driven
    for path in ("/v1/traces/{trace_id}", "/v1/layouts/{layout_id}", "/v1/traces/{trace_id}/tensors"):
        case = schema[path]["GET"].Case(path_parameters={key: id for key, id in known.items() if f"{{{key}}}" in path})
        answer = case.call_and_validate(checks=CHECKS, headers={"Accept-Encoding": "identity"})
        assert answer.status_code == HTTPStatus.OK
