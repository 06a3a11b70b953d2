"""Connections to Redis."""

from __future__ import annotations

import ssl

import pytest
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from worker.store.connection import connect


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://:secret@redis.example:6379/0", Connection),
        ("rediss://user:secret@redis.example:6380/1", SSLConnection),
        ("unix:///run/redis.sock?db=2", UnixDomainSocketConnection),
    ],
)
def test_url_scheme_selects_the_connection(url: str, kind: type[Connection]) -> None:
    assert isinstance(connect(url).connection_pool.make_connection(), kind)


def test_tls_checks_the_certificate_with_a_given_authority() -> None:
    url = "rediss://redis.example:6380/0?ssl_ca_certs=/etc/redis/ca.pem"
    made = connect(url).connection_pool.make_connection()
    assert isinstance(made, SSLConnection)
    assert (made.cert_reqs, made.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert made.ca_certs == "/etc/redis/ca.pem"


def test_url_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="redis://"):
        connect("https://redis.example")


def test_silent_connection_is_closed_within_a_minute() -> None:
    made = connect("redis://redis.example:6379/0").connection_pool.make_connection()
    assert isinstance(made, Connection)
    idle, interval, count = (made.socket_keepalive_options[option] for option in (4, 5, 6))  # Linux' TCP_KEEP…
    assert made.socket_keepalive
    assert idle + interval * count <= 45  # seconds, on an idle connection
    assert made.socket_timeout == 5  # seconds, while waiting for a reply
