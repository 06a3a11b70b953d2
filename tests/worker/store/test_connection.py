"""Connections to Redis on this machine or another."""

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
def test_the_url_says_how_it_is_reached(url: str, kind: type[Connection]) -> None:
    assert isinstance(connect(url).connection_pool.make_connection(), kind)


def test_over_tls_the_certificate_is_checked_and_may_be_of_an_authority_of_ones_own() -> None:
    url = "rediss://redis.example:6380/0?ssl_ca_certs=/etc/redis/ca.pem"
    made = connect(url).connection_pool.make_connection()
    assert isinstance(made, SSLConnection)
    assert (made.cert_reqs, made.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert made.ca_certs == "/etc/redis/ca.pem"


def test_what_is_no_redis_is_refused() -> None:
    with pytest.raises(ValueError, match="redis://"):
        connect("https://redis.example")


def test_a_silent_connection_is_given_up_within_a_minute() -> None:
    made = connect("redis://redis.example:6379/0").connection_pool.make_connection()
    assert isinstance(made, Connection)
    idle, interval, count = (made.socket_keepalive_options[option] for option in (4, 5, 6))  # Linux' TCP_KEEP…
    assert made.socket_keepalive
    assert idle + interval * count <= 45  # seconds: nothing is sent on it
    assert made.socket_timeout == 5  # seconds: an answer is awaited
