"""Requests that follow from one another by the description's links: each of them, and any order of them."""

from __future__ import annotations

from functools import reduce
from http import HTTPStatus
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from service.app import create_app
from tests.conftest import running_servers, running_worker
from tests.service.openapi.test_document import CHECKS, OPERATIONS
from tests.service.openapi.test_examples import DECLARED

HEADERS = {"Accept-Encoding": "identity", "Prefer": "wait=60"}  # what is done by then must not hang on the machine
NAMES = {described["operationId"]: f"{method} {path}" for method, path, described in OPERATIONS}
#: What an operation's answers lead to, forgetting last: the operation's name and where its path parameters come from.
LINKS = {
    f"{method} {path}": sorted(
        {
            link["operationId"]: link["parameters"]
            for answer in told.values()
            for link in answer.get("links", {}).values()
        }.items(),
        key=lambda link: NAMES[link[0]].startswith("DELETE"),
    )
    for method, path, described in OPERATIONS
    if (told := described["responses"])
}


def ask(schema: Any, name: str, path: dict[str, str]) -> Any:
    """The example of an operation, of another path; its answer is as described."""
    method, template = name.split()
    given = DECLARED[name]["request"]
    body = {} if given["body"] is None else {"body": given["body"], "media_type": "application/json"}
    query = {} if template.endswith("/{name}") else given["query"]  # a slice is of the example's tensor alone
    case = schema[template][method].Case(path_parameters=given["path"] | path, query=query, **body)
    return case.call_and_validate(checks=CHECKS, headers=HEADERS | given["headers"])


def found(expression: str, path: dict[str, str], answer: Any) -> str:
    """The value of a link's parameter, of the request's path or of the answer's body (OpenAPI 3.1, Link Object)."""
    if expression.startswith("$request.path."):
        return path[expression.removeprefix("$request.path.")]
    steps = expression.removeprefix("$response.body#/").split("/")
    return str(reduce(lambda value, step: value[int(step) if isinstance(value, list) else step], steps, answer.json()))


def test_every_link_leads_to_an_answer_as_described() -> None:
    followed = []
    with running_servers() as servers, running_worker(servers):
        schema = schemathesis.openapi.from_wsgi("/openapi.yaml", create_app(servers.settings))
        for name, links in LINKS.items():
            for target, parameters in links:
                path = DECLARED[name]["request"]["path"]
                if "{trace_id}" in name:
                    path = path | {"trace_id": ask(schema, "POST /v1/traces", {}).json()["id"]}
                answer = ask(schema, name, path)  # again for each link: the one before may have deleted it
                assert answer.status_code < HTTPStatus.BAD_REQUEST, (name, answer.text)
                there = {key: found(of, path, answer) for key, of in parameters.items()}
                read = ask(schema, NAMES[target], there)
                assert read.status_code < HTTPStatus.BAD_REQUEST, (name, target, read.text)
                if NAMES[target] == "DELETE /v1/traces/{trace_id}":
                    assert ask(schema, "GET /v1/traces/{trace_id}", there).status_code == HTTPStatus.NOT_FOUND
                followed.append(target)
    assert {"get_trace_tensor", "get_model_tensor", "delete_trace", "get_batch_events"} <= set(followed)


def machine(app: Any, seen: set[int]) -> Any:
    """Follows the links; what it asks to be computed are the examples, which are small."""

    class Machine(schemathesis.openapi.from_wsgi("/openapi.yaml", app).as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            if case.method == "POST":
                case.body = DECLARED[f"POST {case.path}"]["request"]["body"]
            if case.path.endswith("/{name}"):
                case.query = {}
            case.headers = HEADERS

        def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **kwargs: Any) -> None:
            seen.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

    return Machine


def test_what_one_answer_leads_to_is_answered_as_described_in_any_order() -> None:
    seen: set[int] = set()
    with running_servers() as servers, running_worker(servers):
        run_state_machine_as_test(
            machine(create_app(servers.settings), seen),
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
    assert HTTPStatus.OK in seen
