"""The documentation page at /docs."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml
from flask import Flask

from tests.browser import browse, needs_chromium


def test_all_its_files_are_served_by_the_service(app: Flask) -> None:
    client = app.test_client()
    page = client.get("/docs")
    assert (page.status_code, page.mimetype) == (HTTPStatus.OK, "text/html")
    urls = re.findall(r'(?:src|href|url)(?:=|: )"([^"]*)"', page.text)
    assert len(urls) >= 4
    for url in urls:
        assert url.startswith("/")
        assert client.get(url).status_code == HTTPStatus.OK


def test_its_policy_allows_no_other_origin_and_no_unsafe_inline_code(app: Flask) -> None:
    policy = app.test_client().get("/docs").headers["Content-Security-Policy"]
    sources = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert sources["default-src"] == "'none'"
    assert not any(word in policy for word in ("unsafe", "http", "*"))


def test_a_missing_file_is_a_404_problem(app: Flask) -> None:
    answer = app.test_client().get("/docs/files/../__init__.py")
    assert (answer.status_code, answer.mimetype) == (HTTPStatus.NOT_FOUND, "application/problem+json")


@pytest.mark.parametrize("encoding", ["identity", "br"])
def test_a_file_with_the_same_etag_is_304(app: Flask, encoding: str) -> None:
    client, url, accept = app.test_client(), "/docs/files/swagger-ui.css", {"Accept-Encoding": encoding}
    sent = client.get(url, headers=accept)
    assert sent.headers.get("Content-Encoding", "identity") == encoding
    again = client.get(url, headers=accept | {"If-None-Match": sent.headers["ETag"]})
    assert (again.status_code, again.data) == (HTTPStatus.NOT_MODIFIED, b"")


@needs_chromium
def test_a_browser_shows_every_operation_without_console_messages(address: str, app: Flask, tmp_path: Path) -> None:
    page = browse(f"{address}/docs", tmp_path)
    assert page.console == []
    document = yaml.safe_load(app.test_client().get("/openapi.yaml").text)
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations if isinstance(operation, dict)]
    missing = [id for id in ids if not re.search(rf'id="operations-\w+-{id}"', page.document)]
    assert missing == []
