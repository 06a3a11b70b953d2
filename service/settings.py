"""What a deployment may set for the service, on top of what it sets for the work."""

from __future__ import annotations

from dataclasses import dataclass

import worker.settings


@dataclass(frozen=True, kw_only=True)
class Settings(worker.settings.Settings):
    """The bounds of a request. Times are in seconds, sizes in bytes."""

    cors_origins: str = "*"  # who may read from a browser, separated by commas
    max_body_bytes: int = 8 << 20
    max_export_bytes: int = 1 << 30  # of a model or a trace in another program's format
    max_wait: int = 60  # the longest that `Prefer: wait` holds a request
    max_streams: int = 32  # of events that a process of the API has open at the same time
