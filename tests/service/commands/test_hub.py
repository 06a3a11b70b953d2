"""A hub that means harm: what it says is bounded, checked, and followed nowhere it should not lead."""

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
from service.commands.hub import SMALL, FetchError, File, Hub, _Redirects
from service.commands.plan import make_plan
from service.commands.receive import receive

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


class Harmful(Hub):
    """Gives without end, and states what it is told to."""

    def __init__(self, size: int = 10, sha: str = COMMIT, listed: bytes = b"") -> None:
        super().__init__("https://hub.example", "a/b")
        names = ["config.json", "model.safetensors"]
        self.size, self.given = size, 0
        self.listed = listed or json.dumps({"sha": sha, "siblings": [{"rfilename": name} for name in names]}).encode()

    def _open(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
        answer: Any = io.BytesIO(b"" if method == "HEAD" else self.listed)
        answer.headers = HTTPMessage()
        answer.headers["X-Linked-Size"] = str(self.size)
        return answer

    def pieces(self, commit: str, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        for place in count(start, 1000):
            self.given += 1000
            yield place, b" " * 1000


def test_a_file_that_does_not_end_is_given_up_where_it_should_have_ended() -> None:
    hub, sink = Harmful(), io.BytesIO()
    with pytest.raises(FetchError, match=r"is not what https://hub\.example says it is"):
        receive(hub, COMMIT, File("model.safetensors", 2500, None), sink)
    assert hub.given == 3000
    assert sink.getvalue() == b""


def test_a_small_file_that_is_said_to_be_large_is_not_begun() -> None:
    hub = Harmful(size=SMALL + 1)
    with pytest.raises(FetchError, match=r"config\.json has 67,108,865 bytes: at most 67,108,864 are read"):
        make_plan(hub)
    assert hub.given == 0


def test_a_list_of_files_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SMALL", 1000)
    tracemalloc.start()
    try:
        with pytest.raises(FetchError, match="lists more than 1,000 bytes"):
            Harmful(listed=b" " * 1001).snapshot()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sha", ["\x1b[2J", "a/../b", "", "x" * 200, "607a30d\n"])
def test_a_commit_is_what_can_be_shown_and_asked_for(sha: str) -> None:
    with pytest.raises(FetchError, match="does not answer as a Hugging Face hub does"):
        Harmful(sha=sha).snapshot()


def test_a_size_of_5000_digits_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Harmful()
    monkeypatch.setattr(hub, "_open", lambda *_, **__: _answer("9" * 5000))
    with pytest.raises(FetchError, match="does not state the size"):
        hub.describe(COMMIT, "model.safetensors")


def _answer(size: str) -> Any:
    answer: Any = io.BytesIO()
    answer.headers = HTTPMessage()
    answer.headers["X-Linked-Size"] = size
    return answer


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("https://hub.example/a", "http://hub.example/a"),
        ("https://hub.example/a", "ftp://hub.example/a"),
        ("http://hub.example/a", "file:///etc/passwd"),
        ("http://hub.example/a", "ftp://hub.example/a"),
    ],
)
def test_a_redirect_leads_to_no_other_kind_of_address_and_to_none_that_is_less_safe(asked: str, leads_to: str) -> None:
    with pytest.raises(URLError, match="is not followed from"):
        _Redirects().redirect_request(Request(asked), io.BytesIO(), 302, "", HTTPMessage(), leads_to)  # noqa: S310


def test_a_redirect_to_another_host_is_not_told_who_asks() -> None:
    asked = Request("https://hub.example/a", headers={"Authorization": "Bearer secret"})
    told = _Redirects().redirect_request(asked, io.BytesIO(), 302, "", HTTPMessage(), "https://other.example/a")
    assert told is not None
    assert not told.has_header("Authorization")
