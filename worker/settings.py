"""What a deployment may set for the work, read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

_STORE = re.compile(r"|s3://[^/@?#]+(/[^@?#]*)?|file:///.+|(?!\w+:/).+")  # none, a bucket, a folder


class Bound(NamedTuple):
    """How many bytes a result may have, and the variable that says so."""

    bytes: int
    variable: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Redis' two roles and the bounds of the work. Times are in seconds, sizes in bytes."""

    queue_url: str = "redis://127.0.0.1:6379/0"  # jobs: must not evict (noeviction, append-only file)
    cache_url: str = "redis://127.0.0.1:6380/0"  # results: may evict (maxmemory, allkeys-lru)
    models_dir: str = "models"  # whose folders are checkpoints; none are looked for where it is empty
    trace_store: str = ""  # where larger results are kept: s3://bucket/prefix, or a folder; nowhere where it is empty
    trace_store_above: int = 64 << 20  # what is larger
    max_stored_bytes: int = 1 << 38  # of a trace that is kept there
    max_trace_bytes: int = 1 << 30  # of another one
    max_work_bytes: int = 4 << 30  # of memory that a trace's values take at once
    max_trace_seconds: int = 86400
    held_weights_bytes: int = 2 << 30  # models up to this size keep their weights from pass to pass
    layout_timeout: int = 120  # seconds that placing the blocks of the largest model may take
    result_ttl: int = 7 * 86400  # how long a finished request can be recomputed when the cache lost it
    failure_ttl: int = 86400

    def __post_init__(self) -> None:
        if not _STORE.fullmatch(self.trace_store):  # it may hold a password, so it is not told
            wanted = "s3://bucket/prefix or a folder is expected; who may enter is said by AWS_ACCESS_KEY_ID and so on."
            raise ValueError(f"TRACE_STORE: {wanted}")

    def bound(self, size: int) -> Bound:
        """What bounds a result of `size` bytes: the cache holds it, or the trace store does."""
        if self.trace_store and size > self.trace_store_above:
            return Bound(self.max_stored_bytes, "MAX_STORED_BYTES")
        return Bound(self.max_trace_bytes, "MAX_TRACE_BYTES")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Each field from the variable of its name in capitals. Raises ValueError, naming a bad variable."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            text = environ.get(field.name.upper())
            if text is None:
                continue
            if isinstance(field.default, int) and not (text.isascii() and text.isdigit()):
                raise ValueError(f"{field.name.upper()}={text!r}: a whole number is expected.")
            values[field.name] = int(text) if isinstance(field.default, int) else text
        return cls(**values)
