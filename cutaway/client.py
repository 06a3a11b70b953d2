"""The client: models, traces, layouts and batches of a service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from cutaway.remote import Remote
from cutaway.resources import POLL, Batch, Layout, Trace
from cutaway.tensors import Cache, Tensors

URL = "http://localhost:8000"
Model = str | Mapping[str, Any]  # an id, or a full or partial configuration


class Client:
    """A Cutaway service at a URL, by default CUTAWAY_URL or http://localhost:8000.

    `api_key` is by default CUTAWAY_API_KEY. Requests are retried while the service is away or limits the rate, after
    the time in Retry-After, a minute at most. Up to `cache_bytes` of the tensors that were read are kept in memory.
    `progress` shows bars while traces and batches are computed. All methods raise RemoteError if the service cannot be
    reached, and ProblemError, which is one, if it refuses. May be used from several threads.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        cache_bytes: int = 256 << 20,
        progress: bool = False,
    ) -> None:
        self.url = (url or os.environ.get("CUTAWAY_URL") or URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: must start with http:// or https://, and is {self.url!r}.")
        self.progress = progress
        self._remote = Remote(self.url, api_key or os.environ.get("CUTAWAY_API_KEY"))
        self._cache = Cache(cache_bytes)

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def models(self) -> list[dict[str, Any]]:
        """Return all models."""
        return list(self._remote.json("/v1/models")["models"])

    def model(self, id: str) -> dict[str, Any]:
        """Return a model: its configuration, parameters, weights and vocabulary."""
        return self._remote.json(_model_path(id))

    def families(self) -> list[dict[str, Any]]:
        """Return the supported families, with the JSON Schema of their configurations."""
        return list(self._remote.json("/v1/families")["families"])

    def weights(self, model: str) -> Tensors:
        """Return the weights of a model by name, unread."""
        path = f"{_model_path(model)}/tensors"
        entries = {entry["name"]: entry for entry in self._remote.json(path)["tensors"]}
        return Tensors(path, entries, self._remote, self._cache)

    def tokenize(self, model: str, text: str | None = None, **fields: Any) -> dict[str, Any]:
        """Return the `tokens` and `pieces` of a text, or of `messages=[…]`, with any other field of the request."""
        return self._post(f"{_model_path(model)}/tokenize", _given(text=text, **fields))

    def trace(
        self,
        model: Model,
        text: str | None = None,
        *,
        tokens: Sequence[int] | None = None,
        messages: Sequence[Mapping[str, str]] | None = None,
        generate: int | Mapping[str, Any] | None = None,
        capture: str | Sequence[str] | None = None,
        wait: bool = True,
        **fields: Any,
    ) -> Trace:
        """Run a model on `text`, `tokens` or `messages` and return the trace, once it is done unless `wait` is false.

        `generate` is the number of new tokens, or the request's object (max_new_tokens, temperature, …); `capture` the
        patterns of the tensors to record; `fields` are other fields of the request. Raises UnfinishedError if the
        trace fails.
        """
        if isinstance(generate, int):
            generate = {"max_new_tokens": generate}
        if isinstance(capture, str):
            capture = [capture]
        body = _given(
            model=model, text=text, tokens=tokens, messages=messages, generate=generate, capture=capture, **fields
        )
        waits = POLL if wait and not self.progress else 0
        trace = Trace(self._post("/v1/traces", body, waits), self._remote, self._cache)
        return trace.wait(progress=self.progress) if wait else trace

    def get_trace(self, id: str) -> Trace:
        """Return the trace with this id, in its current state."""
        return Trace(self._remote.json(f"/v1/traces/{quote(id, safe='')}"), self._remote, self._cache)

    def traces(self, model: str | None = None, status: str | None = None) -> Iterator[Trace]:
        """Yield the service's traces, newest first, of a model or with a status; pages are read as they are needed."""
        query = _given(model=model, status=status, limit=100)
        while True:
            page = self._remote.json(f"/v1/traces?{urlencode(query)}")
            yield from (Trace(entry, self._remote, self._cache) for entry in page["traces"])
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def layout(
        self,
        model: Model,
        tokens: int | None = None,
        *,
        batch: int | None = None,
        style: str | None = None,
        wait: bool = True,
    ) -> Layout:
        """Return the layout of a model for a number of tokens, in the style "columns" or "llm-viz".

        It is done unless `wait` is false. Raises UnfinishedError if it fails.
        """
        body = _given(model=model, tokens=tokens, batch=batch, style=style)
        layout = Layout(self._post("/v1/layouts", body, POLL if wait else 0), self._remote, self._cache)
        return layout.wait() if wait else layout

    def batch(self, requests: Iterable[Mapping[str, Any]], *, wait: bool = True) -> Batch:
        """Compute up to 10,000 trace requests; return once every trace has ended, unless `wait` is false.

        A request is an object as in POST /v1/traces. None is computed if one is invalid: ProblemError has `errors`.
        """
        lines = b"\n".join(json.dumps(dict(request)).encode() for request in requests)
        info = self._remote.json("/v1/batches", lines, "application/x-ndjson")
        batch = Batch(self._remote.json(f"/v1/batches/{info['id']}"), self._remote, self._cache)
        return batch.wait(progress=self.progress) if wait else batch

    def _post(self, path: str, body: dict[str, Any], wait: float = 0) -> dict[str, Any]:
        return self._remote.json(path, json.dumps(body, default=_plain).encode(), wait=wait)


def _model_path(id: str) -> str:
    return f"/v1/models/{quote(id, safe='')}"


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return an array, a NumPy number or another mapping or sequence as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")
