"""Invalid HTTP gets a 4xx problem or no response, and the server goes on."""

from __future__ import annotations

import json
import re
from http import HTTPStatus

import pytest
from gunicorn.http.errors import LimitRequestHeaders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.http.security_headers import ALL_RESPONSES
from service.server.refusals import refusal
from tests.service.server.conftest import Api

HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"model": "nano-gpt", "text": "D"}'
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def get(target: bytes, *fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"GET " + target + b" " + version, b"Host: a", *fields, b"", b""])


BROKEN = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "an empty first line": (b"\r\n\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "an invalid version": (get(b"/", version=b"HTTP/9.x"), 400),
    "a later version": (get(b"/", version=b"HTTP/3.0"), 400),
    "a lower-case method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no target": (b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two spaces": (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "lines without CR": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "a null byte in the target": (get(b"/\0"), 400),
    "a null byte in a field": (get(b"/", b"X: \0"), 400),
    "a bare CR in a field": (get(b"/", b"X: a\rSet-Cookie: b"), 400),
    "a field without a colon": (get(b"/", b"X"), 400),
    "a field with a space in its name": (get(b"/", b"X : y"), 400),
    "a field over two lines": (get(b"/", b"X: a\r\n b"), 400),
    "two hosts": (get(b"/", b"Host: b"), 400),
    "a long target": (get(b"/" + b"a" * 9000), 414),
    "a long field": (get(b"/", b"X: " + b"a" * 9000), 431),
    "a field of two megabytes": (get(b"/", b"X: " + b"a" * 2_000_000), 431),
    "many fields": (get(b"/", *[b"X: y"] * 101), 431),
    "a length that is not a number": (HEAD + b"Content-Length: ten\r\n\r\n" + BODY, 400),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n" + BODY, 400),
    "a length with a sign": (HEAD + b"Content-Length: +34\r\n\r\n" + BODY, 400),
    "a length in other digits": (HEAD + b"Content-Length: \xb2\r\n\r\n" + BODY, 400),
    "a length of 5,000 digits": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + BODY, 400),
    "a length beyond 2^63": (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY, 413),
    "two lengths": (HEAD + b"Content-Length: 34\r\nContent-Length: 3\r\n\r\n" + BODY, 400),
    "a list of lengths": (HEAD + b"Content-Length: 34, 34\r\n\r\n" + BODY, 400),
    "a length and chunks": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunks and a length": (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunks twice": (HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunked before the last coding": (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "an unknown coding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "a coding with a tab": (HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "a chunk whose size is not a number": (CHUNKED + b"zz\r\nab\r\n0\r\n\r\n", 400),
    "a chunk with a negative size": (CHUNKED + b"-1\r\nab\r\n0\r\n\r\n", 400),
    "a chunk size with 0x": (CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", 400),
    "a chunk with a longer content": (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk with a bad extension": (CHUNKED + b"2;\n\r\nab\r\n0\r\n\r\n", 400),
    "a chunk that is beyond 2^63": (CHUNKED + b"fffffffffffffffff\r\nab\r\n0\r\n\r\n", 400),
    "chunks without an end": (CHUNKED + b"2\r\n{}\r\n\r\n", 400),
    "an invalid trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nnonsense\r\n\r\n", 400),
    "an expectation": (get(b"/", b"Expect: the impossible"), 417),
    "a SCRIPT_NAME field": (get(b"/healthz", b"SCRIPT_NAME: /elsewhere"), 200),
    "an absolute target": (get(b"http://elsewhere/healthz"), 200),
    "an absolute target of another kind": (get(b"file:///etc/passwd"), 404),
    "a bad escape": (get(b"/v1/models/%zz%"), 404),
    "an escape that is no UTF-8": (get(b"/v1/models/%ff%fe"), 404),
    "an escaped null byte": (get(b"/v1/models/%00"), 404),
    "a path out of the folder": (get(b"/docs/files/../../../../etc/passwd"), 404),
    "an escaped path out of the folder": (get(b"/docs/files/%2e%2e%2f%2e%2e%2fetc/passwd"), 404),
    "a path out of the models": (get(b"/v1/models/..%2f..%2fetc/tensors/passwd"), 404),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "CONNECT": (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "an upgrade to HTTP/2": (get(b"/healthz", b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"), 200),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
}


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


@pytest.mark.parametrize(("text", "status"), BROKEN.values(), ids=BROKEN)
def test_invalid_http_gets_one_problem_and_what_follows_is_not_a_request(api: Api, text: bytes, status: int) -> None:
    received = api.send(text)
    assert statuses(received) == [status]
    head, _, content = received.partition(b"\r\n\r\n")
    assert b"\r\nX-Content-Type-Options: nosniff" in head
    assert not re.search(rb"\r\nServer:[^\r]*\d", head)  # no version
    if status >= 400:
        assert b"\r\nContent-Type: application/problem+json" in head
        problem = json.loads(content)
        assert (problem["status"], problem["title"]) == (status, HTTPStatus(status).phrase)
        assert 0 < len(problem["detail"]) < 20_000
    assert api.request()[0] == 200


def test_problems_state_the_limit(api: Api) -> None:
    for name, expected in (
        ("a long target", "longer than 8,190 bytes"),
        ("many fields", "At most 100 header fields of 8,190 bytes"),
        ("a length beyond 2^63", "must have at most 8,388,608 bytes"),
        ("an expectation", "Only 100-continue"),
    ):
        assert expected in json.loads(api.send(BROKEN[name][0]).partition(b"\r\n\r\n")[2])["detail"]


def test_an_internal_error_reveals_nothing() -> None:
    status, response = refusal(ZeroDivisionError("a secret"))
    assert status == 500
    assert b"secret" not in response


def test_a_refusal_has_the_headers_of_all_responses() -> None:
    _, response = refusal(LimitRequestHeaders("limit request headers fields"))
    head = response.partition(b"\r\n\r\n")[0].decode()
    assert head.startswith("HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert all(f"\r\n{name}: {value}" in head for name, value in ALL_RESPONSES.items())


PIECES = [
    *(b"GET POST / HTTP/1.1 HTTP/1.0 Host: a Content-Length: Transfer-Encoding: chunked Expect: 100-continue".split()),
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(b"/v1/traces", b"/healthz", b"/v1/models/%", b"?", b"#", b"%2f", b"%", b"Content-Type: application/json\r\n"),
    *(b"GET /healthz HTTP/1.1\r\nHost: a\r\n", BODY, HEAD, CHUNKED, b"9" * 30, b"\xff\xfe", b"{", b"}"),
]


@settings(max_examples=250, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=25).map(b"".join))
def test_no_bytes_cause_a_5xx(api: Api, text: bytes) -> None:
    assert all(status < 500 for status in statuses(api.send(text)))


@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    request=st.sampled_from([get(b"/v1/models/nano-gpt"), HEAD + b"Content-Length: 34\r\n\r\n" + BODY]),
    place=st.floats(0, 1, exclude_max=True),
    cut=st.integers(0, 3),
    put=st.binary(max_size=3),
)
def test_no_changed_request_causes_a_5xx(api: Api, request: bytes, place: float, cut: int, put: bytes) -> None:
    at = int(place * len(request))
    assert all(status < 500 for status in statuses(api.send(request[:at] + put + request[at + cut :])))


def test_no_server_process_was_replaced(api: Api) -> None:
    [serving] = api.process.children()
    for text, _ in BROKEN.values():
        api.send(text)
    assert [process.pid for process in api.process.children()] == [serving.pid]
