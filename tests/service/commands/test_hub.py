"""Responses of a hostile hub are limited and checked."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from http.client import HTTPMessage
from itertools import count
from typing import Any
from urllib.error import URLError
from urllib.request import Request

import pytest

import service.commands.hub as hub_module
from service.commands.hub import SMALL, FetchError, File, Hub, _RedirectHandler
from service.commands.plan import make_plan
from service.commands.receive import receive

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


class HostileHub(Hub):
    """Sends endless files, and the size and commit that a test sets."""

    def __init__(self, size: int = 10, sha: str = COMMIT, listed: bytes = b"") -> None:
        super().__init__("https://hub.example", "a/b")
        names = ["config.json", "model.safetensors"]
        self.size, self.sent = size, 0
        self.listed = listed or json.dumps({"sha": sha, "siblings": [{"rfilename": name} for name in names]}).encode()

    def _open(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
        answer: Any = io.BytesIO(b"" if method == "HEAD" else self.listed)
        answer.headers = HTTPMessage()
        answer.headers["X-Linked-Size"] = str(self.size)
        return answer

    def pieces(self, commit: str, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        for position in count(start, 1000):
            self.sent += 1000
            yield position, b" " * 1000


def test_an_endless_file_is_aborted_at_its_stated_size() -> None:
    hub, sink = HostileHub(), io.BytesIO()
    with pytest.raises(FetchError, match=r"does not have the size or SHA-256 from https://hub\.example"):
        receive(hub, COMMIT, File("model.safetensors", 2500, None), sink)
    assert hub.sent == 3000
    assert sink.getvalue() == b""


def test_an_oversized_small_file_is_not_downloaded() -> None:
    hub = HostileHub(size=SMALL + 1)
    with pytest.raises(FetchError, match=r"config\.json must be at most 67,108,864 bytes, not 67,108,865"):
        make_plan(hub)
    assert hub.sent == 0


def test_an_oversized_file_list_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SMALL", 1000)
    tracemalloc.start()
    try:
        with pytest.raises(FetchError, match="larger than 1,000 bytes"):
            HostileHub(listed=b" " * 1001).snapshot()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sha", ["\x1b[2J", "a/../b", "", "x" * 200, "607a30d\n"])
def test_an_invalid_commit_is_rejected(sha: str) -> None:
    with pytest.raises(FetchError, match="does not respond like a Hugging Face hub"):
        HostileHub(sha=sha).snapshot()


def test_a_size_of_5000_digits_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HostileHub()
    monkeypatch.setattr(hub, "_open", lambda *_, **__: _answer("9" * 5000))
    with pytest.raises(FetchError, match="did not return the size"):
        hub.describe(COMMIT, "model.safetensors")


def _answer(size: str) -> Any:
    answer: Any = io.BytesIO()
    answer.headers = HTTPMessage()
    answer.headers["X-Linked-Size"] = size
    return answer


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hub.example/a", "http://hub.example/a"),
        ("https://hub.example/a", "ftp://hub.example/a"),
        ("http://hub.example/a", "file:///etc/passwd"),
        ("http://hub.example/a", "ftp://hub.example/a"),
    ],
)
def test_redirects_to_other_schemes_or_from_https_to_http_are_rejected(url: str, target: str) -> None:
    with pytest.raises(URLError, match="are not allowed"):
        _RedirectHandler().redirect_request(Request(url), io.BytesIO(), 302, "", HTTPMessage(), target)  # noqa: S310


def test_the_token_is_not_sent_to_another_host() -> None:
    request = Request("https://hub.example/a", headers={"Authorization": "Bearer secret"})
    redirected = _RedirectHandler().redirect_request(
        request, io.BytesIO(), 302, "", HTTPMessage(), "https://other.example/a"
    )
    assert redirected is not None
    assert not redirected.has_header("Authorization")
