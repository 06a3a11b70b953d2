"""Traces, layouts and batches of a service."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from numpy.typing import NDArray
from tqdm.auto import tqdm

from cutaway.remote import Remote
from cutaway.tensors import Cache, Tensors

UNFINISHED = ("queued", "running")
SAFETENSORS = "application/x-safetensors"
LAYOUT_FORMATS = {".glb": "model/gltf-binary", ".safetensors": SAFETENSORS}
POLL = 20.0  # seconds that one request waits for a result
_POLL_WITH_BAR = 0.5
_PAUSE = 0.1  # seconds after a request that was not allowed to wait


class UnfinishedError(Exception):
    """A trace or layout failed, was cancelled, or is not done in time; `info` is its last state."""

    def __init__(self, message: str, info: dict[str, Any]) -> None:
        super().__init__(message)
        self.info = info


class Resource:
    """Something that the service computes: it is known by its id at once, and done later."""

    collection = ""

    def __init__(self, info: dict[str, Any], remote: Remote, cache: Cache) -> None:
        self.info, self._remote, self._cache = info, remote, cache

    @property
    def id(self) -> str:
        """The SHA-256 of the request: the same request has the same id."""
        return str(self.info["id"])

    @property
    def status(self) -> str:
        """The last known status: queued, running, done, failed or cancelled. `refresh` reads it again."""
        return str(self.info["status"])

    @property
    def path(self) -> str:
        return f"/v1/{self.collection}/{self.id}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:12]}… {self.status}>"

    def refresh(self, wait: float = 0) -> Self:
        """Read the state again, after waiting up to `wait` seconds until it is done. Raises RemoteError."""
        self.info = self._remote.json(self.path, wait=wait)
        return self

    def wait(self, timeout: float | None = None, progress: bool = False) -> Self:
        """Wait until it is done; `progress` shows a bar.

        Raises UnfinishedError if it failed or was cancelled, or is not done after `timeout` seconds; RemoteError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with tqdm(desc=str(self.info.get("model", self.collection)), disable=not progress) as bar:
            while self.status in UNFINISHED:
                left = POLL if deadline is None else max(deadline - time.monotonic(), 0)
                if not left:
                    raise UnfinishedError(f"{self.path} is {self.status} after {timeout:g} seconds.", self.info)
                started = time.monotonic()
                self.refresh(min(left, _POLL_WITH_BAR if progress else POLL))
                _show(bar, self.info.get("progress"))
                if self.status in UNFINISHED and time.monotonic() - started < _PAUSE:
                    time.sleep(_PAUSE)  # the service has too many waiting clients and returned at once
        if self.status != "done":
            reason = (self.info.get("error") or {}).get("detail", "")
            raise UnfinishedError(f"{self.path} is {self.status}{reason and ': '}{reason}", self.info)
        return self

    def _done(self) -> dict[str, Any]:
        return self.wait().info


class Trace(Resource, Mapping[str, NDArray[Any]]):
    """Every intermediate value of an inference: a mapping from the names of tensors to NumPy arrays.

    Nothing is read before it is used. `trace["blocks.0.attn.pattern"]` reads a tensor, and
    `trace.tensors["blocks.0.attn.pattern"][0, 3]` only that slice. Arrays are read-only, because they are cached.
    """

    collection = "traces"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.tensors[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def tensors(self) -> Tensors:
        """The tensors by name, unread: shape, dtype, slices."""
        return Tensors(f"{self.path}/tensors", self._done()["tensors"], self._remote, self._cache)

    @property
    def tokens(self) -> list[int]:
        """The ids of the tokens of the prompt."""
        return list(self._full()["tokens"])

    @property
    def pieces(self) -> list[dict[str, Any]]:
        """The tokens of the prompt with their texts."""
        return list(self._full()["pieces"])

    @property
    def output(self) -> str | None:
        """The generated text; None for a model without a vocabulary."""
        text: str | None = self._done()["output"]
        return text

    @property
    def generated(self) -> list[dict[str, Any]]:
        """The generated tokens: position, token, text, probability and the likeliest others."""
        return list(self._done()["generated"])

    def explain(self, block: str, cell: tuple[int, int, int], limit: int | None = None) -> dict[str, Any]:
        """Return how a cell of a block of the layout was computed: value, formula and operands. Raises RemoteError."""
        return self._get("explain", block=block, cell=",".join(map(str, cell)), limit=limit)

    def lens(
        self, top: int = 5, layers: str | None = None, positions: str | None = None, attention: str | None = None
    ) -> dict[str, Any]:
        """Return the logit lens: what each layer would predict if it were the last. Raises RemoteError.

        `layers` and `positions` are ranges as text ("0:4"); `attention="rollout"` adds the attention rollout.
        """
        self.wait()
        while True:
            lens = self._get("lens", top=top, layers=layers, positions=positions, attention=attention)
            if lens["status"] == "done":
                return lens
            if lens["status"] not in UNFINISHED:
                raise UnfinishedError(f"The lens of {self.path} is {lens['status']}.", lens)
            time.sleep(_PAUSE)

    def layout(self) -> Layout:
        """Return the layout of this trace. Raises RemoteError."""
        return Layout(self._remote.json(self._done()["layout"], wait=POLL), self._remote, self._cache)

    def save(self, file: str | Path, tensors: str | None = None) -> Path:
        """Download the tensors that match a pattern, or all, as one safetensors file. Raises RemoteError or OSError."""
        self.wait()
        query = f"?{urlencode({'tensors': tensors})}" if tensors else ""
        self._remote.download(f"{self.path}/safetensors{query}", SAFETENSORS, Path(file))
        return Path(file)

    def cancel(self) -> None:
        """Cancel the trace if it is queued or running; one that has ended is left as it is. Raises RemoteError."""
        if self.refresh().status in UNFINISHED:
            self._remote.delete(self.path)
            self.refresh()

    def delete(self) -> None:
        """Delete the trace from the service, whether it has ended or not. Raises RemoteError."""
        self._remote.delete(self.path)

    def _full(self) -> dict[str, Any]:
        if "tokens" not in self.info:  # it is from a list or a batch
            self.refresh()
        return self.info

    def _done(self) -> dict[str, Any]:
        if self.wait().status == "done" and "tensors" not in self.info:
            self.refresh()
        return self.info

    def _get(self, part: str, **query: Any) -> dict[str, Any]:
        chosen = {name: value for name, value in query.items() if value is not None}
        return self._remote.json(f"{self.path}/{part}?{urlencode(chosen)}", wait=POLL)


class Layout(Resource):
    """The place of every matrix of a model in a 3D picture."""

    collection = "layouts"

    def blocks(self, layers: str | None = None, fields: str | None = None) -> list[dict[str, Any]]:
        """Return the blocks, in order of computation, of a range of layers ("0:4") and with the chosen fields.

        Raises ValueError if there are more than the service returns as JSON, or RemoteError.
        """
        self.wait()
        query = {name: value for name, value in {"layers": layers, "fields": fields}.items() if value}
        found = self._remote.json(f"{self.path}?{urlencode(query)}" if query else self.path, wait=POLL)["blocks"]
        if found is None:
            raise ValueError(f"{self.info['count']:,} blocks are too many at once: choose layers, or save() it.")
        return list(found)

    def save(self, file: str | Path) -> Path:
        """Download the layout as a file; the suffix .glb or .safetensors selects the format.

        Raises ValueError for another suffix, RemoteError or OSError.
        """
        file = Path(file)
        if file.suffix not in LAYOUT_FORMATS:
            raise ValueError(f"{file.name}: the suffix must be {' or '.join(LAYOUT_FORMATS)}.")
        self.wait()._remote.download(self.path, LAYOUT_FORMATS[file.suffix], file)
        return file


class Batch:
    """Many traces in one request."""

    def __init__(self, info: dict[str, Any], remote: Remote, cache: Cache) -> None:
        self.info, self._remote = info, remote
        #: In the order of the requests; equal requests are the same trace.
        self.traces = [Trace(dict(entry), remote, cache) for entry in info["traces"]]

    @property
    def id(self) -> str:
        return str(self.info["id"])

    def __repr__(self) -> str:
        return f"<Batch {self.id[:12]}… of {len(self.traces)}>"

    def wait(self, progress: bool = False) -> Batch:
        """Wait until every trace has ended, done or not; `progress` shows a bar. Raises RemoteError."""
        ids = {trace.id for trace in self.traces}
        with tqdm(total=len(ids), desc="traces", unit="", disable=not progress) as bar:
            for name, data in self._remote.events(f"/v1/batches/{self.id}/events"):
                if name == "trace" and data["id"] in ids:
                    ids.remove(data["id"])
                    bar.update()
            self.info = self._remote.json(f"/v1/batches/{self.id}")
            bar.update(bar.total - bar.n if bar.total else 0)
        for trace, entry in zip(self.traces, self.info["traces"], strict=True):
            trace.info |= entry
        return self

    def cancel(self) -> None:
        """Cancel the traces that have not ended. Raises RemoteError."""
        self._remote.delete(f"/v1/batches/{self.id}")


def _show(bar: tqdm[Any], progress: dict[str, Any] | None) -> None:
    if progress:
        bar.total, bar.n, bar.unit = progress["total"], progress["done"], f" {progress['unit']}"
        bar.refresh()
