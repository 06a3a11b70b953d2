"""Settings of the service, in addition to the worker's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import worker.settings

_HOST = re.compile(r"\*|[\w.-]+|[0-9a-f:]*:[0-9a-f:.]*")  # all, a name or an IPv4 address, an IPv6 address


@dataclass(frozen=True, kw_only=True)
class Settings(worker.settings.Settings):
    """The settings of the service. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"  # the address that the API listens on
    allowed_hosts: str = ""  # host names of requests beside this machine's own, separated by commas; * allows all
    cors_origins: str = ""  # origins whose pages may do everything, separated by commas; without any, all may read
    max_body_bytes: int = 8 << 20
    max_export_bytes: int = 1 << 30  # of a model or a trace in another program's format
    max_wait: int = 60  # the longest that `Prefer: wait` delays a response
    max_waits: int = 32  # requests that may wait at a time in each API process; others are answered at once
    max_kept_bytes: int = 64 << 20  # of the response cache of each API process
    max_streams: int = 32  # of events that may be open at a time in each API process
    max_prompt_bytes: int = 1 << 20  # of a prompt given as text
    max_prompt_tokens: int = 100_000  # of any prompt
    max_batch: int = 10_000  # requests
    max_queued: int = 20_000  # jobs; 0 is no limit, here and below
    max_concurrent: int = 0  # unfinished requests of a client: of an API key or, if there are none, an address
    rate_limit: str = ""  # how often a client may request a computation, such as 600/minute
    api_keys: str = field(default="", repr=False)  # as name:key or key, separated by commas
    api_keys_file: str = ""  # a file of the same, one a line
    trusted_proxies: int = 0  # reverse proxies in a row whose X-Forwarded-For is trusted

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = next((host for host in self.hosts if not _HOST.fullmatch(host)), None)
        if wrong is not None:
            raise ValueError(f"ALLOWED_HOSTS must be names or addresses without scheme, port and path, not {wrong!r}.")

    @property
    def hosts(self) -> list[str]:
        """The names in `allowed_hosts`, in lower case."""
        names = (name.strip().lower() for name in self.allowed_hosts.split(","))
        return [name.removeprefix("[").removesuffix("]") for name in names if name]
