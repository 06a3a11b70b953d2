"""Where an archive may be in a test: a folder, or a bucket of an S3-compatible server in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

SECRET = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105 - of a server of our own, that asks for none
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTING", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}


@contextmanager
def running_bucket_server() -> Iterator[int]:
    """The port of a server that knows a bucket named `bucket`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                ask(port, "PUT", "bucket")
                break
            assert time.monotonic() < deadline, "the bucket's server did not start"
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


def ask(port: int, method: str, path: str) -> str:
    """What the server answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
        told: str = answer.read().decode()
        return told


class Relay:
    """A way to a server of this machine that counts what the server says, and can be closed."""

    def __init__(self, port: int) -> None:
        self.said = 0  # bytes
        self.to, self._server = port, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._ends: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """From now on nobody is here."""
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
                    self.said += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
