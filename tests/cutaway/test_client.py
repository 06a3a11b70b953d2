"""The Python client, against the running service."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from safetensors.numpy import load_file
from werkzeug.wrappers import Request, Response

import cutaway.remote as remote
from cutaway import Client, ProblemError, RemoteError, Trace, UnfinishedError
from tests.serving import served

ROOT = Path(__file__).parents[2]
PATTERN = "blocks.0.attn.pattern"


@pytest.fixture
def cutaway(address: str) -> Client:
    return Client(address)


@pytest.fixture
def trace(cutaway: Client) -> Trace:
    return cutaway.trace("nano-gpt", "CBABBC", generate=6)


def answering(respond: Callable[[Request], Response]) -> AbstractContextManager[str]:
    """Serve these responses; yield the URL."""
    return served(Request.application(respond))


def test_importing_the_client_imports_nothing_of_the_service() -> None:
    source = "from cutaway import Client; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert {"cutaway", "numpy"} <= loaded
    assert loaded & {"service", "worker", "flask", "redis", "rq", "marshmallow", "click"} == set()


def test_the_client_is_a_distribution_of_its_own_without_the_service(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", ROOT / "cutaway", source], check=True)  # noqa: S607
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("cutaway_client-*-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"cutaway/{file.name}" for file in (ROOT / "cutaway").glob("*.py")} <= names
    assert "cutaway/py.typed" in names
    [metadata] = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    required = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    assert [name.partition(">")[0] for name in required] == ["numpy", "tqdm"]


def test_a_trace_is_a_mapping_from_names_to_arrays(trace: Trace, client: FlaskClient) -> None:
    assert trace.status == "done"
    assert trace.output == "ABBBCC"
    assert PATTERN in trace
    assert len(trace) == len(list(trace)) == 73
    array = trace[PATTERN]
    assert array.dtype == np.float32
    body: Any = client.get(f"/v1/traces/{trace.id}/tensors/{PATTERN}").json
    np.testing.assert_array_equal(array, np.array(body["data"], np.float32))
    np.testing.assert_array_equal(trace["blocks.0.attn.hook_pattern"], array)
    with pytest.raises(KeyError):
        trace["blocks.9.attn.pattern"]


@pytest.mark.parametrize(
    "index",
    [..., 0, -1, (0, 1), (0, slice(None), 3), (..., 2), (0, ..., slice(1, 3)), (slice(None), slice(None, None, 2))],
    ids=str,
)
def test_a_slice_is_that_of_the_array(trace: Trace, index: Any) -> None:
    np.testing.assert_array_equal(trace.tensors[PATTERN][index], trace[PATTERN][index])


@pytest.mark.parametrize("index", [3, (0, 9), (0, 0, 0, 0, 0), (..., ...), True, "0", None, [0, 1]], ids=str)
def test_an_index_that_does_not_fit_is_an_index_error(trace: Trace, index: Any) -> None:
    with pytest.raises(IndexError):
        trace.tensors[PATTERN][index]


def test_a_tensor_is_not_read_before_it_is_used_and_then_once(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = remote.Remote.read

    def counted(self: remote.Remote, path: str, media_type: str) -> bytes:
        read.append(path)
        return inner(self, path, media_type)

    monkeypatch.setattr(remote.Remote, "read", counted)
    tensor = trace.tensors[PATTERN]
    assert (tensor.shape, tensor.dtype, len(tensor), read) == ((1, 3, 11, 11), "float32", 1, [])
    first, second = trace[PATTERN], trace[PATTERN]
    assert first is second
    assert len(read) == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    np.testing.assert_array_equal(np.asarray(tensor, dtype=np.float64), first)
    assert tensor.read(dtype="float16", max_cells=100).dtype == np.float16
    assert len(read) == 2


def test_the_cache_keeps_to_its_bytes(address: str) -> None:
    small = Client(address, cache_bytes=2 * 3 * 11 * 11 * 4)
    trace = small.trace("nano-gpt", "CBABBC", generate=6)
    kept, evicted = trace[PATTERN], trace["blocks.1.attn.pattern"]
    assert trace[PATTERN] is kept
    trace["blocks.2.attn.pattern"]
    assert trace[PATTERN] is kept
    assert trace["blocks.1.attn.pattern"] is not evicted


def test_every_part_of_a_trace_is_read(trace: Trace, tmp_path: Path) -> None:
    assert trace.tokens == [2, 1, 0, 1, 1, 2]
    assert [piece["text"] for piece in trace.pieces] == list("CBABBC")
    assert [step["text"] for step in trace.generated] == list("ABBBCC")
    explanation = trace.explain("blocks.0.attn.heads.1.scores", (3, 4, 0), limit=2)
    assert (len(explanation["operands"]), explanation["total"]) == (2, 32)
    lens = trace.lens(top=1, positions="5:6")
    assert [layer["predictions"][0]["top"][0]["text"] for layer in lens["layers"]] == ["A"] * 4
    file = trace.save(tmp_path / "attention.safetensors", "blocks.0.attn.*")
    saved = load_file(file)
    np.testing.assert_array_equal(saved[PATTERN], trace[PATTERN])
    assert "logits" not in saved
    assert list(tmp_path.iterdir()) == [file]


def test_layouts_are_read_by_layers_and_saved(cutaway: Client, trace: Trace, tmp_path: Path) -> None:
    layout = cutaway.layout("nano-gpt", 11)
    assert trace.layout().id == layout.id
    assert len(layout.blocks()) == layout.info["count"]
    [first, *_] = layout.blocks(layers="1:2", fields="id,position")
    assert first == {"id": "blocks.1.ln1.mean", "position": [-36.75, 621.0, -0.75]}
    assert layout.save(tmp_path / "picture.glb").read_bytes()[:4] == b"glTF"
    with pytest.raises(ValueError, match=r"must be .glb or .safetensors"):
        layout.save(tmp_path / "picture.png")
    large = cutaway.layout("gpt3-175b", 64)
    with pytest.raises(ValueError, match="too many at once"):
        large.blocks()


def test_models_families_weights_and_tokens_are_read(cutaway: Client) -> None:
    assert "nano-gpt" in {model["id"] for model in cutaway.models()}
    assert cutaway.model("nano-gpt")["config"]["n_layer"] == 3
    assert "llama" in {family["model_type"] for family in cutaway.families()}
    assert cutaway.tokenize("nano-gpt", "CAB")["tokens"] == [2, 0, 1]
    weights = cutaway.weights("gpt3-175b")
    assert weights["h.95.mlp.c_fc.weight"].shape == (12288, 49152)
    value = weights["h.95.mlp.c_fc.weight"][12287, 49150:]
    np.testing.assert_allclose(value, [-0.027211824, -0.0050833533])


def test_traces_are_listed_and_found_by_id(cutaway: Client, trace: Trace) -> None:
    listed = next(found for found in cutaway.traces("nano-gpt", "done") if found == trace)
    assert listed.output == "ABBBCC"  # a list has only summaries: the rest is read when it is used
    assert cutaway.get_trace(trace.id).tokens == trace.tokens


def test_a_trace_is_cancelled_and_deleted(cutaway: Client) -> None:
    config = {"n_layer": 24, "n_head": 16, "n_embd": 2048}
    long = cutaway.trace(config, tokens=list(range(300)), capture="logits", wait=False)
    long.cancel()
    assert long.status == "cancelled"
    with pytest.raises(UnfinishedError, match="is cancelled"):
        long.wait()
    done = cutaway.trace("nano-gpt", "AAABBB")
    done.cancel()  # it has ended
    assert done.refresh().status == "done"
    done.delete()
    done.delete()
    with pytest.raises(ProblemError):
        done.refresh()


def test_a_batch_has_a_trace_for_each_request(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["CBABBA", "AABBCA", "CBABBA"]
    batch = Client(address, progress=True).batch({"model": "nano-gpt", "text": text} for text in texts)
    assert [trace.status for trace in batch.traces] == ["done"] * 3
    assert batch.traces[0] == batch.traces[2]
    assert ["".join(piece["text"] for piece in trace.pieces) for trace in batch.traces] == texts
    assert batch.traces[1]["logits"].shape == (1, 6, 3)
    assert "2/2" in capsys.readouterr().err


def test_a_trace_shows_its_progress(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    trace = Client(address, progress=True).trace("nano-gpt", "ABCABC", generate={"max_new_tokens": 2, "seed": 1})
    assert trace.status == "done"
    assert "nano-gpt" in capsys.readouterr().err


def test_a_problem_is_an_exception_with_its_document(cutaway: Client) -> None:
    with pytest.raises(ProblemError, match=r"text: 'D' is not allowed") as raised:
        cutaway.trace("nano-gpt", "CABD")
    error = raised.value
    assert (error.status, error.title) == (422, "Unprocessable Entity")
    assert error.errors == {"text": ["'D' is not allowed: must be one of A, B, C."]}
    assert error.problem["request_id"]
    with pytest.raises(ProblemError) as raised:
        cutaway.batch([{"model": "nano-gpt", "text": "A"}, {"model": "nano-gpt", "text": "x"}])
    assert list(raised.value.errors) == ["requests.1.text"]


@pytest.mark.parametrize(("asked", "paused"), [("1", 1), ("25", 25), ("3600", 60)])
def test_retries_wait_as_long_as_the_service_asks_up_to_a_minute(
    asked: str, paused: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    pauses: list[float] = []
    monkeypatch.setattr(remote, "sleep", pauses.append)

    def respond(request: Request) -> Response:
        keys.append(request.headers["Authorization"])
        if len(keys) == 1:
            return Response("{}", 429, {"Retry-After": asked}, content_type="application/problem+json")
        return Response('{"models": []}', content_type="application/json")

    with answering(respond) as url:
        assert Client(url, "secret").models() == []
    assert pauses == [paused]
    assert keys == ["Bearer secret"] * 2


def test_equal_traces_have_equal_hashes(cutaway: Client, trace: Trace) -> None:
    assert {trace, cutaway.get_trace(trace.id)} == {trace}
    assert trace != cutaway.trace("nano-gpt", "CBA")


def test_a_download_that_breaks_off_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MAX_PAUSE", 0.0)
    sent: list[bytes] = []

    def respond(request: Request) -> Response:
        sent.append(b"long" if not sent else b"long enough")
        response = Response(sent[-1], content_type="application/x-safetensors")
        response.headers["Content-Length"] = "11"
        return response

    with answering(respond) as url:
        remote.Remote(url).download("/file", "application/x-safetensors", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"long enough"
    assert len(sent) == 2


def test_a_service_that_is_away_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MAX_PAUSE", 0.0)
    with pytest.raises(RemoteError, match=r"http://127.0.0.1:9 cannot be reached: Connection refused"):
        Client("http://127.0.0.1:9").models()
    with pytest.raises(ValueError, match="must start with http"):
        Client("localhost:8000")


def test_the_package_has_every_name_that_it_lists() -> None:
    import cutaway

    for name in cutaway.__all__:
        assert getattr(cutaway, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        cutaway.Clients  # noqa: B018
