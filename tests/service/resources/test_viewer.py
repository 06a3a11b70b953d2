"""The viewer's page: files, security policy, caching."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest
from flask import Flask

import service.resources.viewer as viewer

PAGE = '<!doctype html><script type="module" src="/viewer/assets/index-AbC1.js"></script>'


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the output of a build."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "assets" / "index-AbC1.js").write_text("export {};\n" * 200, encoding="utf-8")
    monkeypatch.setattr(viewer, "FILES", tmp_path)
    return tmp_path


def test_the_page_and_its_files_are_served(app: Flask, built: Path) -> None:
    client = app.test_client()
    page = client.get("/")
    assert (page.status_code, page.mimetype, page.text) == (HTTPStatus.OK, "text/html", PAGE)
    for url in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert client.get(url).status_code == HTTPStatus.OK


def test_its_policy_allows_no_other_origin_and_no_inline_code(app: Flask, built: Path) -> None:
    policy = app.test_client().get("/").headers["Content-Security-Policy"]
    sources = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert sources["default-src"] == "'none'"
    assert sources["script-src"] == sources["style-src"] == sources["connect-src"] == "'self'"
    assert not any(word in policy for word in ("unsafe", "http", "*"))


def test_the_page_is_revalidated_and_sent_only_if_it_changed(app: Flask, built: Path) -> None:
    client = app.test_client()
    page = client.get("/")
    assert "no-cache" in page.headers["Cache-Control"]
    same = client.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert (same.status_code, same.data) == (HTTPStatus.NOT_MODIFIED, b"")
    (built / "index.html").write_text(PAGE + "<!-- another -->", encoding="utf-8")
    assert client.get("/", headers={"If-None-Match": page.headers["ETag"]}).status_code == HTTPStatus.OK


@pytest.mark.parametrize("encoding", ["identity", "br"])
def test_files_named_by_their_content_are_cached_forever(app: Flask, built: Path, encoding: str) -> None:
    client, accept = app.test_client(), {"Accept-Encoding": encoding}
    sent = client.get("/viewer/assets/index-AbC1.js", headers=accept)
    assert "immutable" in sent.headers["Cache-Control"]
    assert sent.headers.get("Content-Encoding", "identity") == encoding
    again = client.get("/viewer/assets/index-AbC1.js", headers=accept | {"If-None-Match": sent.headers["ETag"]})
    assert (again.status_code, again.data) == (HTTPStatus.NOT_MODIFIED, b"")


@pytest.mark.parametrize("name", ["index-Other.js", "../index.html", "..%2f..%2f__init__.py", "%00"])
def test_a_missing_file_is_a_404_problem(app: Flask, built: Path, name: str) -> None:
    answer = app.test_client().get(f"/viewer/assets/{name}")
    assert (answer.status_code, answer.mimetype) == (HTTPStatus.NOT_FOUND, "application/problem+json")


def test_the_page_says_how_to_build_the_viewer(app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(viewer, "FILES", tmp_path)
    page = app.test_client().get("/")
    assert (page.status_code, page.mimetype) == (HTTPStatus.OK, "text/html")
    assert "make viewer" in page.text
    assert "Node.js" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
