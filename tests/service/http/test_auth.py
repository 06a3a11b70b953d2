"""Who may ask, and how often: by key or by address, over all processes."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from urllib.request import Request, urlopen

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.http.auth import OPEN
from service.settings import Settings
from tests.conftest import Servers, free_port, running_api
from worker.store.connection import connect

ADA, BOB = "ada-has-this-key", "bob-has-this-one"
KEYS = f"ada:{ADA},bob:{BOB}"
LAYOUT = {"model": "nano-gpt"}
Client = Callable[..., FlaskClient]


@pytest.fixture
def served(servers: Servers) -> Client:
    """A client of a service with these settings."""
    return lambda **changes: create_app(replace(servers.settings, **changes)).test_client()


@pytest.fixture
def clean(servers: Servers) -> None:
    """Nobody has asked for anything yet."""
    queue = connect(servers.queue_url)
    for pattern in ("rate*", "unfinished:*"):
        for key in queue.scan_iter(pattern):
            queue.delete(key)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(client: FlaskClient, address: str = "192.0.2.1", **headers: str) -> TestResponse:
    return client.post("/v1/layouts", json=LAYOUT, headers=headers, environ_base={"REMOTE_ADDR": address})


# ---------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("headers", [bearer(ADA), {"Authorization": f"bearer {ADA}"}, {"X-API-Key": BOB}])
def test_a_key_lets_in(served: Client, headers: dict[str, str]) -> None:
    assert served(api_keys=KEYS).get("/v1/models", headers=headers).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("headers", "told", "challenge"),
    [
        ({}, "A key is needed here", "Bearer realm=cutaway"),
        ({"Authorization": f"Basic {ADA}"}, "A key is needed here", "Bearer realm=cutaway"),
        ({"X-API-Key": ""}, "A key is needed here", "Bearer realm=cutaway"),
        (bearer("another"), "This key is not known", "Bearer realm=cutaway, error=invalid_token"),
        (bearer(f"ada:{ADA}"), "This key is not known", "Bearer realm=cutaway, error=invalid_token"),
        ({"X-API-Key": ADA.upper()}, "This key is not known", "Bearer realm=cutaway, error=invalid_token"),
        (bearer("another") | {"X-API-Key": ADA}, "This key is not known", "Bearer realm=cutaway, error=invalid_token"),
    ],
)
def test_without_a_known_key_the_answer_says_how_to_give_one(
    served: Client, headers: dict[str, str], told: str, challenge: str
) -> None:
    answer = served(api_keys=KEYS).get("/v1/models", headers=headers)
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNAUTHORIZED, "application/problem+json")
    assert answer.get_json()["detail"] == f"{told}: Authorization: Bearer KEY and X-API-Key: KEY are read."
    assert answer.headers["WWW-Authenticate"].replace('"', "") == challenge


def rules(app: Flask) -> list[tuple[str, str, bool]]:
    """A method and a path of every rule, and whether it is of an open blueprint."""
    found = []
    for rule in app.url_map.iter_rules():
        path = str(rule)
        for name in rule.arguments:
            path = path.replace(f"<path:{name}>", "x").replace(f"<{name}>", "x")
        found += [(method, path, rule.endpoint.partition(".")[0] in OPEN) for method in rule.methods or ()]
    return found


def test_everything_but_health_descriptions_and_pages_needs_a_key(served: Client) -> None:
    client = served(api_keys=KEYS)
    statuses = {
        (method, path): client.open(path, method=method).status_code for method, path, _ in rules(client.application)
    }
    for method, path, is_open in rules(client.application):
        refused = statuses[method, path] == HTTPStatus.UNAUTHORIZED
        assert refused == (not is_open and method != "OPTIONS"), (method, path)
    paths = {path for (_, path), status in statuses.items() if status != HTTPStatus.UNAUTHORIZED}
    assert {"/healthz", "/readyz", "/openapi.yaml", "/docs"} <= paths
    assert statuses["GET", "/metrics"] == statuses["GET", "/v1/models"] == HTTPStatus.UNAUTHORIZED


def test_without_keys_everybody_is_let_in(served: Client) -> None:
    assert served().get("/v1/models", headers=bearer("whatever")).status_code == HTTPStatus.OK


def test_a_page_of_another_origin_may_ask_with_a_key(served: Client) -> None:
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    asked = headers | {"Access-Control-Request-Headers": "authorization, x-api-key"}
    answer = served(api_keys=KEYS).options("/v1/traces", headers=asked)
    assert answer.status_code == HTTPStatus.OK
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    refused = served(api_keys=KEYS).get("/v1/models", headers={"Origin": "https://a.example"})
    assert refused.headers["Access-Control-Allow-Origin"] == "*"


def test_what_needs_a_key_is_kept_by_no_cache_that_others_share(served: Client) -> None:
    path = "/v1/models/nano-gpt/tensors/wte.weight"
    assert "public" in served().get(path).headers["Cache-Control"]
    guarded = served(api_keys=KEYS).get(path, headers=bearer(ADA)).headers["Cache-Control"]
    assert "private" in guarded
    assert "public" not in guarded


def test_keys_are_in_no_log(served: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client = served(api_keys=KEYS, rate_limit="1/hour")
        for key in (ADA, "unknown-key-of-somebody"):
            client.post("/v1/layouts", json=LAYOUT, headers=bearer(key))
            client.get("/v1/models", headers={"X-API-Key": key})
    assert ADA not in caplog.text
    assert "unknown-key" not in caplog.text


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"API_KEYS": "short"}, "Error: API key 1 is not allowed: "),
        ({"API_KEYS_FILE": "/nowhere"}, "Error: API_KEYS_FILE='/nowhere' cannot be read."),
        ({"RATE_LIMIT": "often"}, "Error: RATE_LIMIT='often': one is like 600/minute"),
        ({"MAX_QUEUED": "many"}, "Error: MAX_QUEUED='many': a whole number is expected."),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_at_the_start(
    servers: Servers, variables: dict[str, str], said: str
) -> None:
    command = [sys.executable, "-m", "service", "api", "--port", "1"]
    ran = subprocess.run(command, env=servers.environment | variables, capture_output=True, text=True, check=False)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1)
    assert ran.stderr.startswith(said)


@pytest.mark.parametrize(
    ("keys", "said"),
    [("", "no API_KEYS are set: whoever comes is let in"), (KEYS, "2 keys let callers in")],
    ids=["open", "keys"],
)
def test_the_log_says_at_the_start_who_is_let_in(servers: Servers, keys: str, said: str) -> None:
    command = [sys.executable, "-m", "service", "api", "--port", str(free_port())]
    environment = servers.environment | {"API_KEYS": keys}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            assert any(line.rstrip().endswith(said) for line in iter(server.stderr.readline, ""))
        finally:
            server.terminate()


# --------------------------------------------------------------------------------------------------------- rates


@pytest.mark.usefixtures("clean")
def test_who_asks_too_often_is_told_when_to_ask_again_and_what_is_allowed(served: Client) -> None:
    client = served(rate_limit="3/minute")
    left = [ask(client).headers["RateLimit"].partition(";t=")[0] for _ in range(3)]
    assert left == ['"caller";r=2', '"caller";r=1', '"caller";r=0']
    refused = ask(client)
    assert (refused.status_code, refused.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert refused.get_json()["detail"] == (
        "At most 3 requests to compute something are allowed for each caller in 60 s (RATE_LIMIT)."
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Policy"] == '"caller";q=3;w=60'
    assert refused.headers["RateLimit"] == f'"caller";r=0;t={refused.headers["Retry-After"]}'


@pytest.mark.usefixtures("clean")
def test_who_comes_back_when_told_is_let_in(served: Client) -> None:
    client = served(rate_limit="2/2 second")
    while (refused := ask(client)).status_code != HTTPStatus.TOO_MANY_REQUESTS:
        pass
    time.sleep(int(refused.headers["Retry-After"]))
    assert ask(client).status_code < HTTPStatus.BAD_REQUEST


@pytest.mark.usefixtures("clean")
def test_reading_is_not_counted(served: Client) -> None:
    client = served(rate_limit="1/minute")
    id = ask(client).get_json()["id"]
    for _ in range(5):
        answer = client.get(f"/v1/layouts/{id}")
        assert answer.status_code == HTTPStatus.OK
        assert "RateLimit" not in answer.headers


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_addresses_are_counted_apart_and_a_network_of_ipv6_as_one(
    served: Client, first: str, second: str, same: bool
) -> None:
    client = served(rate_limit="1/minute")
    assert ask(client, first).status_code < HTTPStatus.BAD_REQUEST
    assert (ask(client, second).status_code == HTTPStatus.TOO_MANY_REQUESTS) == same


@pytest.mark.usefixtures("clean")
def test_keys_are_counted_by_their_names_wherever_they_come_from(served: Client) -> None:
    client = served(api_keys=KEYS, rate_limit="1/minute")
    assert ask(client, "192.0.2.1", **bearer(ADA)).status_code < HTTPStatus.BAD_REQUEST
    assert ask(client, "192.0.2.2", **bearer(ADA)).status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert ask(client, "192.0.2.1", **bearer(BOB)).status_code < HTTPStatus.BAD_REQUEST


@pytest.mark.usefixtures("clean")
def test_behind_proxies_the_address_is_what_the_trusted_ones_tell(served: Client) -> None:
    believed = served(rate_limit="1/minute", trusted_proxies=1)
    assert ask(believed, **{"X-Forwarded-For": "203.0.113.1"}).status_code < HTTPStatus.BAD_REQUEST
    assert ask(believed, **{"X-Forwarded-For": "203.0.113.2"}).status_code < HTTPStatus.BAD_REQUEST
    forged = ask(believed, **{"X-Forwarded-For": "198.51.100.7, 203.0.113.1"})
    assert forged.status_code == HTTPStatus.TOO_MANY_REQUESTS
    alone = served(rate_limit="1/minute")
    assert ask(alone, **{"X-Forwarded-For": "203.0.113.8"}).status_code < HTTPStatus.BAD_REQUEST
    assert ask(alone, **{"X-Forwarded-For": "203.0.113.9"}).status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_while_redis_is_away_asking_is_an_honest_503(servers: Servers) -> None:
    settings = Settings(queue_url="redis://127.0.0.1:1/0", cache_url=servers.cache_url, rate_limit="9/minute")
    answer = ask(create_app(settings).test_client())
    assert (answer.status_code, answer.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "2")


def post(url: str, body: bytes) -> int:
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own address
    try:
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_several_processes_and_servers_count_together(idle_servers: Servers) -> None:
    with (
        running_api(idle_servers, 2, RATE_LIMIT="20/minute") as one,
        running_api(idle_servers, 1, RATE_LIMIT="20/minute") as other,
        ThreadPoolExecutor(8) as threads,
    ):
        statuses = Counter(
            threads.map(lambda n: post(f"{(one, other)[n % 2]}/v1/layouts", b'{"model": "gpt2"}'), range(50))
        )
    assert statuses == {202: 20, 429: 30}
