"""The life of what `cutaway up` runs: both Redis servers, the workers and the API, stopped together.

One thread and one selector: what the children print, their deaths and our own signals all arrive on pipes.
"""

import os
import selectors
import signal
import subprocess  # nosec B404
import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.up.redis_server import RunningRedis
from service.up.terminal import Terminal, greet
from worker.process import die_with_parent

PATIENCE = 120  # seconds a running job has to finish when we are asked to stop; nobody may be there to ask twice
TICK = 0.1  # seconds between two looks at what sends us no signal: the API's health, a restart that is due
RESTART_AFTER = 1.0
SAME_SIGNAL = 0.5  # timeout(1), terminals and task runners send one wish twice, to us and to our group


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
        terminal: Terminal,
    ) -> None:
        self.host, self.port, self.terminal = host, port, terminal
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
                    self.announced = self.announced or greet(self.host, self.port, self.terminal)
                elif time.monotonic() - self.stopped_at > PATIENCE:
                    self._stop_at_once(f"not stopped after {PATIENCE} s")
        finally:
            self._kill()
            self.selector.close()
        self.terminal.say("stopped")
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
                self.terminal.say(f"{died}, starting another")

    def _restart_the_due(self) -> None:
        for name in [name for name, when in self.due.items() if when <= time.monotonic()]:
            del self.due[name]
            self._start(name)

    def _stop(self, why: str) -> None:
        self.stopping, self.stopped_at = True, time.monotonic()
        self.terminal.say(why)
        for child in self.children:
            child.process.terminate()

    def _stop_at_once(self, why: str) -> None:
        self.exit_code = 1
        self.terminal.say(why)
        self._kill()

    def _kill(self) -> None:
        self.stopping = True
        for child in self.children:
            child.process.kill()
        for child in self.children:
            child.process.wait()
            self._drain(child)
        self.children.clear()

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
            self.terminal.tell(child.name, line)
        return bool(data)

    def _drain(self, child: Child) -> None:
        while self._forward(child):
            pass


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
