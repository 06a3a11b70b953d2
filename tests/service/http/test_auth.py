"""Authentication by API keys, and the rate limit of clients over all processes."""

from __future__ import annotations

import itertools
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
from service.http.auth import PUBLIC
from service.settings import Settings
from tests.conftest import Servers, free_port, running_api
from worker.store.connection import connect

ADA, BOB = "ada-has-this-key", "bob-has-this-one"
KEYS = f"ada:{ADA},bob:{BOB}"
UNKNOWN = "This API key is unknown"
LAYOUT = {"model": "nano-gpt"}
ClientFactory = Callable[..., FlaskClient]


@pytest.fixture
def client_with(servers: Servers) -> ClientFactory:
    """Return a test client of an app with these settings."""
    return lambda **changes: create_app(replace(servers.settings, **changes)).test_client()


@pytest.fixture
def no_requests(servers: Servers) -> None:
    """Delete the counts of earlier requests."""
    queue = connect(servers.queue_url)
    for pattern in ("rate*", "unfinished:*"):
        for key in queue.scan_iter(pattern):
            queue.delete(key)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def post_layout(client: FlaskClient, address: str = "192.0.2.1", **headers: str) -> TestResponse:
    return client.post("/v1/layouts", json=LAYOUT, headers=headers, environ_base={"REMOTE_ADDR": address})


# ---------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("headers", [bearer(ADA), {"Authorization": f"bearer {ADA}"}, {"X-API-Key": BOB}])
def test_a_valid_key_is_accepted(client_with: ClientFactory, headers: dict[str, str]) -> None:
    assert client_with(api_keys=KEYS).get("/v1/models", headers=headers).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("headers", "message", "challenge"),
    [
        ({}, "An API key is required", "Bearer realm=cutaway"),
        ({"Authorization": f"Basic {ADA}"}, "An API key is required", "Bearer realm=cutaway"),
        ({"X-API-Key": ""}, "An API key is required", "Bearer realm=cutaway"),
        (bearer("another"), UNKNOWN, "Bearer realm=cutaway, error=invalid_token"),
        (bearer(f"ada:{ADA}"), UNKNOWN, "Bearer realm=cutaway, error=invalid_token"),
        ({"X-API-Key": ADA.upper()}, UNKNOWN, "Bearer realm=cutaway, error=invalid_token"),
        (
            bearer("another") | {"X-API-Key": ADA},
            UNKNOWN,
            "Bearer realm=cutaway, error=invalid_token",
        ),
    ],
)
def test_without_a_valid_key_it_is_401_with_the_ways_to_send_one(
    client_with: ClientFactory, headers: dict[str, str], message: str, challenge: str
) -> None:
    response = client_with(api_keys=KEYS).get("/v1/models", headers=headers)
    assert (response.status_code, response.content_type) == (HTTPStatus.UNAUTHORIZED, "application/problem+json")
    assert response.get_json()["detail"] == f"{message}: send Authorization: Bearer KEY or X-API-Key: KEY."
    assert response.headers["WWW-Authenticate"].replace('"', "") == challenge


def rules(app: Flask) -> list[tuple[str, str, bool]]:
    """Return the methods and an example path of every rule, and whether its blueprint is public."""
    found = []
    for rule in app.url_map.iter_rules():
        path = str(rule)
        for name in rule.arguments:
            path = path.replace(f"<path:{name}>", "x").replace(f"<{name}>", "x")
        found += [(method, path, rule.endpoint.partition(".")[0] in PUBLIC) for method in rule.methods or ()]
    return found


def test_only_health_descriptions_and_pages_need_no_key(client_with: ClientFactory) -> None:
    client = client_with(api_keys=KEYS)
    statuses = {
        (method, path): client.open(path, method=method).status_code for method, path, _ in rules(client.application)
    }
    for method, path, is_public in rules(client.application):
        refused = statuses[method, path] == HTTPStatus.UNAUTHORIZED
        assert refused == (not is_public and method != "OPTIONS"), (method, path)
    paths = {path for (_, path), status in statuses.items() if status != HTTPStatus.UNAUTHORIZED}
    assert {"/healthz", "/readyz", "/openapi.yaml", "/docs"} <= paths
    assert statuses["GET", "/metrics"] == statuses["GET", "/v1/models"] == HTTPStatus.UNAUTHORIZED


def test_without_keys_every_client_is_accepted(client_with: ClientFactory) -> None:
    assert client_with().get("/v1/models", headers=bearer("whatever")).status_code == HTTPStatus.OK


def test_pages_of_listed_origins_may_send_a_key(client_with: ClientFactory) -> None:
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    preflight = headers | {"Access-Control-Request-Headers": "authorization, x-api-key"}
    listed = client_with(api_keys=KEYS, cors_origins="https://a.example")
    response = listed.options("/v1/traces", headers=preflight)
    assert response.status_code == HTTPStatus.OK
    assert "authorization" in response.headers["Access-Control-Allow-Headers"].lower()
    refused = listed.get("/v1/models", headers={"Origin": "https://a.example"})
    assert refused.headers["Access-Control-Allow-Origin"] == "https://a.example"


def test_shared_caches_must_not_store_responses_that_need_a_key(client_with: ClientFactory) -> None:
    path = "/v1/models/nano-gpt/tensors/wte.weight"
    assert "public" in client_with().get(path).headers["Cache-Control"]
    with_key = client_with(api_keys=KEYS).get(path, headers=bearer(ADA)).headers["Cache-Control"]
    assert "private" in with_key
    assert "public" not in with_key


def test_logs_contain_no_keys(client_with: ClientFactory, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client = client_with(api_keys=KEYS, rate_limit="1/hour")
        for key in (ADA, "unknown-key-of-a-client"):
            client.post("/v1/layouts", json=LAYOUT, headers=bearer(key))
            client.get("/v1/models", headers={"X-API-Key": key})
    assert ADA not in caplog.text
    assert "unknown-key" not in caplog.text


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"API_KEYS": "short"}, "Error: API key 1 is invalid: "),
        ({"API_KEYS_FILE": "/nowhere"}, "Error: API_KEYS_FILE='/nowhere' cannot be read."),
        ({"RATE_LIMIT": "often"}, "Error: RATE_LIMIT='often' is invalid: use, for example, 600/minute"),
        ({"MAX_QUEUED": "many"}, "Error: MAX_QUEUED must be a non-negative integer, not 'many'."),
    ],
)
def test_an_invalid_setting_is_one_error_line_at_startup(
    servers: Servers, variables: dict[str, str], message: str
) -> None:
    command = [sys.executable, "-m", "service", "api", "--port", "1"]
    ran = subprocess.run(command, env=servers.environment | variables, capture_output=True, text=True, check=False)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1)
    assert ran.stderr.startswith(message)


@pytest.mark.parametrize(
    ("keys", "message"),
    [("", "no API_KEYS are set: no key is needed"), (KEYS, "2 API keys are accepted")],
    ids=["open", "keys"],
)
def test_the_log_reports_at_startup_whether_keys_are_required(servers: Servers, keys: str, message: str) -> None:
    command = [sys.executable, "-m", "service", "api", "--port", str(free_port())]
    environment = servers.environment | {"API_KEYS": keys}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            lines = list(itertools.takewhile(lambda line: "Booting worker" not in line, server.stderr))
            assert any(line.rstrip().endswith(message) for line in lines)
        finally:
            server.terminate()


# --------------------------------------------------------------------------------------------------------- rates


@pytest.mark.usefixtures("no_requests")
def test_above_the_limit_it_is_429_with_the_limit_and_when_to_retry(client_with: ClientFactory) -> None:
    client = client_with(rate_limit="3/minute")
    remaining = [post_layout(client).headers["RateLimit"].partition(";t=")[0] for _ in range(3)]
    assert remaining == ['"caller";r=2', '"caller";r=1', '"caller";r=0']
    refused = post_layout(client)
    assert (refused.status_code, refused.content_type) == (HTTPStatus.TOO_MANY_REQUESTS, "application/problem+json")
    assert refused.get_json()["detail"] == (
        "Each client may send at most 3 requests for computation in 60 s (RATE_LIMIT)."
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Policy"] == '"caller";q=3;w=60'
    assert refused.headers["RateLimit"] == f'"caller";r=0;t={refused.headers["Retry-After"]}'


@pytest.mark.usefixtures("no_requests")
def test_a_client_that_waits_for_retry_after_is_accepted(client_with: ClientFactory) -> None:
    client = client_with(rate_limit="2/2 second")
    while (refused := post_layout(client)).status_code != HTTPStatus.TOO_MANY_REQUESTS:
        pass
    time.sleep(int(refused.headers["Retry-After"]))
    assert post_layout(client).status_code < HTTPStatus.BAD_REQUEST


@pytest.mark.usefixtures("no_requests")
def test_reading_a_result_is_not_counted(client_with: ClientFactory) -> None:
    client = client_with(rate_limit="1/minute")
    id = post_layout(client).get_json()["id"]
    for _ in range(5):
        response = client.get(f"/v1/layouts/{id}")
        assert response.status_code == HTTPStatus.OK
        assert "RateLimit" not in response.headers


@pytest.mark.usefixtures("no_requests")
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_addresses_are_counted_separately_and_an_ipv6_network_as_one(
    client_with: ClientFactory, first: str, second: str, same: bool
) -> None:
    client = client_with(rate_limit="1/minute")
    assert post_layout(client, first).status_code < HTTPStatus.BAD_REQUEST
    assert (post_layout(client, second).status_code == HTTPStatus.TOO_MANY_REQUESTS) == same


@pytest.mark.usefixtures("no_requests")
def test_keys_are_counted_by_name_and_not_by_address(client_with: ClientFactory) -> None:
    client = client_with(api_keys=KEYS, rate_limit="1/minute")
    assert post_layout(client, "192.0.2.1", **bearer(ADA)).status_code < HTTPStatus.BAD_REQUEST
    assert post_layout(client, "192.0.2.2", **bearer(ADA)).status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert post_layout(client, "192.0.2.1", **bearer(BOB)).status_code < HTTPStatus.BAD_REQUEST


@pytest.mark.usefixtures("no_requests")
def test_the_address_is_the_one_that_trusted_proxies_report(client_with: ClientFactory) -> None:
    behind_proxy = client_with(rate_limit="1/minute", trusted_proxies=1)
    assert post_layout(behind_proxy, **{"X-Forwarded-For": "203.0.113.1"}).status_code < HTTPStatus.BAD_REQUEST
    assert post_layout(behind_proxy, **{"X-Forwarded-For": "203.0.113.2"}).status_code < HTTPStatus.BAD_REQUEST
    forged = post_layout(behind_proxy, **{"X-Forwarded-For": "198.51.100.7, 203.0.113.1"})
    assert forged.status_code == HTTPStatus.TOO_MANY_REQUESTS
    without_proxy = client_with(rate_limit="1/minute")
    assert post_layout(without_proxy, **{"X-Forwarded-For": "203.0.113.8"}).status_code < HTTPStatus.BAD_REQUEST
    assert post_layout(without_proxy, **{"X-Forwarded-For": "203.0.113.9"}).status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_without_redis_the_rate_limit_is_503(servers: Servers) -> None:
    settings = Settings(queue_url="redis://127.0.0.1:1/0", cache_url=servers.cache_url, rate_limit="9/minute")
    response = post_layout(create_app(settings).test_client())
    assert (response.status_code, response.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "2")


def post(url: str, body: bytes) -> int:
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - a local server
    try:
        with urlopen(request, timeout=30) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_processes_and_servers_share_one_count(idle_servers: Servers) -> None:
    with (
        running_api(idle_servers, 2, RATE_LIMIT="20/minute") as one,
        running_api(idle_servers, 1, RATE_LIMIT="20/minute") as other,
        ThreadPoolExecutor(8) as threads,
    ):
        statuses = Counter(
            threads.map(lambda n: post(f"{(one, other)[n % 2]}/v1/layouts", b'{"model": "gpt2"}'), range(50))
        )
    assert statuses == {202: 20, 429: 30}
