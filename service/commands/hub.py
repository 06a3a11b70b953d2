"""A client of Hugging Face hubs, with the standard library.

huggingface_hub is not used: since 1.18 it deletes partial downloads when interrupted, and it does not check SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from importlib.metadata import version
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

HUB = "https://huggingface.co"
PIECE = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without a byte, after which a connection is closed

SMALL = 64 << 20  # bytes of the largest file list, or file, that is read into memory

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[\w.-]{1,100}", re.ASCII)
_SIZE = re.compile(r"\d{1,30}", re.ASCII)


class FetchError(Exception):
    """The fetch failed; the message is one line for the user."""


class TemporaryError(FetchError):
    """The fetch failed, but another try may succeed."""


@dataclass(frozen=True)
class File:
    """A file of a repository, with the size and SHA-256 that the hub returned."""

    name: str
    size: int
    sha256: str | None


class _RedirectHandler(HTTPRedirectHandler):
    """Follows redirects without sending the token to other hosts; a HEAD only until the hub returns the size."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise URLError(f"redirects from {before} to {after} are not allowed")
        if req.get_method() == "HEAD" and "X-Linked-Size" in headers:
            return None
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.method = req.get_method()  # urllib makes it a GET
            if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
                request.remove_header("Authorization")
        return request


class Hub:
    """A repository on a hub, at one revision."""

    def __init__(self, endpoint: str, repo: str, revision: str = "main", token: str = "") -> None:  # nosec B107
        self.endpoint, self.repo, self.revision = endpoint, repo, revision
        self._headers = {"User-Agent": f"cutaway/{version('cutaway')}"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = build_opener(_RedirectHandler)

    def snapshot(self) -> tuple[str, set[str]]:
        """Return the current commit of the revision, and the names of its files."""
        path = f"/api/models/{self.repo}/revision/{quote(self.revision, safe='')}"
        with self._connection_errors(), self._open(path) as response:
            text = response.read(SMALL + 1)
        if len(text) > SMALL:
            raise FetchError(f"The file list from {self.endpoint} is larger than {SMALL:,} bytes.")
        try:
            info = json.loads(text)
            commit = str(info["sha"])
            if not _COMMIT.fullmatch(commit):
                raise ValueError(commit)
            return commit, {str(sibling["rfilename"]) for sibling in info["siblings"]}
        except (ValueError, LookupError, TypeError):
            raise FetchError(f"{self.endpoint} does not respond like a Hugging Face hub.") from None

    def describe(self, commit: str, name: str) -> File:
        """Return the size of a file, and its SHA-256 if the hub has one."""
        with self._connection_errors():
            try:
                response = self._open(self._path(commit, name), method="HEAD")
            except HTTPError as redirect:
                if redirect.code >= 400:
                    raise
                response = redirect
            response.close()
        headers = response.headers
        size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
        if not _SIZE.fullmatch(size):
            raise FetchError(f"{self.endpoint} did not return the size of {name}.")
        tag = headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
        return File(name, int(size), tag if _SHA256.fullmatch(tag) else None)

    def pieces(self, commit: str, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield a file from `start` in pieces, each after its position; from 0 if the hub does not support ranges."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._connection_errors(), self._open(self._path(commit, name), headers=headers) as response:
            position = start if response.status == 206 else 0
            while piece := response.read1(PIECE):
                yield position, piece
                position += len(piece)

    def _path(self, commit: str, name: str) -> str:
        return f"/{self.repo}/resolve/{quote(commit, safe='')}/{quote(name)}"

    def _open(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
        request = Request(self.endpoint + path, headers=self._headers | (headers or {}), method=method)  # noqa: S310 - http or https
        return self._opener.open(request, timeout=TIMEOUT)

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Raise FetchError for errors of the connection and of HTTP."""
        try:
            yield
        except HTTPError as error:
            error.close()
            raise self._error(error) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
            raise TemporaryError(f"{self.endpoint} cannot be reached: {' '.join(text.split())}.") from None

    def _error(self, error: HTTPError) -> FetchError:
        code = error.headers.get("X-Error-Code", "")
        remedy = "set HF_TOKEN to the token of an account with access"
        if code == "GatedRepo":
            return FetchError(f"{self.repo} is gated: accept its terms at {self.endpoint}/{self.repo}, then {remedy}.")
        if code == "RevisionNotFound":
            return FetchError(f"{self.repo} has no revision {self.revision!r}.")
        if code == "RepoNotFound" or (error.code == 404 and code != "EntryNotFound"):
            return FetchError(f"{self.repo} does not exist on {self.endpoint}; if it is private, {remedy}.")
        if error.code in (401, 403):
            return FetchError(f"{self.endpoint} denies access to {self.repo} ({error.code}): {remedy}.")
        kind = TemporaryError if error.code in (408, 429) or error.code >= 500 else FetchError
        return kind(f"{self.endpoint} returned {error.code} {' '.join(str(error.reason).split())}.")
