"""An S3-compatible server, and a relay to it, for tests of archives."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

SECRET = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105 - of a test server that accepts any
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTING", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}


@contextmanager
def running_bucket_server() -> Iterator[int]:
    """Run a server with a bucket named `bucket`; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                request(port, "PUT", "bucket")
                break
            assert time.monotonic() < deadline, "the bucket's server did not start"
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


def request(port: int, method: str, path: str) -> str:
    """Send a request to the server; return the response's text."""
    url = f"http://127.0.0.1:{port}/{path}"
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as response:
        text: str = response.read().decode()
        return text


class Relay:
    """A TCP relay to a local server that counts the bytes the server sends, and can be closed."""

    def __init__(self, port: int) -> None:
        self.sent = 0  # bytes, by the server
        self.to, self._server = port, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._ends: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close all connections, and refuse new ones."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for end in [self._server, *self._ends]:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                self._ends += [near, far]
                Thread(target=self._pass_on, args=(near, far), daemon=True).start()
                Thread(target=self._pass_on, args=(far, near), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if target in self._ends[::2]:
                    self.sent += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
