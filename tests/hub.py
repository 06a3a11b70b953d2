"""A stub of a Hugging Face hub on loopback, for tests of `cutaway fetch`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from click.testing import Result

SECONDS = 30
REPO = "openai-community/gpt2"
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
CONFIG = b'{"model_type": "gpt2", "n_layer": 2}'
WEIGHTS = b"".join(hashlib.sha512(b"%d" % i).digest() for i in range(46_875))  # 3 MB that repeat nowhere
SHARDS = {f"model-0000{n}-of-00002.safetensors": WEIGHTS[-1_500_000 * n :][:1_500_000] for n in (1, 2)}
INDEX = json.dumps({"weight_map": {f"h.{i}.ln_1.weight": name for i, name in enumerate(SHARDS)}}).encode()
OTHERS = {"pytorch_model.bin": b"a pickle", "README.md": b"# GPT-2", "onnx/decoder.onnx": b"another format"}
WHOLE = {"config.json": CONFIG, "model.safetensors": WEIGHTS} | OTHERS
SHARDED = {"config.json": CONFIG, "model.safetensors.index.json": INDEX} | SHARDS | OTHERS

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


@dataclass
class SeenRequest:
    method: str
    host: str
    path: str
    range: str | None
    token: str | None
    sent: int = 0


@dataclass
class StubHub:
    """Serves repositories with the endpoints and headers of huggingface.co; large files come from another host."""

    url: str
    storage: str
    repos: dict[str, dict[str, bytes]] = field(default_factory=lambda: {REPO: WHOLE})
    refuses: dict[str, tuple[int, str]] = field(
        default_factory=dict
    )  # status and error code, by the beginning of a path
    stated: dict[str, tuple[int, str]] = field(
        default_factory=dict
    )  # a wrong size and digest, by the name of a large file
    stops_at: int | None = None  # the next large file pauses at this byte until `go_on`
    breaks_at: list[int] = field(default_factory=list)  # the next downloads of large files end at these bytes
    ranges: bool = True
    requests: list[SeenRequest] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[SeenRequest]:
        return [request for request in self.requests if request.path.startswith("/storage/")]


class HubHandler(BaseHTTPRequestHandler):
    hub: StubHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        host, token = self.headers["Host"], self.headers["Authorization"]
        self.seen = SeenRequest(self.command, host, path, self.headers["Range"], token)
        self.hub.requests.append(self.seen)
        refused = next((how for start, how in self.hub.refuses.items() if path.startswith(start)), None)
        if refused:
            return self.answer(refused[0], {"X-Error-Code": refused[1]})
        if path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            return self.info(repo, revision)
        if path.startswith("/api/resolve-cache/"):
            content = self.hub.repos[REPO][path.removeprefix("/api/resolve-cache/")]
            return self.answer(200, {"ETag": '"of git"'}, content)
        if path.startswith("/storage/"):
            return self.large(self.hub.repos[REPO][path.removeprefix("/storage/")])
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        return self.resolve(repo, *rest.split("/", 1))

    def info(self, repo: str, revision: str) -> None:
        if repo not in self.hub.repos:
            return self.answer(401, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", "refs/pr/1", COMMIT):
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in self.hub.repos[repo]]
        return self.answer(200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def resolve(self, repo: str, commit: str, name: str) -> None:
        content = self.hub.repos[repo][name]
        headers = {"X-Repo-Commit": commit}
        if not name.endswith(".safetensors"):
            return self.answer(307, headers | {"Location": f"/api/resolve-cache/{name}"})
        size, digest = self.hub.stated.get(name, (len(content), hashlib.sha256(content).hexdigest()))
        headers |= {"X-Linked-Size": str(size), "X-Linked-ETag": f'"{digest}"', "ETag": '"of the redirect"'}
        return self.answer(302, headers | {"Location": f"{self.hub.storage}/storage/{name}?signed"}, b"Found.")

    def large(self, content: bytes) -> None:
        start = int((self.seen.range or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        start = start if self.hub.ranges else 0
        part = start > 0
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = self.hub.breaks_at.pop(0) if self.hub.breaks_at else len(content)
        halt, self.hub.stops_at = self.hub.stops_at, None
        if halt is not None:
            self.send(content[start:halt])
            self.hub.stopped.set()
            self.hub.go_on.wait(SECONDS)
            start = halt
        self.send(content[start:end])

    def send(self, content: bytes) -> None:
        try:
            self.wfile.write(content)
        except ConnectionError:
            return
        self.seen.sent += len(content)

    def answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def running_hub() -> Iterator[StubHub]:
    """Run a hub with the repository REPO."""

    class Handler(HubHandler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    Handler.hub = StubHub(f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Handler.hub
    finally:
        Handler.hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return its exit code, output and errors."""
    output, errors = process.communicate(timeout=SECONDS)
    return process.returncode, output, errors


def error_line(result: Result) -> str:
    """Return the only line of a command that failed."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def last_error(result: Result) -> str:
    """Return the last line of a command that failed after its progress bar had started."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    bar, line = result.stderr.splitlines()
    assert bar.startswith(f"{REPO} into ")
    return line.removeprefix("Error: ")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".fetched.json"}


def only(names: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in names.split()}


WANTED = only("config.json model.safetensors", WHOLE)
