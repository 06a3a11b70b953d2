"""Settings of the worker, read from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

_STORE = re.compile(r"|s3://[^/@?#]+(/[^@?#]*)?|file:///.+|(?!\w+:/).+")  # none, a bucket, a folder


class Bound(NamedTuple):
    """The limit on the size of a result, and the variable that sets it."""

    bytes: int
    variable: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """URLs of the two Redis servers, and limits. Times are in seconds, sizes in bytes."""

    queue_url: str = "redis://127.0.0.1:6379/0"  # jobs: must not evict (noeviction, append-only file)
    cache_url: str = "redis://127.0.0.1:6380/0"  # results: may evict (maxmemory, allkeys-lru)
    models_dir: str = "models"  # each folder and GGUF file in it is a checkpoint; empty: no local checkpoints
    trace_store: str = ""  # archive of large results: s3://bucket/prefix or a folder; empty: none
    trace_store_above: int = 64 << 20  # results larger than this are archived
    max_stored_bytes: int = 1 << 38  # limit of an archived trace
    max_trace_bytes: int = 1 << 30  # limit of a cached trace
    max_work_bytes: int = 4 << 30  # limit of the memory for the values of a trace
    max_trace_seconds: int = 86400
    held_weights_bytes: int = 2 << 30  # models up to this size keep their weights in memory between passes
    layout_timeout: int = 120  # time limit of placing the blocks of the largest model
    result_ttl: int = 7 * 86400  # how long a finished request can be recomputed if the cache evicted it
    failure_ttl: int = 86400

    def __post_init__(self) -> None:
        if not _STORE.fullmatch(self.trace_store):  # the value is not in the message, as it may contain a password
            credentials = "set credentials with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise ValueError(f"TRACE_STORE must be s3://bucket/prefix or a folder; {credentials}.")

    def bound(self, size: int) -> Bound:
        """Return the limit that applies to a result of `size` bytes: that of the cache or of the trace store."""
        if self.trace_store and size > self.trace_store_above:
            return Bound(self.max_stored_bytes, "MAX_STORED_BYTES")
        return Bound(self.max_trace_bytes, "MAX_TRACE_BYTES")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read each field from the variable with its name in capitals. Raises ValueError if one is not an integer."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            text = environ.get(field.name.upper())
            if text is None:
                continue
            if isinstance(field.default, int) and not (text.isascii() and text.isdigit()):
                raise ValueError(f"{field.name.upper()} must be a non-negative integer, not {text!r}.")
            values[field.name] = int(text) if isinstance(field.default, int) else text
        return cls(**values)
