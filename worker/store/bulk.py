"""Bulk reads of strings from Redis straight into buffers.

redis-py copies each value twice before it returns it: reading a result of 200 MB that way takes twice as long. So the
replies are read from its socket, which is a private attribute. Where redis-py has no such socket, the values are read
with ordinary client calls.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import redis.exceptions
from redis import Redis

_PIPELINED = 8  # commands sent before the replies to the earlier ones are read: enough to keep Redis busy


class StringRange(NamedTuple):
    """A part of a string in Redis, from byte `start` on, as long as the buffer."""

    key: str
    start: int
    buffer: memoryview

    @property
    def last(self) -> int:
        """The last byte."""
        return self.start + len(self.buffer) - 1


class MissingString(LookupError):
    """A string does not exist, or is too short."""


def receive(cache: Redis, wanted: Iterable[StringRange]) -> Iterator[memoryview]:
    """Fill one buffer after another and yield each when it is full.

    Buffers may share memory: one is filled only after the one before was consumed.
    Raises MissingString, and redis.exceptions.ConnectionError and TimeoutError.
    """
    pool = cache.connection_pool
    connection: Any = pool.get_connection()
    sock = private_socket(connection)
    if sock is None:
        pool.release(connection)
        yield from _receive_by_client(cache, iter(wanted))
        return
    complete = False
    try:
        yield from _receive_from_socket(connection, sock, iter(wanted))
        complete = True
    except TimeoutError:
        raise redis.exceptions.TimeoutError("Redis did not reply in time") from None
    except OSError as error:
        raise redis.exceptions.ConnectionError(str(error)) from None
    finally:
        if not complete:
            connection.disconnect()  # unread replies may follow
        pool.release(connection)


def private_socket(connection: object) -> socket.socket | None:
    """Return the socket of a connected redis-py connection; None if this version of redis-py has none."""
    sock = getattr(connection, "_sock", None)
    return sock if isinstance(sock, socket.socket) else None


def _receive_from_socket(connection: Any, sock: socket.socket, wanted: Iterator[StringRange]) -> Iterator[memoryview]:
    """Read the values from the socket into their buffers."""
    frame, sent = b"", _send(connection, wanted)
    while sent:
        next_sent = _send(connection, wanted)
        for part in sent:
            _expect(sock, frame + b"$%d\r\n" % len(part.buffer))
            _fill(sock, part.buffer)
            frame = b"\r\n"
            yield part.buffer
        sent = next_sent
    _expect(sock, frame)


def _receive_by_client(cache: Redis, wanted: Iterator[StringRange]) -> Iterator[memoryview]:
    """Copy the values from the client's replies."""
    while parts := [*islice(wanted, _PIPELINED)]:
        pipeline = cache.pipeline(transaction=False)
        for part in parts:
            pipeline.getrange(part.key, part.start, part.last)
        for part, value in zip(parts, pipeline.execute(), strict=True):
            if len(value) != len(part.buffer):
                raise MissingString
            part.buffer[:] = value
            yield part.buffer


def _send(connection: Any, wanted: Iterator[StringRange]) -> list[StringRange]:
    """Send the next few commands; return what they read."""
    parts = [*islice(wanted, _PIPELINED)]
    if parts:
        commands = [("GETRANGE", part.key, part.start, part.last) for part in parts]
        connection.send_packed_command(connection.pack_commands(commands))
    return parts


def _expect(sock: socket.socket, frame: bytes) -> None:
    """Read the frame between two values (https://redis.io/docs/latest/develop/reference/protocol-spec).

    Raises MissingString if Redis replies with anything else, such as a shorter string.
    """
    received = b""
    while len(received) < len(frame):
        chunk = sock.recv(len(frame) - len(received))
        if not chunk:
            raise ConnectionError("Redis closed the connection")
        received += chunk
        if not frame.startswith(received):
            raise MissingString


def _fill(sock: socket.socket, buffer: memoryview) -> None:
    while buffer:
        count = sock.recv_into(buffer)
        if not count:
            raise ConnectionError("Redis closed the connection")
        buffer = buffer[count:]
