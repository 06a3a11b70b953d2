"""The client of the commands: API keys, rate limits, redirects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask, redirect, request
from werkzeug.wrappers import Response

import cutaway.remote as remote
from cutaway.remote import ProblemError, Remote
from service.__main__ import main
from service.app import create_app
from tests.conftest import Body, Servers
from tests.serving import served

KEY = "a-key-for-the-commands"


@pytest.fixture
def url(idle_servers: Servers) -> Iterator[Callable[..., str]]:
    """Start a service with these settings; return its URL."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(served(create_app(replace(idle_servers.settings, **changes))))


def test_the_key_is_sent(url: Callable[..., str]) -> None:
    assert Remote(url(api_keys=KEY), KEY).json("/v1/models")["models"]


@pytest.mark.parametrize("key", [None, "another-key-than-that"])
def test_a_missing_or_unknown_key_raises_the_problem(url: Callable[..., str], key: str | None) -> None:
    with pytest.raises(ProblemError, match=r"^/v1/models: (An API key is required|This API key is unknown): send "):
        Remote(url(api_keys=KEY), key).json("/v1/models")


@pytest.mark.parametrize(
    ("words", "variables"), [(["--api-key", KEY], {}), ([], {"CUTAWAY_API_KEY": KEY})], ids=["option", "variable"]
)
def test_a_batch_reads_the_key_from_an_option_or_the_environment(
    url: Callable[..., str], tmp_path: Path, words: list[str], variables: dict[str, str]
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"model": "nano-gpt", "text": "D"}\n')  # an invalid request, so that nothing is computed
    command = ["batch", str(file), "--out", str(tmp_path / "out"), "--url", url(api_keys=KEY)]
    authorized = CliRunner().invoke(main, [*command, *words], env=variables)
    assert "'D' is not allowed" in authorized.stderr
    assert "An API key is required" in CliRunner().invoke(main, command).stderr


def test_a_persistent_rate_limit_raises_the_problem(
    url: Callable[..., str], request_body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    client = Remote(url(rate_limit="1/hour"))
    client.json("/v1/layouts", b'{"model": "nano-gpt"}')
    with pytest.raises(ProblemError, match=r"^/v1/layouts: Each client may send at most 1 requests .* \(RATE_LIMIT\)"):
        client.json("/v1/layouts", b'{"model": "nano-gpt"}')


def test_the_key_is_not_sent_to_the_target_of_a_redirect(url: Callable[..., str]) -> None:
    received: list[str | None] = []
    target, redirecting = Flask("target"), Flask("redirecting")

    @target.get("/v1/models")
    def models() -> Body:
        received.append(request.headers.get("Authorization"))
        return {}

    with served(target) as other:

        @redirecting.get("/v1/models")
        def moved() -> Response:
            received.append(request.headers.get("Authorization"))
            return redirect(f"{other}/v1/models")

        with served(redirecting) as first:
            Remote(first, KEY).json("/v1/models")
    assert received == [f"Bearer {KEY}", None]
