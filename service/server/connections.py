"""gunicorn's thread worker, hardened: slow, silent and broken connections block no threads.

gunicorn's threads read a request themselves, however slowly it comes, and its event loop waits for each client to
close. Here the loop gathers requests without blocking, and a thread takes one when it is complete. The rest of a large
body is read by a thread, but by few threads at a time and at a minimum pace. A client that is too slow gets an error
and is disconnected.
"""

from __future__ import annotations

import errno
import re
import resource
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.http.body import Body
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker
from werkzeug.exceptions import BadRequest, HTTPException, RequestTimeout, TooManyRequests

from service.server.refusals import refusal

HEAD_SECONDS = 10.0  # from the first byte of a request until it is whole, or large
IDLE_SECONDS = 5.0  # without a byte, before a request and between two
LINGER_SECONDS = 2.0  # for the client to close its side, so that it gets all that was sent (RFC 9112, 9.6)
GRACE_SECONDS = 5.0  # that a thread reads before the pace counts
PACE = 10_000  # bytes a second, the least that a client must send or take
READERS = 4  # one of so many threads may wait for the rest of a request
FILES = 65536  # open files and connections of a process, if the system allows

_GATHERED = 1 << 16  # bytes of a request that are gathered before a thread takes it
_SENT = 1 << 17  # bytes that are sent at a time
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECTING = re.compile(rb"\r\nexpect:", re.IGNORECASE)  # the body comes when a thread has sent 100-continue


class Worker(ThreadWorker):
    """gunicorn's thread worker, whose loop gives its threads requests instead of connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections: int = self.cfg.worker_connections
        self.waiting: dict[Connection, None] = {}  # in the loop, the oldest first
        self.readers = threading.Semaphore(max(1, self.cfg.threads // READERS))

    def init_process(self) -> None:
        """Raise the limit of open files."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        allowed = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
        self.worker_connections = min(self.worker_connections, allowed // 2)
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection. At the maximum, drop the one that has waited longest."""
        if self.waiting and self.nr_conns >= self.worker_connections - 1:
            self._drop(next(iter(self.waiting)))
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self.waiting:
                self._drop(next(iter(self.waiting)))
            return  # the client is gone, or the connection waits in the backlog
        self.nr_conns += 1
        self._wait(Connection(self.cfg, accepted, client, listener.getsockname(), self.readers), IDLE_SECONDS)

    def handle(self, conn: Connection) -> Any:
        """In a thread: read a request and answer it."""
        conn.unreader.begin()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """In a thread: answer a request."""
        req.body = _Body(req.body.reader)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that never reached the application."""
        status, answer = refusal(exc)
        if status == 500:
            self.log.exception("unexpected error", exc_info=exc)
        self.log.info("refused with %d", status, extra={"fields": {"status": status, "bytes": len(answer)}})
        with suppress(OSError):
            client.setblocking(False)
            client.send(answer)

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """In the loop again: wait for the next request, or for the client to close."""
        try:
            if fs.cancelled() or fs.exception() or not fs.result():
                conn.sock.shutdown(socket.SHUT_WR)
                conn.closing = True
                self._wait(conn, LINGER_SECONDS)
            elif conn.is_whole():
                self.enqueue_req(conn)  # pipelined
            else:
                self._wait(conn, HEAD_SECONDS if conn.begun else IDLE_SECONDS)
        except Exception:  # the client is gone
            self._close(conn)

    def murder_keepalived(self, force: bool = False) -> None:
        """Drop connections that waited too long, with a 408 if a request has begun."""
        now = time.monotonic()
        for conn in [conn for conn in self.waiting if force or conn.deadline <= now]:
            if conn.begun:
                late = RequestTimeout(f"The request was not here whole within {HEAD_SECONDS:.0f} seconds.")
                self.handle_error(None, conn.sock, conn.client, late)
            self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        for conn in self.waiting:
            conn.deadline = min(conn.deadline, deadline)

    def _keepalive_after(self, conn: Connection, keepalive: Any) -> bool:
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except HTTPException:  # the rest of the body cannot be read either
            return False

    def _wait(self, conn: Connection, seconds: float) -> None:
        conn.sock.setblocking(False)
        conn.deadline = time.monotonic() + seconds
        self.waiting[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, lambda _: self._gather(conn))

    def _gather(self, conn: Connection) -> None:
        begun = conn.begun
        if not conn.gather():
            self._drop(conn)
        elif conn.is_whole():
            self._take(conn)
            self.enqueue_req(conn)
        elif conn.begun and not begun:
            conn.deadline = time.monotonic() + HEAD_SECONDS

    def _take(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        del self.waiting[conn]

    def _drop(self, conn: Connection) -> None:
        self._take(conn)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()


class Connection(TConn):
    """A client's connection. `deadline` is when the loop drops it."""

    def __init__(
        self, cfg: Any, accepted: socket.socket, client: Any, server: Any, readers: threading.Semaphore
    ) -> None:
        super().__init__(cfg, _Socket(accepted), client, server)
        self.init()
        self.parser.unreader = self.unreader = _Unreader(self.sock, readers)
        self.deadline = 0.0
        self.closing = False  # all was sent; what still comes is ignored

    def gather(self) -> bool:
        """Read without blocking. False if the client is gone."""
        try:
            data = self.sock.recv(_GATHERED)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not self.closing:
            self.unreader.gather(data)
        return bool(data)

    @property
    def begun(self) -> bool:
        """Whether a part of a request has come."""
        return bool(self.unreader.gathered())

    def is_whole(self) -> bool:
        """Whether a thread must take over: a request is complete, or large, or invalid."""
        held = self.unreader.gathered()
        end = held.find(b"\r\n\r\n")
        if len(held) >= _GATHERED:
            return True
        if end < 0:
            return held.count(b"\n") > held.count(b"\r\n")
        if _EXPECTING.search(held, 0, end + 2):
            return True
        if _CHUNKED.search(held, 0, end + 2):
            return len(held) > end + 4 and held.endswith(b"\r\n\r\n")  # if it only looks complete, a thread waits
        length = _LENGTH.search(held, 0, end + 2)
        return length is None or len(held) >= min(_GATHERED, end + 4 + int(length[1]))


class _Socket(socket.socket):
    """A socket whose client must read at a minimum pace."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything. Raises ConnectionResetError if the client is too slow."""
        self.settimeout(_SENT / PACE)
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), _SENT):
                    super().sendall(view[start : start + _SENT], flags)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the client takes what it is sent too slowly") from None
        finally:
            self.settimeout(None)


class _Unreader(SocketUnreader):
    """The bytes that the loop gathered, and what a thread reads after them."""

    def __init__(self, sock: socket.socket, readers: threading.Semaphore) -> None:
        super().__init__(sock)
        self._readers = readers
        self._deadline = 0.0

    def gather(self, data: bytes) -> None:
        """Add bytes."""
        self.buf.seek(0, 2)
        self.buf.write(data)

    def gathered(self) -> bytes:
        """The bytes that were not read yet."""
        return bytes(self.buf.getvalue())

    def begin(self) -> None:
        """Start the clock of a thread that reads a request."""
        self._deadline = time.monotonic() + GRACE_SECONDS

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Read on, within a request. Raises HTTPException: 400, 408, 429."""
        if not self._readers.acquire(blocking=False):
            raise TooManyRequests("Many clients are slow to send their requests at the moment; try again.", None, 5)
        try:
            self.sock.settimeout(max(0.001, self._deadline - time.monotonic()))
            data = bytes(super().chunk(size_hint))
        except TimeoutError:
            raise RequestTimeout(f"The request comes too slowly: {PACE:,} bytes a second are the least.") from None
        except OSError:
            data = b""
        finally:
            self.sock.settimeout(None)
            self._readers.release()
        if not data:
            raise BadRequest("The request breaks off before its end.")
        self._deadline += len(data) / PACE
        return data


class _Body(Body):
    """A request's body; errors in it become error responses."""

    def _read_reader(self, size: int) -> Any:
        try:
            return super()._read_reader(size)
        except ParseException as error:
            raise BadRequest(f"The body is not framed as HTTP has it: {error}.") from None
