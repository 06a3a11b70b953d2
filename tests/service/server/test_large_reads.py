"""Many large reads at once: the API answers, and its memory stays."""

from __future__ import annotations

import json
import socket
import time

from tests.service.server.conftest import SECONDS, Api

CLIENTS = 80
LISTED = "/v1/models/n_layer={},n_head=1,n_embd=4/tensors"
GROWTH = 150_000_000  # bytes; one list is 10 MB, and 80 of them were 2 GB as objects


def resident(api: Api) -> int:
    return sum(process.memory_info().rss for process in api.process.children())


def ask_for_list(api: Api, n_layer: int) -> socket.socket:
    """Send a request, and read nothing yet."""
    client = api.connect()
    client.sendall(f"GET {LISTED.format(n_layer)} HTTP/1.1\r\nHost: cutaway\r\n\r\n".encode())
    return client


def test_the_api_answers_while_many_large_lists_are_read_and_abandoned(api: Api) -> None:
    before = resident(api)
    clients = [ask_for_list(api, 9_900 + n) for n in range(CLIENTS)]
    for path in ("/healthz", "/v1/models/nano-gpt/tensors"):
        assert api.request(path)[0] == 200
    statuses = [client.recv(12) for client in clients]
    assert set(statuses) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
    assert resident(api) - before < GROWTH
    for client in clients:
        client.close()
    deadline = time.monotonic() + SECONDS
    while (answer := api.request(LISTED.format(9_800)))[0] != 200:  # until the abandoned ones have ended
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(json.loads(answer[1])["tensors"]) > 9_800 * 12
    assert resident(api) - before < GROWTH
