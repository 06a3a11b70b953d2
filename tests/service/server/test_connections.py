"""Slow, silent and greedy clients do not block other clients."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from service.http.large_reads import LIMIT
from service.server.connections import PACE, READERS
from tests.conftest import Servers
from tests.service.server.conftest import FEW, SECONDS, Api, read_all, running_api

MANY = 60  # ten times the number of threads
POST = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
SLOW = {
    "send nothing": b"",
    "send one byte": b"G",
    "stop in the request line": b"GET /healthz HT",
    "stop in a header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b",
    "stop before the blank line": b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
    "stop in a body": POST + b"Content-Length: 100\r\n\r\n{",
    "stop in a large body": POST + b"Content-Length: 1000000\r\n\r\n" + b" " * 100_000,
    "stop in a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "stop at what looks like the last chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\n\r\n0\r\n\r\n",
    "expect 100-continue": POST + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
    "keep a closed connection open": b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "keep an HTTP/1.0 connection open": b"GET /healthz HTTP/1.0\r\n\r\n",
    "keep a refused connection open": b"NONSENSE\r\n\r\n",
    "stay idle": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
}
WHOLE = {
    "keep a closed connection open",
    "keep an HTTP/1.0 connection open",
    "keep a refused connection open",
    "stay idle",
}


@contextmanager
def clients(api: Api, text: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    """Open `count` connections that send these bytes and then nothing."""
    with ExitStack() as stack:
        connected = [stack.enter_context(api.connect()) for _ in range(count)]
        for client in connected:
            client.sendall(text)
        yield connected


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_slow_clients_do_not_block_another_one(api: Api, text: bytes) -> None:
    with clients(api, text):
        for _ in range(3):
            assert api.request("/v1/models/nano-gpt")[0] == 200
        assert (
            api.request("/v1/traces", "POST", b'{"model": "nano-gpt", "text": "D"}', Content_Type="application/json")[0]
            == 422
        )


def test_a_request_sent_byte_by_byte_gets_a_response(api: Api) -> None:
    body = b'{"model": "nano-gpt", "text": "D"}'
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with api.connect() as client:
        for byte in request:
            client.sendall(bytes([byte]))
        assert client.recv(12) == b"HTTP/1.1 422"


def test_waiting_clients_and_streams_do_not_block_another_client(api: Api, long_request_body: dict[str, Any]) -> None:
    body = json.dumps(long_request_body).encode()
    trace = json.loads(api.request("/v1/traces", "POST", body, Content_Type="application/json")[1])
    of_it = b"GET /v1/traces/%b%%b HTTP/1.1\r\nHost: a\r\n%%b\r\n" % trace["id"].encode()
    with (
        clients(api, of_it % (b"", b"Prefer: wait=60\r\n"), 20) as waiting,
        clients(api, of_it % (b"/events", b""), 20),
    ):
        assert api.request("/v1/models/nano-gpt")[0] == 200
        api.request(f"/v1/traces/{trace['id']}", "DELETE")
        responses = [client.recv(65536) for client in waiting]
    assert all(response.startswith(b"HTTP/1.1 200") for response in responses)
    assert (
        sum(b"Preference-Applied: wait=60" in response for response in responses) == FEW
    )  # the others got a response at once


def test_pipelined_requests_get_their_responses_in_order(api: Api) -> None:
    paths = ["/v1/models/nano-gpt", "/nowhere", "/healthz"] * 5
    received = api.send(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"404", b"200"] * 5


def test_a_large_body_that_arrives_in_time_is_read(api: Api) -> None:
    body = b'{"model": "nano-gpt", "text": "D"' + b" " * 3_000_000 + b"}"
    status, received = api.request("/v1/traces", "POST", body, Content_Type="application/json")
    assert (status, json.loads(received)["errors"].keys()) == (422, {"text"})
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:2_000_000], body[2_000_000:]))
    received = api.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 422")


def test_an_incomplete_body_is_400_and_not_a_shorter_body(api: Api) -> None:
    line = b'{"model": "nano-gpt", "text": "CBABBC"}\n'
    head = (
        b"POST /v1/batches HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
    )
    received = api.send(head + line * 2000)
    assert received.startswith(b"HTTP/1.1 400")
    assert b"breaks off" in received


@pytest.fixture(scope="module")
def hasty(servers: Servers) -> Iterator[Api]:
    """An API with short timeouts."""
    times = "HEAD_SECONDS=0.5; c.IDLE_SECONDS=0.3; c.LINGER_SECONDS=0.3; c.GRACE_SECONDS=0.5; c._SENT=1<<12"
    with running_api(servers, f"import service.server.connections as c; c.{times}") as running:
        yield running


@pytest.mark.parametrize("case", SLOW)
def test_every_slow_client_is_disconnected(hasty: Api, case: str) -> None:
    with hasty.connect() as client:
        client.sendall(SLOW[case])
        received = read_all(client)  # until the server closes the connection
    if case != "send nothing":
        assert (b"HTTP/1.1 408" in received) == (case not in WHOLE)
    else:
        assert received == b""


def test_a_client_that_reads_too_slowly_is_disconnected_and_its_thread_is_free(hasty: Api) -> None:
    request = b"GET /v1/models/gpt2/tensors/wte.weight HTTP/1.1\r\nHost: a\r\nAccept: application/octet-stream\r\n\r\n"
    with clients(hasty, request, FEW * 3) as greedy:
        time.sleep(3 * (1 << 12) / PACE)
        assert hasty.request()[0] == 200
        for client in greedy:
            assert len(read_all(client)) < 154_389_504  # incomplete


def test_few_threads_wait_for_large_bodies_and_other_clients_get_429(api: Api) -> None:
    with clients(api, SLOW["stop in a large body"], 20) as slow:
        received = [client.recv(12) for client in slow]
    assert set(received) == {b"HTTP/1.1 408", b"HTTP/1.1 429"}
    assert received.count(b"HTTP/1.1 408") <= max(1, (3 * FEW + LIMIT) // READERS)


def test_at_the_maximum_of_connections_the_oldest_makes_room(servers: Servers) -> None:
    with running_api(servers, "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))") as api:
        with clients(api, b"G", 300):
            assert api.request()[0] == 200
        [serving] = api.process.children()
        assert serving.is_running()


def test_a_stop_does_not_wait_for_slow_clients(servers: Servers) -> None:
    with running_api(servers) as api, clients(api, b"G", 10) as slow:
        assert api.request()[0] == 200  # the earlier connections are accepted, too
        api.process.terminate()
        assert all(read_all(client).startswith(b"HTTP/1.1 408") for client in slow)
        api.process.wait(SECONDS)
