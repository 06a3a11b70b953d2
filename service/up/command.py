"""`cutaway up`: what there is to start, and whether it can be."""

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
    """Something that `up` needs is missing or taken; the message is one line for the user."""


def up(host: str, port: int, workers: int = 1, cache_memory: str = "2gb") -> int:
    """Run everything until a signal or the death of a part that the rest cannot do without; return the exit code."""
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
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does it
            probe.bind(address)
    except OSError as error:
        raise CannotStart(f"{host}:{port}: {error.strerror} (PORT=… chooses another)") from None


def _check_redis(variable: str, url: str) -> None:
    try:
        redis_server.check(url)
    except RedisServerError as error:
        raise CannotStart(f"{variable} is set, but no Redis answers there: {error}") from None


@contextmanager
def _signals_as_bytes() -> Iterator[int]:
    """A pipe that gets the number of each signal as one byte, so that signals wait their turn like everything else."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    taken = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants us to outlive the terminal
        taken.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in taken}
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
