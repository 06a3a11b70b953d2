"""The links of the OpenAPI document, each by itself and in any order."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from service.app import create_app
from tests.conftest import running_servers, running_worker
from tests.service.openapi.test_document import CHECKS, OPERATIONS
from tests.service.openapi.test_examples import DECLARED

HEADERS = {"Accept-Encoding": "identity", "Prefer": "wait=60"}  # so that statuses do not depend on the machine's speed
NAMES = {described["operationId"]: f"{method} {path}" for method, path, described in OPERATIONS}
#: The links of each operation: the target's id with the expressions for its path parameters. DELETE comes last.
LINKS = {
    f"{method} {path}": sorted(
        {
            link["operationId"]: link["parameters"]
            for response in responses.values()
            for link in response.get("links", {}).values()
        }.items(),
        key=lambda link: NAMES[link[0]].startswith("DELETE"),
    )
    for method, path, described in OPERATIONS
    if (responses := described["responses"])
}


def send_example(schema: Any, name: str, path: dict[str, str]) -> Any:
    """Send the example of an operation with other path parameters, and validate the response."""
    method, template = name.split()
    given = DECLARED[name]["request"]
    body = {} if given["body"] is None else {"body": given["body"], "media_type": "application/json"}
    query = {} if template.endswith("/{name}") else given["query"]  # a slice fits only the example's tensor
    case = schema[template][method].Case(path_parameters=given["path"] | path, query=query, **body)
    return case.call_and_validate(checks=CHECKS, headers=HEADERS | given["headers"])


def evaluate(expression: str, path: dict[str, str], response: Any) -> str:
    """Evaluate a runtime expression on the request's path or the response's body (OpenAPI 3.1, Link Object)."""
    if expression.startswith("$request.path."):
        return path[expression.removeprefix("$request.path.")]
    steps = expression.removeprefix("$response.body#/").split("/")
    value = response.json()
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
    return str(value)


def test_following_each_link_gives_a_documented_response() -> None:
    followed = []
    with running_servers() as servers, running_worker(servers):
        schema = schemathesis.openapi.from_wsgi("/openapi.yaml", create_app(servers.settings))
        for name, links in LINKS.items():
            for target, parameters in links:
                path = DECLARED[name]["request"]["path"]
                if "{trace_id}" in name:
                    path = path | {"trace_id": send_example(schema, "POST /v1/traces", {}).json()["id"]}
                response = send_example(schema, name, path)  # for each link anew: the one before may have deleted it
                assert response.status_code < HTTPStatus.BAD_REQUEST, (name, response.text)
                arguments = {key: evaluate(expression, path, response) for key, expression in parameters.items()}
                linked = send_example(schema, NAMES[target], arguments)
                assert linked.status_code < HTTPStatus.BAD_REQUEST, (name, target, linked.text)
                if NAMES[target] == "DELETE /v1/traces/{trace_id}":
                    deleted = send_example(schema, "GET /v1/traces/{trace_id}", arguments)
                    assert deleted.status_code == HTTPStatus.NOT_FOUND
                followed.append(target)
    assert {"get_trace_tensor", "get_model_tensor", "delete_trace", "get_batch_events"} <= set(followed)


def state_machine(app: Any, statuses: set[int]) -> Any:
    """A state machine that follows links and sends the examples as bodies, which are small."""

    class Machine(schemathesis.openapi.from_wsgi("/openapi.yaml", app).as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            if case.method == "POST":
                case.body = DECLARED[f"POST {case.path}"]["request"]["body"]
            if case.path.endswith("/{name}"):
                case.query = {}
            case.headers = HEADERS

        def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **kwargs: Any) -> None:
            statuses.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

    return Machine


def test_following_links_in_any_order_gives_documented_responses() -> None:
    statuses: set[int] = set()
    with running_servers() as servers, running_worker(servers):
        run_state_machine_as_test(
            state_machine(create_app(servers.settings), statuses),
            settings=settings(
                max_examples=6,
                stateful_step_count=8,
                derandomize=True,
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert HTTPStatus.OK in statuses
