"""Requests must name this machine or an allowed host: no page passes for the API by DNS rebinding."""

from __future__ import annotations

import socket
from http import HTTPStatus
from http.client import HTTPConnection
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import Servers, running_api

OWN = ["localhost", "localhost:8000", "LOCALHOST", "localhost.", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000"]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil",
    "[::1].evil",
]


def status(settings: Settings, host: str, path: str = "/v1/models") -> int:
    return create_app(settings).test_client().get(path, headers={"Host": host}).status_code


@pytest.mark.parametrize("host", [*OWN, socket.gethostname()])
@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
def test_an_api_on_loopback_accepts_the_names_of_this_machine(bound: str, host: str) -> None:
    assert status(Settings(host=bound), host) == HTTPStatus.OK


@pytest.mark.parametrize("host", [*FOREIGN, "192.0.2.1", "", ":8000", "a" * 3000])
def test_it_answers_421_to_any_other_host_and_says_what_is_allowed(host: str) -> None:
    client = create_app(Settings()).test_client()
    for path in ("/v1/models", "/", "/docs", "/openapi.yaml", "/metrics", "/nowhere"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == HTTPStatus.MISDIRECTED_REQUEST
        assert response.mimetype == "application/problem+json"
        assert response.get_json()["title"] == "Misdirected Request"
        for word in ("localhost", "127.0.0.1", "ALLOWED_HOSTS"):
            assert word in response.get_json()["detail"]


def test_no_method_of_a_foreign_host_is_accepted() -> None:
    client = create_app(Settings()).test_client()
    for method in ("POST", "DELETE", "OPTIONS", "HEAD"):
        response = client.open("/v1/traces", method=method, headers={"Host": "evil.example"})
        assert response.status_code == HTTPStatus.MISDIRECTED_REQUEST


def test_the_problem_does_not_tell_the_name_of_this_machine() -> None:
    response = create_app(Settings()).test_client().get("/", headers={"Host": "evil.example"})
    assert f"{socket.gethostname()}," not in response.get_json()["detail"]


@pytest.mark.parametrize("host", ["site.example", "SITE.example:8443", "[2001:db8::1]:80", "localhost"])
def test_allowed_hosts_are_accepted_too(host: str) -> None:
    assert status(Settings(allowed_hosts="Site.example, [2001:db8::1]"), host) == HTTPStatus.OK


def test_a_star_allows_every_host() -> None:
    assert status(Settings(allowed_hosts="*"), "evil.example") == HTTPStatus.OK


@pytest.mark.parametrize("bound", [str(IPv4Address(0)), "::", "", "192.0.2.1", "nowhere.invalid"])
def test_an_api_on_another_address_accepts_every_host_unless_some_are_allowed(bound: str) -> None:
    assert status(Settings(host=bound), "site.example") == HTTPStatus.OK
    settings = Settings(host=bound, allowed_hosts="site.example")
    assert [status(settings, host) for host in ("site.example", "10.1.2.3:80", "localhost")] == [HTTPStatus.OK] * 3
    assert status(settings, "evil.example") == HTTPStatus.MISDIRECTED_REQUEST


def test_health_checks_may_name_any_host() -> None:
    assert status(Settings(), "10.1.2.3", "/healthz") == HTTPStatus.OK


@pytest.mark.parametrize("text", ["https://site.example", "site.example:8000", "site.example/", "a b"])
def test_a_setting_that_is_no_host_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="ALLOWED_HOSTS must be names or addresses"):
        Settings(allowed_hosts=text)


def test_the_server_checks_the_host(servers: Servers) -> None:
    with running_api(servers, 1, ALLOWED_HOSTS="") as url:
        found = {}
        for host in ("evil.example", "localhost"):
            connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
            connection.request("GET", "/v1/models", headers={"Host": host})
            found[host] = connection.getresponse().status
            connection.close()
    assert found == {"evil.example": HTTPStatus.MISDIRECTED_REQUEST, "localhost": HTTPStatus.OK}
