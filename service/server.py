"""The API under gunicorn: a few processes, each with threads, because a request mostly waits for Redis."""

import signal
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from worker.process import die_with_parent


class Server(BaseApplication):
    """gunicorn with our settings and nothing read from its command line or files."""

    def __init__(self, host: str, port: int, processes: int, threads: int) -> None:
        self.settings: dict[str, Any] = {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": processes,
            "worker_class": "gthread",
            "threads": threads,
            "graceful_timeout": 10,
            "control_socket_disable": True,
            "post_fork": _post_fork,
            "proc_name": "cutaway-api",
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.settings.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        from service import create_app

        return create_app()


def _post_fork(arbiter: Any, worker: Any) -> None:
    die_with_parent(signal.SIGKILL, worker.ppid)
