"""What slow, silent and greedy clients take from the others: nothing."""

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
from tests.service.server.conftest import FEW, SECONDS, Api, heard, running_api

MANY = 60  # ten times as many as there are threads
POST = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
SLOW = {
    "say nothing": b"",
    "say a byte": b"G",
    "break off in the first line": b"GET /healthz HT",
    "break off in a header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b",
    "break off before the last line": b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
    "break off in a body": POST + b"Content-Length: 100\r\n\r\n{",
    "break off in a large body": POST + b"Content-Length: 1000000\r\n\r\n" + b" " * 100_000,
    "break off in a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "seem to be at the end of a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\n\r\n0\r\n\r\n",
    "ask to be asked for a body": POST + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
    "do not close": b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "speak HTTP/1.0 and do not close": b"GET /healthz HTTP/1.0\r\n\r\n",
    "are told of a mistake and do not close": b"NONSENSE\r\n\r\n",
    "stay": b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
}
WHOLE = {"do not close", "speak HTTP/1.0 and do not close", "are told of a mistake and do not close", "stay"}


@contextmanager
def clients(api: Api, text: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    """As many clients that say this, and then nothing."""
    with ExitStack() as stack:
        connected = [stack.enter_context(api.connect()) for _ in range(count)]
        for client in connected:
            client.sendall(text)
        yield connected


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_many_that_are_slow_do_not_stop_one_that_is_not(api: Api, text: bytes) -> None:
    with clients(api, text):
        for _ in range(3):
            assert api.ask("/v1/models/nano-gpt")[0] == 200
        assert (
            api.ask("/v1/traces", "POST", b'{"model": "nano-gpt", "text": "D"}', Content_Type="application/json")[0]
            == 422
        )


def test_who_comes_slowly_and_is_whole_in_the_end_is_answered(api: Api) -> None:
    body = b'{"model": "nano-gpt", "text": "D"}'
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with api.connect() as client:
        for byte in request:
            client.sendall(bytes([byte]))
        assert client.recv(12) == b"HTTP/1.1 422"


def test_many_that_wait_or_watch_do_not_stop_one_that_does_not(api: Api, long_request_body: dict[str, Any]) -> None:
    body = json.dumps(long_request_body).encode()
    trace = json.loads(api.ask("/v1/traces", "POST", body, Content_Type="application/json")[1])
    of_it = b"GET /v1/traces/%b%%b HTTP/1.1\r\nHost: a\r\n%%b\r\n" % trace["id"].encode()
    with (
        clients(api, of_it % (b"", b"Prefer: wait=60\r\n"), 20) as waiting,
        clients(api, of_it % (b"/events", b""), 20),
    ):
        assert api.ask("/v1/models/nano-gpt")[0] == 200
        api.ask(f"/v1/traces/{trace['id']}", "DELETE")
        answers = [client.recv(65536) for client in waiting]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert sum(b"Preference-Applied: wait=60" in answer for answer in answers) == FEW  # the others were told at once


def test_requests_that_are_sent_ahead_are_answered_in_their_order(api: Api) -> None:
    paths = ["/v1/models/nano-gpt", "/nowhere", "/healthz"] * 5
    told = api.tell(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths))
    assert re.findall(rb"HTTP/1\.1 (\d+)", told) == [b"200", b"404", b"200"] * 5


def test_a_body_that_is_large_and_comes_in_time_is_read(api: Api) -> None:
    body = b'{"model": "nano-gpt", "text": "D"' + b" " * 3_000_000 + b"}"
    status, told = api.ask("/v1/traces", "POST", body, Content_Type="application/json")
    assert (status, json.loads(told)["errors"].keys()) == (422, {"text"})
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:2_000_000], body[2_000_000:]))
    told = api.tell(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 422")


def test_a_body_that_breaks_off_is_400_and_not_a_shorter_body(api: Api) -> None:
    line = b'{"model": "nano-gpt", "text": "CBABBC"}\n'
    head = (
        b"POST /v1/batches HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
    )
    told = api.tell(head + line * 2000)
    assert told.startswith(b"HTTP/1.1 400")
    assert b"breaks off" in told


@pytest.fixture(scope="module")
def hasty(servers: Servers) -> Iterator[Api]:
    """An API with little patience: what it is does not change what happens when it ends."""
    times = "HEAD_SECONDS=0.5; c.IDLE_SECONDS=0.3; c.LINGER_SECONDS=0.3; c.GRACE_SECONDS=0.5; c._SENT=1<<12"
    with running_api(servers, f"import service.server.connections as c; c.{times}") as running:
        yield running


@pytest.mark.parametrize("said", SLOW)
def test_nobody_is_waited_for_without_end(hasty: Api, said: str) -> None:
    with hasty.connect() as client:
        client.sendall(SLOW[said])
        told = heard(client)  # which ends when the connection does
    if said != "say nothing":
        assert (b"HTTP/1.1 408" in told) == (said not in WHOLE)
    else:
        assert told == b""


def test_who_takes_an_answer_too_slowly_is_let_go_and_the_thread_is_free(hasty: Api) -> None:
    request = b"GET /v1/models/gpt2/tensors/wte.weight HTTP/1.1\r\nHost: a\r\nAccept: application/octet-stream\r\n\r\n"
    with clients(hasty, request, FEW * 3) as greedy:
        time.sleep(3 * (1 << 12) / PACE)
        assert hasty.ask()[0] == 200
        for client in greedy:
            assert len(heard(client)) < 154_389_504  # it broke off


def test_few_wait_for_large_bodies_and_the_others_are_told_so(api: Api) -> None:
    with clients(api, SLOW["break off in a large body"], 20) as slow:
        told = [client.recv(12) for client in slow]
    assert set(told) == {b"HTTP/1.1 408", b"HTTP/1.1 429"}
    assert told.count(b"HTTP/1.1 408") <= max(1, (3 * FEW + LIMIT) // READERS)


def test_as_many_connections_as_may_be_make_room_for_one_more(servers: Servers) -> None:
    with running_api(servers, "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))") as api:
        with clients(api, b"G", 300):
            assert api.ask()[0] == 200
        [serving] = api.process.children()
        assert serving.is_running()


def test_a_stop_waits_for_no_slow_client(servers: Servers) -> None:
    with running_api(servers) as api, clients(api, b"G", 10) as slow:
        assert api.ask()[0] == 200  # who came before it has come, too
        api.process.terminate()
        assert all(heard(client).startswith(b"HTTP/1.1 408") for client in slow)
        api.process.wait(SECONDS)
