"""What `cutaway up` prints: the lines of all its parts, each with its name, and at the beginning what to try."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException

import orjson

import worker.logs as logs

COLOURS = (36, 35, 33, 34, 32)
EVERYWHERE = {"", "0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104 - not bound, only shown as localhost  # nosec B104
EXAMPLE = """'{"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}'"""


class Terminal:
    """Standard output, which the parts share. `form` is text or json."""

    def __init__(self, parts: Sequence[str], form: str) -> None:
        self.form = form
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(parts)}
        self.width = max(map(len, self.colours))

    def say(self, line: str) -> None:
        """Print a line of the supervisor's own."""
        self.tell("supervisor" if self.form == "json" else "cutaway", line.encode())

    def tell(self, part: str, line: bytes) -> None:
        """Print a line of a part."""
        self.write(self._line(part, line))

    def write(self, line: bytes) -> None:
        """Bytes as they are: what the children print need not be text in the terminal's encoding."""
        try:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        except OSError:  # the terminal is closed, or the reader of our pipe is gone: nobody is left to work for
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)

    def _line(self, part: str, line: bytes) -> bytes:
        """A line of a part: with its name before it; as JSON, where that is wanted and it is none yet."""
        if self.form == "text":
            return self._prefix(part) + line
        if line.startswith(b'{"time":'):
            return line
        told = {
            "time": logs.timestamp(time.time()),
            "level": "info",
            "part": part,
            "message": line.decode(errors="replace"),
        }
        return orjson.dumps(told)

    def _prefix(self, name: str) -> bytes:
        prefix = f"{name:<{self.width}} | "
        return (f"\033[{self.colours[name]}m{prefix}\033[0m" if self.coloured else prefix).encode()


def greet(host: str, port: int, terminal: Terminal) -> bool:
    """Say what to try if the API answers; whether it did."""
    connection = HTTPConnection(host, port, timeout=0.5)
    try:
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 200:
            return False
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    name = "localhost" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    at = f"{name}:{port}"
    if terminal.form == "json":
        terminal.say(f"ready at http://{at}")
    else:
        terminal.say(f"ready at http://{at} (Ctrl-C stops it); try:")
        terminal.write(f"\n  curl -s {at}/v1/traces -H 'Prefer: wait=10' --json {EXAMPLE}\n".encode())
    return True
