"""`cutaway up`: check the settings, then start everything."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import service.up.redis_server as redis_server
import worker.logs as logs
from service.up.redis_server import RedisServerError, Role, RunningRedis
from service.up.supervisor import Supervisor
from service.up.terminal import Terminal


class CannotStart(Exception):
    """The port is in use or a Redis does not respond; the message is one line for the user."""


def up(host: str, port: int, workers: int = 1, cache_memory: str = "2gb") -> int:
    """Run everything until a signal arrives, or until the API or a Redis dies; return the exit code."""
    _check_port(host, port)
    with ExitStack() as stack:
        signals = stack.enter_context(_signals_as_bytes())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cutaway-")))
        servers: list[RunningRedis] = []
        environment = {**os.environ, "HOST": host, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
        roles: tuple[Role, Role] = ("queue", "cache")
        for role in roles:
            variable = f"{role.upper()}_URL"
            if environment.get(variable):
                _check_redis(variable, environment[variable])
            else:
                servers.append(stack.enter_context(redis_server.start(role, folder, cache_memory)))
                environment[variable] = servers[-1].url
        names = ["worker"] if workers == 1 else [f"worker-{number}" for number in range(1, workers + 1)]
        commands = {name: [sys.executable, "-m", "worker"] for name in names}
        commands["api"] = [sys.executable, "-m", "service", "api"]
        terminal = Terminal(["cutaway", *commands], logs.settings(environment)[0])
        return Supervisor(host, port, commands, environment, servers, signals, terminal).run()


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
