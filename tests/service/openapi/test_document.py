"""The OpenAPI document is current and valid, and responses conform to it."""

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
SPEC = yaml.safe_load(openapi_yaml())
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in SPEC["paths"].items()
    for method, operation in operations.items()
    if method != "parameters"
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]

operations = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)


def test_the_file_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == openapi_yaml(), "run make openapi"


def test_the_service_serves_it(app: Flask) -> None:
    response = app.test_client().get("/openapi.yaml")
    assert (response.status_code, response.content_type) == (HTTPStatus.OK, "application/yaml")
    assert response.text == openapi_yaml()


def test_it_is_valid_openapi_3_1() -> None:
    assert SPEC["openapi"].startswith("3.1.")
    validate(SPEC)


def test_every_route_is_described(app: Flask) -> None:
    pages = ("viewer.", "docs_files.")  # and their assets
    routes = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.startswith(pages)]
    assert {str(rule).replace("<", "{").replace(">", "}") for rule in routes} == set(SPEC["paths"])


def test_every_query_parameter_that_is_accepted_is_described(app: Flask) -> None:
    accepted, described = set(), set()
    for rule in app.url_map.iter_rules():
        path = str(rule).replace("<", "{").replace(">", "}")
        view = app.view_functions[rule.endpoint]
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            handler = getattr(getattr(view, "view_class", None), method.lower(), view)
            for argument in getattr(handler, "_apidoc", {}).get("arguments", {}).get("parameters", ()):
                if argument["in"] == "query":
                    accepted |= {
                        (method, path, field.data_key or name) for name, field in argument["schema"].fields.items()
                    }
    for method, path, operation in OPERATIONS:
        described |= {(method, path, each["name"]) for each in operation.get("parameters", ()) if each["in"] == "query"}
    assert ("GET", "/v1/traces/{trace_id}/explain", "block") in accepted
    assert accepted == described


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


def test_operations_document_401_and_429() -> None:
    spec = yaml.safe_load(openapi_yaml())
    schemes = spec["components"]["securitySchemes"]
    assert {tuple(one) for one in spec["security"]} == {(), *((name,) for name in schemes)}
    for path, item in spec["paths"].items():
        for method in {*item} - {"parameters"}:
            needs_key = path.startswith("/v1/") or path == "/metrics"
            assert ("401" in item[method]["responses"]) == needs_key == ("security" not in item[method])
            # reading computes again what the cache has lost
            reads = method == "get" and path.startswith(("/v1/traces/{", "/v1/layouts/{"))
            reads |= path.startswith("/v1/models/{model_id}/tensors")
            computes = method == "post" or reads or path.endswith(("/events", "/lens"))
            assert ("429" in item[method]["responses"]) == computes


# ---------------------------------------------------------------------------------------------------- conformance


@pytest.fixture(scope="module")
def schema_and_ids() -> Iterator[tuple[Any, dict[str, str]]]:
    """The schema of an app, and the ids of a finished trace, its layout, its model and its batch.

    Later requests stay queued, because they may be huge.
    """
    with running_servers() as servers:
        with running_worker(servers):
            app = create_app(servers.settings)
            client = app.test_client()
            body = {
                "model": "nano-gpt",
                "text": "CABABC",
                "generate": {"max_new_tokens": 6},
            }  # no generated request deletes it
            trace = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()
        queue = connect(servers.queue_url)
        for key in queue.scan_iter("rq:worker:*", _type="hash"):
            queue.persist(key)  # counts as alive however long the tests take
        batch = client.post("/v1/batches", json={"requests": [body]}).get_json()
        ids = {
            "batch_id": batch["id"],
            "trace_id": trace["id"],
            "layout_id": trace["layout"].rpartition("/")[2],
            "model_id": "nano-gpt",
        }
        yield schemathesis.openapi.from_wsgi("/openapi.yaml", app), ids


@operations
def test_responses_conform_to_the_document(
    schema_and_ids: tuple[Any, dict[str, str]], method: str, path: str, operation: dict[str, Any]
) -> None:
    schema, ids = schema_and_ids
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
            path_ids = ids | {"name": name}
            case.path_parameters = {key: path_ids[key] for key in case.path_parameters}
        case.headers = {"Accept": accept, "Accept-Encoding": "identity"} | ({"Prefer": wait} if wait else {})
        case.call_and_validate(checks=CHECKS)

    drive()


def test_a_finished_trace_and_its_layout_conform_to_the_document(schema_and_ids: tuple[Any, dict[str, str]]) -> None:
    schema, ids = schema_and_ids
    for path in ("/v1/traces/{trace_id}", "/v1/layouts/{layout_id}", "/v1/traces/{trace_id}/tensors"):
        case = schema[path]["GET"].Case(path_parameters={key: id for key, id in ids.items() if f"{{{key}}}" in path})
        response = case.call_and_validate(checks=CHECKS, headers={"Accept-Encoding": "identity"})
        assert response.status_code == HTTPStatus.OK
