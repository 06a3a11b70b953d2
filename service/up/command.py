"""`cutaway up`: check the settings, then start everything.

What was accepted is kept in the data folder: it is there after a restart, and after a crash.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import service.up.data_folder as data_folder
import service.up.redis_server as redis_server
import worker.logs as logs
from service.up.data_folder import DataFolderError
from service.up.redis_server import RedisServerError, Role, RunningRedis
from service.up.supervisor import Supervisor
from service.up.terminal import Terminal


class CannotStart(Exception):
    """The port or the data folder is in use, or a Redis does not respond; the message is one line for the user."""


def up(
    host: str,
    port: int,
    workers: int = 1,
    cache_memory: str = "2gb",
    data_dir: Path | None = None,
    fresh: bool = False,
) -> int:
    """Run everything until a signal arrives, or until the API or a Redis dies; return the exit code.

    Jobs and results are in `data_dir`, by default a folder of the user for this port; `fresh` forgets earlier ones.
    """
    _check_port(host, port)
    folder = (data_dir or data_folder.default(port)).absolute()
    with ExitStack() as stack:
        signals = stack.enter_context(_signals_as_bytes())
        servers: list[RunningRedis] = []
        environment = {**os.environ, "HOST": host, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
        roles: tuple[Role, Role] = ("queue", "cache")
        variables: dict[Role, str] = {role: f"{role.upper()}_URL" for role in roles}
        embedded = [role for role, variable in variables.items() if not environment.get(variable)]
        for role in set(roles) - {*embedded}:
            _check_redis(variables[role], environment[variables[role]])
        if embedded:
            lock = _open(stack, folder, fresh).fileno()
        for role in embedded:
            started = redis_server.start(role, folder, cache_memory, durable=True, inherited=[lock])
            servers.append(stack.enter_context(started))
            environment[variables[role]] = started.url
        names = ["worker"] if workers == 1 else [f"worker-{number}" for number in range(1, workers + 1)]
        commands = {name: [sys.executable, "-m", "worker"] for name in names}
        commands["api"] = [sys.executable, "-m", "service", "api"]
        terminal = Terminal(["cutaway", *commands], logs.settings(environment)[0])
        if embedded:
            terminal.log(f"data in {folder} (cutaway up --fresh forgets what is there)")
        return Supervisor(host, port, commands, environment, servers, signals, terminal).run()


def _open(stack: ExitStack, folder: Path, fresh: bool) -> IO[bytes]:
    try:
        return stack.enter_context(data_folder.opened(folder, fresh=fresh))
    except DataFolderError as error:
        raise CannotStart(str(error)) from None


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn sets it
            probe.bind(address)
    except OSError as error:
        raise CannotStart(f"{host}:{port}: {error.strerror} (choose another with --port or PORT)") from None


def _check_redis(variable: str, url: str) -> None:
    try:
        redis_server.check(url)
    except RedisServerError as error:
        raise CannotStart(f"{variable} is set, but no Redis responds there: {error}") from None


@contextmanager
def _signals_as_bytes() -> Iterator[int]:
    """Yield a pipe that receives each signal's number as a byte, so that the selector's loop handles signals."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    handled = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it, to survive the terminal
        handled.append(signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: None) for number in handled}
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
