"""A Cutaway somewhere else, over HTTP by the standard library's means."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import version
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TRIES = 6  # to reach it
SILENCE = 60  # seconds after which one that says nothing is given up: its streams speak every 15
_LONGEST_PAUSE = 10.0  # seconds between two tries


class RemoteError(Exception):
    """It cannot be reached, or refuses; the message is one line for the user."""


class Refused(RemoteError):
    """It answers with a problem (RFC 9457); `errors` are those of the fields."""

    def __init__(self, path: str, problem: dict[str, Any]) -> None:
        super().__init__(f"{path}: {problem.get('detail') or problem.get('title') or 'it is refused'}")
        self.errors: dict[str, list[str]] = problem.get("errors") or {}


class Remote:
    """The service at a URL, which may want a key."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key

    def json(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> dict[str, Any]:
        """The answer to a GET, or to a POST of `body`. Raises RemoteError."""
        headers = {"Content-Type": content_type} if body is not None else {}
        found: dict[str, Any] = json.loads(self._whole(path, body, headers, "application/json"))
        return found

    def read(self, path: str, media_type: str) -> bytes:
        """The bytes of this representation, after a wait where it has to be computed again. Raises RemoteError."""
        return self._whole(path, None, {"Prefer": f"wait={SILENCE // 2}"}, media_type)

    def _whole(self, path: str, body: bytes | None, headers: dict[str, str], media_type: str) -> bytes:
        tries = 0
        while True:
            try:
                with closing(self._open(path, body, headers | {"Accept": media_type})) as answer:
                    content: bytes = answer.read()
                if answer.headers.get_content_type() != media_type:
                    raise RemoteError(f"{self.url}{path} does not answer with {media_type}.")
                return content
            except (OSError, HTTPException) as error:
                tries += 1
                self._pause(error, path, tries)

    def events(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a stream, by name, to its end; goes on where it was cut off. Raises RemoteError."""
        seen, tries = "", 0
        while True:
            try:
                headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen} if seen else {})
                with closing(self._open(path, None, headers)) as answer:
                    if answer.status == 204:
                        return
                    for event in _parse(answer):
                        seen, tries = event.get("id", seen), 0
                        yield event["event"], json.loads(event["data"])
                        if event["event"] == "done":
                            return
                raise ConnectionResetError("the stream ended early")
            except (OSError, HTTPException) as error:
                tries += 1
                self._pause(error, path, tries)

    def _open(self, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        request = Request(  # noqa: S310 - http or https, as the user says
            self.url + path, body, {"User-Agent": f"cutaway/{version('cutaway')}", **headers}
        )
        if self.api_key:
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")  # for nobody else
        return urlopen(request, timeout=SILENCE)  # noqa: S310  # nosec B310

    def _pause(self, error: OSError | HTTPException, path: str, tries: int) -> None:
        """Wait for another try, if one may do."""
        pause = min(0.25 * 2**tries, _LONGEST_PAUSE)
        if isinstance(error, HTTPError):
            with error:
                content = error.read()
            full = error.code == HTTPStatus.TOO_MANY_REQUESTS
            if error.code not in (429, 502, 503, 504) or (full and tries == TRIES):
                raise Refused(path, _problem(error, content)) from None
            told = error.headers.get("Retry-After", "")
            pause = float(told) if told.isdigit() else pause
        if tries == TRIES:
            raise RemoteError(f"{self.url} cannot be reached: {_reason(error)}.") from None
        time.sleep(min(pause, _LONGEST_PAUSE))


def _parse(lines: Iterator[bytes]) -> Iterator[dict[str, str]]:
    """Events as WHATWG's HTML has them, of which Cutaway writes one line a field."""
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
        found = json.loads(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": f"{error.code} {error.reason}"}


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    said = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return " ".join(str(said).split())
