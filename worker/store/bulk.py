"""Read strings from Redis straight into buffers, at the speed of the socket.

The Redis client copies each value twice more: a result of 200 MB takes it twice as long.
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


class MissingString(LookupError):
    """A string does not exist, or is too short."""


def receive(cache: Redis, wanted: Iterable[StringRange]) -> Iterator[memoryview]:
    """Fill one buffer after another, and yield it. Several may share memory: one is filled after the last was consumed.

    Raises MissingString, and redis.exceptions.ConnectionError and TimeoutError.
    """
    pool = cache.connection_pool
    connection: Any = pool.get_connection()
    left = iter(wanted)
    whole = False
    try:
        head, asked = b"", _ask(connection, left)
        while asked:
            following = _ask(connection, left)
            for one in asked:
                _expect(connection._sock, head + b"$%d\r\n" % len(one.buffer))
                _fill(connection._sock, one.buffer)
                head = b"\r\n"
                yield one.buffer
            asked = following
        _expect(connection._sock, head)
        whole = True
    except TimeoutError:
        raise redis.exceptions.TimeoutError("Redis is slow to answer") from None
    except OSError as error:
        raise redis.exceptions.ConnectionError(str(error)) from None
    finally:
        if not whole:
            connection.disconnect()  # replies are still on their way
        pool.release(connection)


def _ask(connection: Any, left: Iterator[StringRange]) -> list[StringRange]:
    """Send the next few commands."""
    asked = [*islice(left, _PIPELINED)]
    if asked:
        commands = [("GETRANGE", key, start, start + len(buffer) - 1) for key, start, buffer in asked]
        connection.send_packed_command(connection.pack_commands(commands))
    return asked


def _expect(sock: socket.socket, text: bytes) -> None:
    """Read exactly this text, the frame of the next value (https://redis.io/docs/latest/develop/reference/protocol-spec)."""
    got = b""
    while len(got) < len(text):
        part = sock.recv(len(text) - len(got))
        if not part:
            raise ConnectionError("Redis closed the connection")
        got += part
        if not text.startswith(got):
            raise MissingString


def _fill(sock: socket.socket, buffer: memoryview) -> None:
    while buffer:
        count = sock.recv_into(buffer)
        if not count:
            raise ConnectionError("Redis closed the connection")
        buffer = buffer[count:]
