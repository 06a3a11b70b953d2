"""`cutaway fetch` against a hub on loopback that answers, and fails, as the real one does."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner, Result

from service.__main__ import main

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


@dataclass
class Asked:
    method: str
    host: str
    path: str
    range: str | None
    token: str | None
    sent: int = 0


@dataclass
class StubHub:
    """Files of repositories, at the endpoints and with the headers of huggingface.co; large ones on another host."""

    url: str
    storage: str
    repos: dict[str, dict[str, bytes]] = field(default_factory=lambda: {REPO: WHOLE})
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)  # by the beginning of a path
    stated: dict[str, tuple[int, str]] = field(default_factory=dict)  # what is said of a large file, if not the truth
    stops_at: int | None = None  # the next large file halts there until `go_on`
    breaks_at: list[int] = field(default_factory=list)  # the next answers with large files end there
    ranges: bool = True
    asked: list[Asked] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path.startswith("/storage/")]


class Answering(BaseHTTPRequestHandler):
    hub: StubHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        host, token = self.headers["Host"], self.headers["Authorization"]
        self.request_seen = Asked(self.command, host, path, self.headers["Range"], token)
        self.hub.asked.append(self.request_seen)
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
        start = int((self.request_seen.range or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
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
        self.request_seen.sent += len(content)

    def answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[StubHub]:
    class Handler(Answering):
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


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def variables(hub: StubHub, models: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {"HF_ENDPOINT": hub.url, "MODELS_DIR": str(models), "no_proxy": "*"}


Run = Callable[..., Result]


@pytest.fixture
def run(variables: dict[str, str]) -> Run:
    """The command in this process."""
    ours = {name: None for name in os.environ if name.startswith("HF_")} | variables
    return lambda *words, **more: CliRunner().invoke(main, ["fetch", *words], env=ours | more)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(variables: dict[str, str]) -> Iterator[Start]:
    """The command in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, limit: int | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "service", "fetch", *words]
        if limit is not None:  # of the size of a file, in bytes
            source = "import os, resource, sys; limit = int(sys.argv[1]); "
            source += "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"
            source += "; os.execv(sys.argv[2], sys.argv[2:])"
            command = [sys.executable, "-c", source, str(limit), *command]
        started.append(
            subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ends(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    printed, said = process.communicate(timeout=SECONDS)
    return process.returncode, printed, said


def refused(result: Result) -> str:
    """The only line of a command that failed."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def last_words(result: Result) -> str:
    """The last line of a command that failed when the bar had begun."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    began, line = result.stderr.splitlines()
    assert began.startswith(f"{REPO} into ")
    return line.removeprefix("Error: ")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".fetched.json"}


def only(names: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in names.split()}


WANTED = only("config.json model.safetensors", WHOLE)


def test_a_checkpoint_comes_whole_and_nothing_else_with_it(hub: StubHub, models: Path, run: Run) -> None:
    result = run(REPO)

    assert (result.exit_code, result.stdout) == (0, f"{models}/gpt2 is complete: {REPO} at 607a30d, 3.0 MB\n")
    assert os.listdir(models) == ["gpt2"]
    assert content(models / "gpt2") == WANTED
    assert not [asked.path for asked in hub.asked if any(name in asked.path for name in OTHERS)]


def test_what_came_from_where_is_recorded(models: Path, run: Run) -> None:
    run(REPO)

    record = json.loads((models / "gpt2" / ".fetched.json").read_text())
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    files = {"model.safetensors": {"size": len(WEIGHTS), "sha256": digest}}
    assert record == {"repo": REPO, "revision": "main", "commit": COMMIT, "files": files}


def test_shards_come_with_their_index(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos[REPO] = SHARDED
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == only(" ".join(("config.json model.safetensors.index.json", *SHARDS)), SHARDED)


def test_one_file_is_preferred_to_shards(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos[REPO] = SHARDED | WHOLE
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_second_fetch_asks_nobody(hub: StubHub, models: Path, run: Run) -> None:
    run(REPO)
    hub.asked.clear()
    for again in (run(REPO), run(REPO, "--revision", COMMIT)):
        assert (again.exit_code, again.output) == (0, f"{models}/gpt2 is complete already: {REPO} at 607a30d\n")
    assert hub.asked == []


def test_a_revision_and_a_name(hub: StubHub, models: Path, run: Run) -> None:
    assert run(REPO, "--revision", "refs/pr/1", "--name", "tried").exit_code == 0
    assert hub.asked[0].path == f"/api/models/{REPO}/revision/refs/pr/1"
    assert {asked.path.split("/")[4] for asked in hub.asked if "/resolve/" in asked.path} == {COMMIT}
    assert os.listdir(models) == ["tried"]


def test_an_empty_folder_is_as_good_as_none(models: Path, run: Run) -> None:
    (models / "gpt2").mkdir(parents=True)
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_only_the_hub_is_told_who_asks(hub: StubHub, run: Run) -> None:
    run(REPO, **{"HF_TOKEN": "a token"})
    assert {(asked.host.partition(":")[0], asked.token) for asked in hub.asked} == {
        ("127.0.0.1", "Bearer a token"),
        ("localhost", None),
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_was_stopped_goes_on_where_it_was(
    hub: StubHub, models: Path, start: Start, number: signal.Signals
) -> None:
    hub.stops_at = 2_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    (folder,) = (models / ".fetching").iterdir()
    (part,) = folder.iterdir()
    deadline = time.monotonic() + SECONDS
    while part.stat().st_size < 1_900_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.listdir(models) == [".fetching"]

    process.send_signal(number)
    status, printed, said = ends(process)
    held = part.stat().st_size
    hub.go_on.set()

    assert printed == ""
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert status == 130
        assert said.splitlines()[-1] == "Stopped. 2.0 MB of 3.0 MB are here; the same command goes on from there."
    assert ends(start(REPO))[0] == 0
    again = hub.downloads()[1:]
    assert [(asked.range, asked.sent) for asked in again] == [(f"bytes={held}-", len(WEIGHTS) - held)]
    assert os.listdir(models) == ["gpt2"]
    assert content(models / "gpt2") == WANTED


def test_a_shard_that_is_here_is_not_asked_for_again(hub: StubHub, models: Path, start: Start) -> None:
    hub.repos[REPO] = SHARDED
    first, second = SHARDS
    assert ends(start(REPO))[0] == 0
    shutil.move(models / "gpt2", models / "before")
    hub.asked.clear()

    staged = models / ".fetching" / "gpt2"
    staged.mkdir(parents=True)
    shutil.copy(models / "before" / first, staged / f"{first}.{hashlib.sha256(SHARDS[first]).hexdigest()}")
    (staged / f"{second}.of-another-commit").write_bytes(b"old")

    assert ends(start(REPO))[0] == 0
    assert [asked.path for asked in hub.downloads()] == [f"/storage/{second}"]
    assert content(models / "gpt2") == content(models / "before")


def test_a_connection_that_breaks_is_taken_up_again(hub: StubHub, models: Path, run: Run) -> None:
    hub.breaks_at = [1_000_000, 2_500_000]
    assert run(REPO).exit_code == 0
    assert [asked.range for asked in hub.downloads()] == [None, "bytes=1000000-", "bytes=2500000-"]
    assert content(models / "gpt2") == WANTED


def test_a_hub_without_ranges_gives_the_file_anew(hub: StubHub, models: Path, run: Run) -> None:
    hub.ranges, hub.breaks_at = False, [1_000_000]
    assert run(REPO).exit_code == 0
    assert [asked.sent for asked in hub.downloads()] == [1_000_000, len(WEIGHTS)]
    assert content(models / "gpt2") == WANTED


def test_a_hub_that_goes_away_leaves_what_came(
    hub: StubHub, models: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.breaks_at = [1_000_000] + [0] * 50
    kept = "1.0 MB of 3.0 MB are here; the same command goes on from there."
    assert last_words(run(REPO)) == f"{hub.url} broke off in model.safetensors. {kept}"
    hub.refuses["/storage/"] = (503, "")
    assert last_words(run(REPO)) == f"{hub.url} answers 503 Service Unavailable. {kept}"
    assert os.listdir(models) == [".fetching"]
    hub.refuses.clear()
    hub.breaks_at.clear()
    assert run(REPO).exit_code == 0
    assert hub.downloads()[-1].range == "bytes=1000000-"


@pytest.mark.parametrize(
    "stated",
    [
        (len(WEIGHTS), "0" * 64),
        (len(WEIGHTS) - 1, hashlib.sha256(WEIGHTS).hexdigest()),
        (len(WEIGHTS) - 1, "not a digest"),
    ],
)
def test_what_is_not_what_the_hub_states_is_refused_and_deleted(
    hub: StubHub, models: Path, run: Run, stated: tuple[int, str]
) -> None:
    hub.stated["model.safetensors"] = stated
    line = f"model.safetensors is not what {hub.url} says it is, by its size or SHA-256; it is deleted."
    assert last_words(run(REPO)) == line
    assert [file.stat().st_size for file in models.rglob("*") if file.is_file()] in ([], [0])
    hub.stated.clear()
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_beginning_that_was_spoilt_meanwhile_is_noticed(hub: StubHub, models: Path, run: Run) -> None:
    staged = models / ".fetching" / "gpt2"
    staged.mkdir(parents=True)
    (staged / f"model.safetensors.{hashlib.sha256(WEIGHTS).hexdigest()}").write_bytes(b"spoilt")
    assert "SHA-256" in last_words(run(REPO))
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


def test_a_hub_that_states_no_checksum_is_believed_the_size(hub: StubHub, models: Path, run: Run) -> None:
    hub.stated["model.safetensors"] = (len(WEIGHTS), "W/none")
    assert run(REPO).exit_code == 0
    assert content(models / "gpt2") == WANTED


ASK = "set HF_TOKEN to the token of an account that may read it."
INFO, RESOLVE = f"/api/models/{REPO}", f"/{REPO}/resolve"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nobody/nothing"], f"HUB has no nobody/nothing; if it is private, {ASK}"),
        ([REPO, "--revision", "v9"], f"{REPO} has no revision 'v9'."),
        (["../gpt2"], "'../gpt2' is no repository: one is called like openai-community/gpt2."),
        (["a/b/c"], "'a/b/c' is no repository: one is called like openai-community/gpt2."),
        (
            ["https://huggingface.co/gpt2"],
            "'https://huggingface.co/gpt2' is no repository: one is called like openai-community/gpt2.",
        ),
        ([""], "'' is no repository: one is called like openai-community/gpt2."),
        (
            [REPO, "--name", "../gpt2"],
            "'../gpt2' cannot be the name of a model's folder: letters, digits, '-', '_' and '.' can.",
        ),
        (
            [REPO, "--name", ".fetching"],
            "'.fetching' cannot be the name of a model's folder: letters, digits, '-', '_' and '.' can.",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_line(
    hub: StubHub, models: Path, run: Run, words: list[str], line: str
) -> None:
    assert refused(run(*words)).replace(hub.url, "HUB") == line
    assert not models.exists()


@pytest.mark.parametrize(
    ("path", "status", "code", "line"),
    [
        (RESOLVE, 403, "GatedRepo", f"{REPO} is gated: accept its terms at HUB/{REPO}, then {ASK}"),
        (RESOLVE, 401, "GatedRepo", f"{REPO} is gated: accept its terms at HUB/{REPO}, then {ASK}"),
        (INFO, 401, "", f"HUB does not give {REPO} (401): if it is there, {ASK}"),
        (INFO, 403, "", f"HUB does not give {REPO} (403): if it is there, {ASK}"),
        (INFO, 404, "", f"HUB has no {REPO}; if it is private, {ASK}"),
        (INFO, 429, "", "HUB answers 429 Too Many Requests."),
        (INFO, 500, "", "HUB answers 500 Internal Server Error."),
        (RESOLVE, 404, "EntryNotFound", "HUB answers 404 Not Found."),
        (INFO, 200, "", "HUB does not answer as a Hugging Face hub does."),
    ],
)
def test_what_a_hub_refuses_is_said_in_a_line(
    hub: StubHub, models: Path, run: Run, path: str, status: int, code: str, line: str
) -> None:
    hub.refuses[path] = (status, code)
    assert refused(run(REPO)).replace(hub.url, "HUB") == line
    assert not models.exists()


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (OTHERS, "is no checkpoint: it has no config.json."),
        ({"config.json": CONFIG} | OTHERS, "has no model.safetensors; other formats are not read."),
        (WHOLE | {"config.json": b'{"model_type": "llama"}'}, "is of the type 'llama': only 'gpt2' is read."),
        (WHOLE | {"config.json": b"[]"}, "is no checkpoint: its config.json holds no JSON object."),
        (WHOLE | {"config.json": b"\xff"}, "is no checkpoint: its config.json holds no JSON object."),
        (
            {k: v for k, v in SHARDED.items() if "00002-of" not in k},
            "is not whole: model.safetensors.index.json names 'model-00002-of-00002.safetensors'.",
        ),
        (
            SHARDED | {"model.safetensors.index.json": b'{"weight_map": {"wte.weight": "../gpt2/pytorch_model.bin"}}'},
            "is not whole: model.safetensors.index.json names '../gpt2/pytorch_model.bin'.",
        ),
        (
            SHARDED | {"model.safetensors.index.json": b'{"weight_map": {}}'},
            "is not whole: model.safetensors.index.json names no file.",
        ),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_not_fetched(
    hub: StubHub, models: Path, run: Run, files: dict[str, bytes], line: str
) -> None:
    hub.repos[REPO] = files
    assert refused(run(REPO)) == f"{REPO} {line}"
    assert not models.exists()
    assert hub.downloads() == []


@pytest.mark.parametrize("endpoint", ["hub.example.com", "file:///etc", "http://"])
def test_a_hub_is_an_address(run: Run, endpoint: str) -> None:
    line = f"HF_ENDPOINT={endpoint!r}: an address like https://huggingface.co is expected."
    assert refused(run(REPO, HF_ENDPOINT=endpoint)) == line


def test_without_a_network_it_says_so(start: Start, variables: dict[str, str]) -> None:
    variables["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert ends(start(REPO)) == (1, "", "Error: http://127.0.0.1:9 cannot be reached: Connection refused.\n")


def test_a_name_that_is_taken_stays_as_it_is(hub: StubHub, models: Path, run: Run) -> None:
    hub.repos["me/gpt2"] = WHOLE
    run(REPO)
    hub.asked.clear()
    remedy = "give another --name, or remove it first."
    held = f"{models}/gpt2 is taken by {REPO} at main (607a30d): {remedy}"
    assert refused(run("me/gpt2")) == held
    assert refused(run(REPO, "--revision", "refs/pr/1")) == held
    (models / "mine").mkdir()
    (models / "mine" / "config.json").write_bytes(CONFIG)
    assert refused(run(REPO, "--name", "mine")) == f"{models}/mine is taken by something that was not fetched: {remedy}"
    (models / "file").write_text("")
    assert refused(run(REPO, "--name", "file")) == f"{models}/file is taken by something that was not fetched: {remedy}"
    assert hub.asked == []


def test_a_model_that_has_lost_a_file_is_not_called_complete(models: Path, run: Run) -> None:
    run(REPO)
    (models / "gpt2" / "model.safetensors").write_bytes(b"")
    line = f"{models}/gpt2 is not whole any more: model.safetensors is missing or cut. Remove it first."
    assert refused(run(REPO)) == line


def test_two_fetches_of_a_name_do_not_meet(hub: StubHub, models: Path, start: Start, run: Run) -> None:
    hub.stops_at = 1_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    assert refused(run(REPO)) == f"Another fetch into {models}/gpt2 is under way."
    hub.go_on.set()
    assert ends(process)[0] == 0
    assert content(models / "gpt2") == WANTED


def test_a_name_that_is_taken_meanwhile_stays_as_it_is(hub: StubHub, models: Path, start: Start) -> None:
    hub.stops_at = 1_000_000
    process = start(REPO)
    assert hub.stopped.wait(SECONDS)
    (models / "gpt2").mkdir()
    (models / "gpt2" / "config.json").write_bytes(b"mine")
    hub.go_on.set()
    status, _, said = ends(process)
    assert status == 1
    assert said.splitlines()[-1].startswith(f"Error: {models}/gpt2 is taken by something that came while")
    assert content(models / "gpt2") == {"config.json": b"mine"}

    shutil.rmtree(models / "gpt2")
    assert ends(start(REPO))[0] == 0
    assert len(hub.downloads()) == 1
    assert content(models / "gpt2") == WANTED


def test_what_the_disk_has_no_room_for_is_not_begun(hub: StubHub, models: Path, run: Run) -> None:
    hub.stated["model.safetensors"] = (10**18, "0" * 64)
    line = refused(run(REPO))
    assert line.startswith(f"1000000000.0 GB are to come, and {models} has room for ")
    assert hub.downloads() == []
    assert list(models.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_line_and_goes_on_later(hub: StubHub, models: Path, start: Start) -> None:
    status, printed, said = ends(start(REPO, limit=2_000_000))
    assert (status, printed) == (1, "")
    kept = "2.0 MB of 3.0 MB are here; the same command goes on from there."
    assert said.splitlines()[1:] == [f"Error: {models}/.fetching/gpt2: File too large. {kept}"]
    assert ends(start(REPO))[0] == 0
    assert hub.downloads()[-1].range == "bytes=2000000-"
    assert content(models / "gpt2") == WANTED


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    line = refused(run(REPO, MODELS_DIR=str(tmp_path / "file")))
    assert line == f"{tmp_path}/file/.fetching/gpt2: Not a directory"


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A terminal, and what was written to it."""
    ours, theirs = pty.openpty()
    written = b""

    def read() -> None:
        nonlocal written
        try:
            while piece := os.read(ours, 1 << 16):
                written += piece
        except OSError:
            pass  # its other side is closed

    reader = threading.Thread(target=read)
    reader.start()

    def all_of_it() -> str:
        os.close(theirs)
        reader.join(SECONDS)
        return written.decode()

    yield theirs, all_of_it
    os.close(ours)


def test_a_terminal_sees_a_bar(hub: StubHub, models: Path, variables: dict[str, str]) -> None:
    hub.breaks_at = [1_000_000]
    with terminal() as (file, written):
        subprocess.run(
            [sys.executable, "-m", "service", "fetch", REPO],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=file,
            check=True,
            timeout=SECONDS,
        )
        drawn = written().replace("\r\n", "\n").split("\r")
    assert any("1.0 MB, " in line for line in drawn)
    assert "100%  3.0 MB, " in drawn[-1]


def test_the_service_starts_without_it() -> None:
    source = "import service.app, sys; service.app.create_app(); sys.exit('service.commands.fetch' in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)
