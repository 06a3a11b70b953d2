"""The output of `cutaway up`."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException

import orjson

import worker.logs as logs

COLOURS = (36, 35, 33, 34, 32)
LOCAL_HOSTS = {"", "0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104 - not bound, only shown as localhost  # nosec B104
EXAMPLE = """'{"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}'"""


class Terminal:
    """Standard output, shared by all processes. `form` is "text" or "json"."""

    def __init__(self, processes: Sequence[str], form: str) -> None:
        self.form = form
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(processes)}
        self.width = max(map(len, self.colours))

    def log(self, line: str) -> None:
        """Print a line of the supervisor."""
        self.print("supervisor" if self.form == "json" else "cutaway", line.encode())

    def print(self, process: str, line: bytes) -> None:
        """Print a line of a process, with the process's name."""
        self.write(self._line(process, line))

    def write(self, line: bytes) -> None:
        """Write bytes and a newline; the output of children need not be in the terminal's encoding."""
        try:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        except OSError:  # the terminal or the reader of our pipe has gone, so stop
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)

    def _line(self, process: str, line: bytes) -> bytes:
        """Return a line after the process's name; in the json form, as a JSON log line unless it already is one."""
        if self.form == "text":
            return self._prefix(process) + line
        if line.startswith(b'{"time":'):
            return line
        fields = {
            "time": logs.timestamp(time.time()),
            "level": "info",
            "part": process,
            "message": line.decode(errors="replace"),
        }
        return orjson.dumps(fields)

    def _prefix(self, name: str) -> bytes:
        prefix = f"{name:<{self.width}} | "
        return (f"\033[{self.colours[name]}m{prefix}\033[0m" if self.coloured else prefix).encode()


def announce(host: str, port: int, terminal: Terminal) -> bool:
    """Print the URL and an example if the API responds; return whether it did."""
    connection = HTTPConnection(host, port, timeout=0.5)
    try:
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 200:
            return False
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    name = "localhost" if host in LOCAL_HOSTS else f"[{host}]" if ":" in host else host
    address = f"{name}:{port}"
    if terminal.form == "json":
        terminal.log(f"ready at http://{address}")
    else:
        terminal.log(f"ready at http://{address} (press Ctrl-C to stop); try:")
        terminal.write(f"\n  curl -s {address}/v1/traces -H 'Prefer: wait=10' --json {EXAMPLE}\n".encode())
    return True
