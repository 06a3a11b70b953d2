"""A repository on a Hugging Face hub, over HTTP by the standard library's means.

huggingface_hub since 1.18 deletes what it has when it is interrupted, and does not compare checksums.
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
SILENCE = 30  # seconds after which a hub that says nothing is given up

SMALL = 64 << 20  # bytes of a list of files, or of a file that is held in memory

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[\w.-]{1,100}", re.ASCII)
_SIZE = re.compile(r"\d{1,30}", re.ASCII)


class FetchError(Exception):
    """It cannot be fetched; the message is one line for the user."""


class Passing(FetchError):
    """It cannot be fetched now; another try may do."""


@dataclass(frozen=True)
class File:
    """A file of a repository as the hub states it."""

    name: str
    size: int
    sha256: str | None


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect without telling another host who asks; a HEAD only up to where the hub states the size."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise URLError(f"it leads to {after}, which is not followed from {before}")
        if req.get_method() == "HEAD" and "X-Linked-Size" in headers:
            return None
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.method = req.get_method()  # which would be GET
            if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
                request.remove_header("Authorization")
        return request


class Hub:
    """A repository on a hub."""

    def __init__(self, endpoint: str, repo: str, revision: str = "main", token: str = "") -> None:  # nosec B107
        self.endpoint, self.repo, self.revision = endpoint, repo, revision
        self._headers = {"User-Agent": f"cutaway/{version('cutaway')}"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = build_opener(_Redirects)

    def snapshot(self) -> tuple[str, set[str]]:
        """The commit that the revision means now, and the names of its files."""
        with self._reached(), self._open(f"/api/models/{self.repo}/revision/{quote(self.revision, safe='')}") as answer:
            text = answer.read(SMALL + 1)
        if len(text) > SMALL:
            raise FetchError(f"{self.endpoint} lists more than {SMALL:,} bytes of files.")
        try:
            info = json.loads(text)
            commit = str(info["sha"])
            if not _COMMIT.fullmatch(commit):
                raise ValueError(commit)
            return commit, {str(sibling["rfilename"]) for sibling in info["siblings"]}
        except (ValueError, LookupError, TypeError):
            raise FetchError(f"{self.endpoint} does not answer as a Hugging Face hub does.") from None

    def describe(self, commit: str, name: str) -> File:
        """The size of a file, and its SHA-256 where the hub states one."""
        with self._reached():
            try:
                answer = self._open(self._path(commit, name), method="HEAD")
            except HTTPError as redirect:
                if redirect.code >= 400:
                    raise
                answer = redirect
            answer.close()
        headers = answer.headers
        size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
        if not _SIZE.fullmatch(size):
            raise FetchError(f"{self.endpoint} does not state the size of {name}.")
        tag = headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
        return File(name, int(size), tag if _SHA256.fullmatch(tag) else None)

    def pieces(self, commit: str, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        """A file from `start` on, each piece with its place; from its beginning where the hub gives no ranges."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._reached(), self._open(self._path(commit, name), headers=headers) as answer:
            place = start if answer.status == 206 else 0
            while piece := answer.read1(PIECE):
                yield place, piece
                place += len(piece)

    def _path(self, commit: str, name: str) -> str:
        return f"/{self.repo}/resolve/{quote(commit, safe='')}/{quote(name)}"

    def _open(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
        request = Request(self.endpoint + path, headers=self._headers | (headers or {}), method=method)  # noqa: S310 - http or https
        return self._opener.open(request, timeout=SILENCE)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever goes wrong on the way to the hub, said in a line."""
        try:
            yield
        except HTTPError as error:
            error.close()
            raise self._refusal(error) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            said = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
            raise Passing(f"{self.endpoint} cannot be reached: {' '.join(said.split())}.") from None

    def _refusal(self, error: HTTPError) -> FetchError:
        code = error.headers.get("X-Error-Code", "")
        remedy = "set HF_TOKEN to the token of an account that may read it"
        if code == "GatedRepo":
            return FetchError(f"{self.repo} is gated: accept its terms at {self.endpoint}/{self.repo}, then {remedy}.")
        if code == "RevisionNotFound":
            return FetchError(f"{self.repo} has no revision {self.revision!r}.")
        if code == "RepoNotFound" or (error.code == 404 and code != "EntryNotFound"):
            return FetchError(f"{self.endpoint} has no {self.repo}; if it is private, {remedy}.")
        if error.code in (401, 403):
            return FetchError(f"{self.endpoint} does not give {self.repo} ({error.code}): if it is there, {remedy}.")
        kind = Passing if error.code in (408, 429) or error.code >= 500 else FetchError
        return kind(f"{self.endpoint} answers {error.code} {' '.join(str(error.reason).split())}.")
