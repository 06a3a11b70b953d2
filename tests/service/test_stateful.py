"""Requests that follow from one another by the description's links, in any order: every answer is as described."""

from __future__ import annotations

from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from service import create_app
from tests.conftest import running_servers, running_worker
from tests.service.described.test_examples import DECLARED, operation
from tests.service.described.test_openapi import CHECKS, OPERATIONS

LINKED = {
    link
    for _, _, described in OPERATIONS
    for response in described["responses"].values()
    for link in response.get("links", {})
}

Seen = Counter[tuple[str, int]]


def machine(app: Any, seen: Seen) -> Any:
    """Follows the links; what it asks to be computed are the examples, which are small."""

    class Machine(schemathesis.openapi.from_wsgi("/openapi.yaml", app).as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            if case.method == "POST":
                case.body = DECLARED[f"POST {case.path}"]["request"]["body"]
            if case.path.endswith("/{name}"):
                case.query = {}
            case.headers = {"Accept-Encoding": "identity", "Prefer": "wait=10"}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **kwargs: Any) -> None:
            seen[f"{case.method} {case.path}", response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

    return Machine


def test_what_one_answer_leads_to_is_answered_as_described() -> None:
    seen: Seen = Counter()
    with running_servers() as servers, running_worker(servers):
        run_state_machine_as_test(
            machine(create_app(servers.settings), seen),
            settings=settings(
                max_examples=25,
                stateful_step_count=8,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    linked = {name for name in DECLARED if operation(name)["operationId"] in LINKED}
    assert 4 * len(linked & {name for name, _ in seen}) >= 3 * len(linked)  # each by itself is tested elsewhere
    assert sum(count for (_, status), count in seen.items() if status < 300) > 50
    assert any(status == 404 and "{trace_id}" in name for name, status in seen)  # of one that was deleted before
