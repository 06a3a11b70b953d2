"""The API under gunicorn: a few processes, each with threads, because a request mostly waits for Redis."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

import service.http.large_reads as large_reads
import service.http.rate_limit as rate_limit
import service.server.connections as connections
import service.server.refusals as refusals
from service.app import create_app
from service.http.api_keys import Keys
from service.resources.metrics import FOLDER
from service.server.logger import Logger
from service.settings import Settings
from worker.process import die_with_parent, limit_arenas

_ARENAS = 2  # of malloc, for all threads of a process: one runs Python at a time
_COUNTED = 1 << 18  # bytes of a file of counts: far more than those of all routes take


class Server(BaseApplication):
    """gunicorn with our settings and nothing read from its command line or files."""

    def __init__(self, host: str, port: int, processes: int, threads: int) -> None:
        settings = Settings.from_environment()
        self.keys = Keys.from_settings(settings)
        if settings.rate_limit:
            rate_limit.parse(settings.rate_limit)  # reports an invalid value once, not in each process
        occupied = settings.max_streams + settings.max_waits + large_reads.LIMIT  # each occupies a thread
        self.settings: dict[str, Any] = {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": processes,
            "worker_class": connections.Worker,
            "threads": threads + occupied,
            "graceful_timeout": 10,
            "limit_request_line": refusals.LINE,
            "limit_request_fields": refusals.FIELDS,
            "limit_request_field_size": refusals.FIELD,
            "forwarder_headers": "",  # no client may set SCRIPT_NAME
            "control_socket_disable": True,
            "on_starting": self._on_starting,
            "post_fork": _post_fork,
            "child_exit": _child_exit,
            "on_exit": _on_exit,
            "post_worker_init": _post_worker_init,
            "proc_name": "cutaway-api",
            "logger_class": Logger,
        }
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="cutaway-metrics-")
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.settings.items():
            self.cfg.set(name, value)

    def _on_starting(self, arbiter: Any) -> None:
        accepted = f"{len(self.keys)} API keys are accepted" if self.keys else "no API_KEYS are set: no key is needed"
        arbiter.log.info(accepted)

    def load(self) -> Callable[..., Any]:
        return create_app()


def _post_fork(arbiter: Any, worker: Any) -> None:
    die_with_parent(signal.SIGKILL, worker.ppid)
    limit_arenas(_ARENAS)
    _reserve(os.environ[FOLDER])


def _reserve(folder: str) -> None:
    """Reserve the files in which this process counts its requests; without room, count in memory.

    The files are mapped: a page that does not fit on the disk later would kill the process.
    """
    try:
        for kind in ("counter", "histogram"):
            with Path(folder, f"{kind}_{os.getpid()}.db").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _COUNTED)
    except OSError:
        del os.environ[FOLDER]


def _child_exit(arbiter: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _on_exit(arbiter: Any) -> None:
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def _post_worker_init(worker: Any) -> None:
    worker.wsgi.extensions["streams"].is_running = lambda: worker.alive  # a stop need not wait for open streams
