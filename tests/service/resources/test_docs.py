"""The documentation at /docs: it shows every operation, and asks nobody but the service."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml
from flask import Flask

from tests.browser import browse, needs_chromium


def test_it_has_everything_that_it_needs_from_the_service_itself(app: Flask) -> None:
    client = app.test_client()
    page = client.get("/docs")
    assert (page.status_code, page.mimetype) == (HTTPStatus.OK, "text/html")
    asked = re.findall(r'(?:src|href|url)(?:=|: )"([^"]*)"', page.text)
    assert len(asked) >= 4
    for url in asked:
        assert url.startswith("/")
        assert client.get(url).status_code == HTTPStatus.OK


def test_its_policy_allows_nothing_from_elsewhere_and_no_code_written_into_it(app: Flask) -> None:
    policy = app.test_client().get("/docs").headers["Content-Security-Policy"]
    sources = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert sources["default-src"] == "'none'"
    assert not any(word in policy for word in ("unsafe", "http", "*"))


def test_a_file_that_it_does_not_have_is_a_problem_like_any_other(app: Flask) -> None:
    answer = app.test_client().get("/docs/files/../__init__.py")
    assert (answer.status_code, answer.mimetype) == (HTTPStatus.NOT_FOUND, "application/problem+json")


@pytest.mark.parametrize("encoding", ["identity", "br"])
def test_who_has_a_file_is_not_sent_it_again(app: Flask, encoding: str) -> None:
    client, url, accept = app.test_client(), "/docs/files/swagger-ui.css", {"Accept-Encoding": encoding}
    sent = client.get(url, headers=accept)
    assert sent.headers.get("Content-Encoding", "identity") == encoding
    again = client.get(url, headers=accept | {"If-None-Match": sent.headers["ETag"]})
    assert (again.status_code, again.data) == (HTTPStatus.NOT_MODIFIED, b"")


@needs_chromium
def test_a_browser_shows_every_operation_without_a_complaint(address: str, app: Flask, tmp_path: Path) -> None:
    page = browse(f"{address}/docs", tmp_path)
    assert page.console == []
    described = yaml.safe_load(app.test_client().get("/openapi.yaml").text)
    operations = [operation for item in described["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations if isinstance(operation, dict)]
    missing = [id for id in ids if not re.search(rf'id="operations-\w+-{id}"', page.document)]
    assert missing == []
