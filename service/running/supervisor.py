"""`cutaway up`: both Redis servers, the workers and the API in one terminal, started together and stopped together.

One thread and one selector: what the children print, their deaths and our own signals all arrive on pipes.
"""

import os
import selectors
import signal
import socket
import subprocess  # nosec B404
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

import worker.logs as logs
from service.running import redis_server
from service.running.redis_server import RedisServerError, Role, RunningRedis
from worker.process import die_with_parent

PATIENCE = 120  # seconds a running job has to finish when we are asked to stop; nobody may be there to ask twice
TICK = 0.1  # seconds between two looks at what sends us no signal: the API's health, a restart that is due
RESTART_AFTER = 1.0
SAME_SIGNAL = 0.5  # timeout(1), terminals and task runners send one wish twice, to us and to our group
COLOURS = (36, 35, 33, 34, 32)
EVERYWHERE = {"", "0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104 - not bound, only shown as localhost  # nosec B104
EXAMPLE = """'{"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}'"""


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
        return Supervisor(host, port, commands, environment, servers, signals).run()


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


@dataclass
class Child:
    name: str
    process: subprocess.Popen[bytes]
    output: int  # our end of the pipe that it prints to
    line: bytes = b""  # the start of a line whose end it has not printed yet


class Supervisor:
    """The life of the API and the workers, from the first start to the last death."""

    def __init__(
        self,
        host: str,
        port: int,
        commands: dict[str, list[str]],
        environment: dict[str, str],
        servers: Sequence[RunningRedis],
        signals: int,
    ) -> None:
        self.host, self.port = host, port
        self.commands = commands
        self.environment = environment
        self.servers = list(servers)
        self.signals = signals
        self.children: list[Child] = []
        self.due: dict[str, float] = {}  # the workers to start again, and when
        self.announced = False
        self.stopping = False
        self.stopped_at = 0.0
        self.exit_code = 0
        self.selector = selectors.DefaultSelector()
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(["cutaway", *commands])}
        self.width = max(map(len, self.colours))
        self.form = logs.chosen(environment)[0]

    def run(self) -> int:
        self.selector.register(self.signals, selectors.EVENT_READ, None)
        try:
            for name in self.commands:
                self._start(name)
            while self.children:
                idle = self.announced and not self.due and not self.stopping
                for key, _ in self.selector.select(None if idle else TICK):
                    if key.data is None:
                        self._obey_signals()
                    else:
                        self._forward(key.data)
                if not self.stopping:
                    self._restart_the_due()
                    self._announce()
                elif time.monotonic() - self.stopped_at > PATIENCE:
                    self._stop_at_once(f"not stopped after {PATIENCE} s")
        finally:
            self._kill()
            self.selector.close()
        self._say("stopped")
        return self.exit_code

    def _start(self, name: str) -> None:
        parent = os.getpid()
        output, theirs = os.pipe()
        process = subprocess.Popen(  # nosec B603
            self.commands[name],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches only us: we stop the parts in their order
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
        )
        os.close(theirs)
        os.set_blocking(output, False)
        child = Child(name, process, output)
        self.children.append(child)
        self.selector.register(output, selectors.EVENT_READ, child)

    def _obey_signals(self) -> None:
        for number in os.read(self.signals, 1024):
            if number == signal.SIGCHLD:
                self._notice_deaths()
            elif not self.stopping:
                self._stop("stopping, a running job is finished first; Ctrl-C again to stop at once")
            elif time.monotonic() - self.stopped_at > SAME_SIGNAL:
                self._stop_at_once("stopping at once")

    def _notice_deaths(self) -> None:
        for server in [server for server in self.servers if server.process.poll() is not None]:
            self.servers.remove(server)
            # Not even a running job can be finished without it.
            self._stop_at_once(f"the {server.role} Redis died, stopping everything: {server.last_words()}")
        for child in [child for child in self.children if child.process.poll() is not None]:
            self._drain(child)  # its last words come before ours
            self.children.remove(child)
            if self.stopping:
                continue
            died = f"{child.name} died ({_how(child.process.returncode)})"
            if child.name == "api":
                self.exit_code = 1
                self._stop(f"{died}, stopping everything")
            else:
                self.due[child.name] = time.monotonic() + RESTART_AFTER
                self._say(f"{died}, starting another")

    def _restart_the_due(self) -> None:
        for name in [name for name, when in self.due.items() if when <= time.monotonic()]:
            del self.due[name]
            self._start(name)

    def _stop(self, why: str) -> None:
        self.stopping, self.stopped_at = True, time.monotonic()
        self._say(why)
        for child in self.children:
            child.process.terminate()

    def _stop_at_once(self, why: str) -> None:
        self.exit_code = 1
        self._say(why)
        self._kill()

    def _kill(self) -> None:
        self.stopping = True
        for child in self.children:
            child.process.kill()
        for child in self.children:
            child.process.wait()
            self._drain(child)
        self.children.clear()

    def _announce(self) -> None:
        """Say what to try, once the API answers."""
        if self.announced:
            return
        connection = HTTPConnection(self.host, self.port, timeout=0.5)
        try:
            connection.request("GET", "/healthz")
            self.announced = connection.getresponse().status == 200
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        if self.announced:
            name = "localhost" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
            at = f"{name}:{self.port}"
            if self.form == "json":
                return self._say(f"ready at http://{at}")
            self._say(f"ready at http://{at} (Ctrl-C stops it); try:")
            self._print(f"\n  curl -s {at}/v1/traces -H 'Prefer: wait=10' --json {EXAMPLE}\n".encode())

    def _forward(self, child: Child) -> bool:
        """Print the lines that a child has finished; False when there is nothing more to read for now."""
        try:
            data = os.read(child.output, 1 << 16)
        except OSError:  # nothing there yet, or closed below
            return False
        *lines, child.line = (child.line + data).split(b"\n")
        if not data:
            lines = [child.line] if child.line else []
            child.line = b""
            self.selector.unregister(child.output)
            os.close(child.output)
            child.output = -1
        for line in lines:
            self._print(self._line(child.name, line))
        return bool(data)

    def _drain(self, child: Child) -> None:
        while self._forward(child):
            pass

    def _say(self, line: str) -> None:
        self._print(self._line("supervisor" if self.form == "json" else "cutaway", line.encode()))

    def _line(self, part: str, line: bytes) -> bytes:
        """A line of a part: with its name before it; as JSON, where that is wanted and it is none yet."""
        if self.form == "text":
            return self._prefix(part) + line
        if line.startswith(b'{"time":'):
            return line
        told = {
            "time": logs.moment(time.time()),
            "level": "info",
            "part": part,
            "message": line.decode(errors="replace"),
        }
        return orjson.dumps(told)

    def _prefix(self, name: str) -> bytes:
        prefix = f"{name:<{self.width}} | "
        return (f"\033[{self.colours[name]}m{prefix}\033[0m" if self.coloured else prefix).encode()

    def _print(self, line: bytes) -> None:
        """Bytes as they are: what the children print need not be text in the terminal's encoding."""
        try:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        except OSError:  # the terminal is closed, or the reader of our pipe is gone: nobody is left to work for
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
