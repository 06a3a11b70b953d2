"""What a deployment may set for the service, on top of what it sets for the work."""

from __future__ import annotations

from dataclasses import dataclass, field

import worker.settings


@dataclass(frozen=True, kw_only=True)
class Settings(worker.settings.Settings):
    """The bounds of a request. Times are in seconds, sizes in bytes."""

    cors_origins: str = "*"  # who may read from a browser, separated by commas
    max_body_bytes: int = 8 << 20
    max_export_bytes: int = 1 << 30  # of a model or a trace in another program's format
    max_wait: int = 60  # the longest that `Prefer: wait` holds a request
    max_waits: int = 32  # requests that a process of the API holds so; what is more is answered at once
    max_kept_bytes: int = 64 << 20  # of finished answers that a process of the API keeps, to give them again
    max_streams: int = 32  # of events that a process of the API has open at the same time
    max_prompt_bytes: int = 1 << 20  # of a prompt that is text
    max_prompt_tokens: int = 100_000  # of any prompt
    max_batch: int = 10_000  # requests
    max_queued: int = 20_000  # jobs that wait; 0 is no bound, here and below
    max_concurrent: int = 0  # unfinished requests of a caller: of a key, or of an address where there are no keys
    rate_limit: str = ""  # how often a caller may ask for something to be computed, as in 600/minute
    api_keys: str = field(default="", repr=False)  # who may ask, separated by commas: name:key, or key
    api_keys_file: str = ""  # the same, a line each
    trusted_proxies: int = 0  # how many, each in front of the next, tell us the address of who asked
