"""Start, restart and stop the processes of `cutaway up`.

One thread runs one selector: the output of the children, their exits (SIGCHLD) and other signals all arrive on pipes.
"""

import os
import selectors
import signal
import subprocess  # nosec B404
import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.up.redis_server import RunningRedis
from service.up.terminal import Terminal, announce
from worker.process import die_with_parent

STOP_TIMEOUT = 120  # seconds that running jobs have to finish after a signal; then they are killed
POLL_INTERVAL = 0.1  # seconds between checks of the API's health and of pending restarts, which send no signal
RESTART_AFTER = 1.0  # seconds
DUPLICATE_SIGNAL = 0.5  # seconds: timeout(1), terminals and task runners signal this process and its group


@dataclass
class Child:
    """A child process and its output."""

    name: str
    process: subprocess.Popen[bytes]
    output: int  # the read end of the pipe for its output
    line: bytes = b""  # an incomplete last line


class Supervisor:
    """Runs the API and the workers until all have exited."""

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
        self.restarts: dict[str, float] = {}  # workers to restart, and when
        self.announced = False
        self.stopping = False
        self.stopped_at = 0.0
        self.exit_code = 0
        self.selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Run until all children have exited; return the exit code."""
        self.selector.register(self.signals, selectors.EVENT_READ, None)
        try:
            for name in self.commands:
                self._start(name)
            while self.children:
                idle = self.announced and not self.restarts and not self.stopping
                for key, _ in self.selector.select(None if idle else POLL_INTERVAL):
                    if key.data is None:
                        self._handle_signals()
                    else:
                        self._forward(key.data)
                if not self.stopping:
                    self._restart_workers()
                    self.announced = self.announced or announce(self.host, self.port, self.terminal)
                elif self.children and time.monotonic() - self.stopped_at > STOP_TIMEOUT:
                    self._stop_at_once(f"not stopped after {STOP_TIMEOUT} s")
        finally:
            self._kill()
            self.selector.close()
        self.terminal.log("stopped")
        return self.exit_code

    def _start(self, name: str) -> None:
        parent = os.getpid()
        output, child_output = os.pipe()
        process = subprocess.Popen(  # nosec B603
            self.commands[name],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=child_output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal signals only this process, which stops the others in order
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
        )
        os.close(child_output)
        os.set_blocking(output, False)
        child = Child(name, process, output)
        self.children.append(child)
        self.selector.register(output, selectors.EVENT_READ, child)

    def _handle_signals(self) -> None:
        for number in os.read(self.signals, 1024):
            if number == signal.SIGCHLD:
                self._handle_exits()
            elif not self.stopping:
                self._stop("stopping: running jobs finish first; press Ctrl-C again to stop at once")
            elif time.monotonic() - self.stopped_at > DUPLICATE_SIGNAL:
                self._stop_at_once("stopping at once")

    def _handle_exits(self) -> None:
        for server in [server for server in self.servers if server.process.poll() is not None]:
            self.servers.remove(server)
            # No running job can finish without it.
            self._stop_at_once(f"the {server.role} Redis died, stopping everything: {server.last_log_line()}")
        for child in [child for child in self.children if child.process.poll() is not None]:
            self._drain(child)  # print its last lines before ours
            self.children.remove(child)
            if self.stopping:
                continue
            died = f"{child.name} died ({_exit_reason(child.process.returncode)})"
            if child.name == "api":
                self.exit_code = 1
                self._stop(f"{died}, stopping everything")
            else:
                self.restarts[child.name] = time.monotonic() + RESTART_AFTER
                self.terminal.log(f"{died}, starting another")

    def _restart_workers(self) -> None:
        for name in [name for name, when in self.restarts.items() if when <= time.monotonic()]:
            del self.restarts[name]
            self._start(name)

    def _stop(self, reason: str) -> None:
        self.stopping, self.stopped_at = True, time.monotonic()
        self.terminal.log(reason)
        for child in self.children:
            child.process.terminate()

    def _stop_at_once(self, reason: str) -> None:
        self.exit_code = 1
        self.terminal.log(reason)
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
        """Print the complete lines of a child's output; return False if there is nothing more to read now."""
        try:
            data = os.read(child.output, 1 << 16)
        except OSError:  # no data yet, or closed below
            return False
        *lines, child.line = (child.line + data).split(b"\n")
        if not data:
            lines = [child.line] if child.line else []
            child.line = b""
            self.selector.unregister(child.output)
            os.close(child.output)
            child.output = -1
        for line in lines:
            self.terminal.print(child.name, line)
        return bool(data)

    def _drain(self, child: Child) -> None:
        while self._forward(child):
            pass


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
