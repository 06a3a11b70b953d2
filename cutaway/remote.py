"""HTTP with retries, problems and event streams, with the standard library."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import sleep
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TRIES = 6  # of a request or a stream, in a row
TIMEOUT = 60  # seconds without a byte, after which a connection is closed; streams send a comment every 15
PATIENT = {"Prefer": f"wait={TIMEOUT // 2}"}  # headers of a request that waits while a result is computed
_MAX_PAUSE = 10.0  # seconds between tries, unless the service asks for more
_MAX_RETRY_AFTER = 60.0  # seconds that it may ask for

T = TypeVar("T")


class RemoteError(Exception):
    """The service cannot be reached or refuses; the message is one line for the user."""


class ProblemError(RemoteError):
    """The service returned a problem (RFC 9457): `title`, `status`, `detail`, and `errors`, messages by field.

    `problem` is the whole document.
    """

    def __init__(self, path: str, problem: dict[str, Any]) -> None:
        super().__init__(f"{path}: {problem.get('detail') or problem.get('title') or 'request refused'}")
        self.problem = problem
        self.title: str = problem.get("title", "")
        self.status: int = problem.get("status", 0)
        self.detail: str = problem.get("detail", "")
        self.errors: dict[str, list[str]] = problem.get("errors") or {}


class Remote:
    """The service at a URL, with an API key if it needs one."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key

    def json(
        self, path: str, body: bytes | None = None, content_type: str = "application/json", wait: float = 0
    ) -> dict[str, Any]:
        """Return the JSON object of a GET, or of a POST of `body`; `wait` is the seconds of `Prefer: wait`.

        Raises RemoteError.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        headers |= {"Prefer": f"wait={wait:g}"} if wait else {}
        content: dict[str, Any] = json.loads(self._request(path, body, headers, "application/json"))
        return content

    def delete(self, path: str) -> None:
        """DELETE a resource; one that does not exist (any longer) is left as it is. Raises RemoteError."""
        try:
            self._retry(path, lambda: self._open(path, None, {}, "DELETE").close())
        except ProblemError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def download(self, path: str, media_type: str, file: Path) -> None:
        """Write a resource to a file, which gets its name only when it is complete. Raises RemoteError or OSError."""
        part = file.with_name(f"{file.name}.{time.monotonic_ns()}.part")

        def copy() -> None:
            with closing(self._open(path, None, {"Accept": media_type, **PATIENT})) as response:
                self._check(response, path, media_type)
                length = response.headers["Content-Length"]
                received = 0
                while chunk := response.read(1 << 20):
                    received += out.write(chunk)
                if length is not None and received != int(length):
                    raise ConnectionResetError("the response ended early")

        try:
            with part.open("wb") as out:
                self._retry(path, copy, before=lambda: out.truncate(out.seek(0)))
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def read(self, path: str, media_type: str) -> bytes:
        """Return a resource in this media type; wait if it has to be recomputed. Raises RemoteError."""
        return self._request(path, None, PATIENT, media_type)

    def _request(self, path: str, body: bytes | None, headers: dict[str, str], media_type: str) -> bytes:
        def read() -> bytes:
            with closing(self._open(path, body, headers | {"Accept": media_type})) as response:
                self._check(response, path, media_type)
                content: bytes = response.read()
            return content

        return self._retry(path, read)

    def _check(self, response: Any, path: str, media_type: str) -> None:
        if response.headers.get_content_type() != media_type:
            raise RemoteError(f"{self.url}{path} did not return {media_type}.")

    def _retry(self, path: str, send: Callable[[], T], before: Callable[[], object] = lambda: None) -> T:
        """Return what `send` returns; call it again, after `before`, while another try can succeed."""
        tries = 0
        while True:
            try:
                before()
                return send()
            except (OSError, HTTPException) as error:
                tries += 1
                self._pause(error, path, tries)

    def events(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the names and data of a stream's events; resume if the connection breaks. Raises RemoteError."""
        last_id, tries = "", 0
        while True:
            try:
                headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
                with closing(self._open(path, None, headers)) as response:
                    if response.status == 204:
                        return
                    for event in _parse(response):
                        last_id, tries = event.get("id", last_id), 0
                        yield event["event"], json.loads(event["data"])
                        if event["event"] == "done":
                            return
                raise ConnectionResetError("the stream ended early")
            except (OSError, HTTPException) as error:
                tries += 1
                self._pause(error, path, tries)

    def _open(self, path: str, body: bytes | None, headers: dict[str, str], method: str | None = None) -> Any:
        request = Request(  # noqa: S310 - http or https, from the user
            self.url + path, body, {"User-Agent": _user_agent(), **headers}, method=method
        )
        if self.api_key:
            request.add_unredirected_header(
                "Authorization", f"Bearer {self.api_key}"
            )  # not sent to the target of a redirect
        return urlopen(request, timeout=TIMEOUT)  # noqa: S310  # nosec B310

    def _pause(self, error: OSError | HTTPException, path: str, tries: int) -> None:
        """Sleep before another try. Raises RemoteError if no further try can succeed."""
        pause = min(0.25 * 2**tries, _MAX_PAUSE)
        if isinstance(error, HTTPError):
            with error:
                content = error.read()
            limited = error.code == HTTPStatus.TOO_MANY_REQUESTS
            if error.code not in (429, 502, 503, 504) or (limited and tries == TRIES):
                raise ProblemError(path, _problem(error, content)) from None
            retry_after = error.headers.get("Retry-After", "")
            pause = min(float(retry_after), _MAX_RETRY_AFTER) if retry_after.isdigit() else pause
        if tries == TRIES:
            raise RemoteError(f"{self.url} cannot be reached: {_reason(error)}.") from None
        sleep(pause)


def _user_agent() -> str:
    for distribution in ("cutaway", "cutaway-client"):
        try:
            return f"cutaway/{version(distribution)}"
        except PackageNotFoundError:
            continue
    return "cutaway"


def _parse(lines: Iterator[bytes]) -> Iterator[dict[str, str]]:
    """Parse server-sent events (WHATWG HTML) whose fields have one line each, as Cutaway's have."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name in ("id", "event", "data"):
            event[name] = value
        elif not name and "data" in event:
            yield event
            event = {}


def _problem(error: HTTPError, content: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": f"{error.code} {error.reason}"}


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    message = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return " ".join(str(message).split())
