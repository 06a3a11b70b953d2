"""Values from Redis straight into memory, as fast as the socket gives them.

The client reads them too, and copies each twice more: a result of 200 MB takes it twice as long.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import redis.exceptions
from redis import Redis

_AT_ONCE = 8  # values asked for before those asked for earlier are read: enough to keep Redis busy


class Wanted(NamedTuple):
    """A part of a string in Redis, from byte `start` on: as much as `into` holds."""

    key: str
    start: int
    into: memoryview


class NotThere(LookupError):
    """A string is missing, or is too short."""


def receive(cache: Redis, wanted: Iterable[Wanted]) -> Iterator[memoryview]:
    """Fill one `into` after another, and hand it on. Its memory may be that of others: it is used when they are next.

    Raises NotThere, and redis.exceptions.ConnectionError and TimeoutError.
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
                _expect(connection._sock, head + b"$%d\r\n" % len(one.into))
                _fill(connection._sock, one.into)
                head = b"\r\n"
                yield one.into
            asked = following
        _expect(connection._sock, head)
        whole = True
    except TimeoutError:
        raise redis.exceptions.TimeoutError("Redis is slow to answer") from None
    except OSError as error:
        raise redis.exceptions.ConnectionError(str(error)) from None
    finally:
        if not whole:
            connection.disconnect()  # what was asked for is still on its way
        pool.release(connection)


def _ask(connection: Any, left: Iterator[Wanted]) -> list[Wanted]:
    """Send for the next few."""
    asked = [*islice(left, _AT_ONCE)]
    if asked:
        commands = [("GETRANGE", key, start, start + len(into) - 1) for key, start, into in asked]
        connection.send_packed_command(connection.pack_commands(commands))
    return asked


def _expect(sock: socket.socket, text: bytes) -> None:
    """Read exactly this: the frame of the next value (https://redis.io/docs/latest/develop/reference/protocol-spec)."""
    got = b""
    while len(got) < len(text):
        part = sock.recv(len(text) - len(got))
        if not part:
            raise ConnectionError("Redis closed the connection")
        got += part
        if not text.startswith(got):
            raise NotThere


def _fill(sock: socket.socket, into: memoryview) -> None:
    while into:
        count = sock.recv_into(into)
        if not count:
            raise ConnectionError("Redis closed the connection")
        into = into[count:]
