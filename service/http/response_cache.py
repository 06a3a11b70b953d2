"""Finished answers that this process has given, kept to be given again: what is finished never changes.

It can be forgotten, or be lost and computed again. So a kept answer is good for a second, and then for another if its
result is still there, whole and the same. A DELETE that this process answers ends that at once, and so does a request
that finds something unfinished: it may have been finished, and lost, before.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from flask import Flask, Response, g, request

from service.jobs.broker import State, broker
from worker.store.stored_bytes import Missing

Key = tuple[str | None, ...]

_GOOD = 1.0  # seconds
_SHARE = 16  # an answer takes at most this part of the room
_OVERHEAD = 2560  # bytes that an answer takes besides its body and its key, about
#: What selects an answer, by the names of WSGI.
_SELECTING = ("PATH_INFO", "QUERY_STRING", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ORIGIN", "HTTP_PREFER")


@dataclass(frozen=True)
class Answer:
    """An answer, the bytes that it takes, the result `id` that it was made of, when that was finished, and when it was
    last seen to be there.
    """

    body: bytes
    headers: list[tuple[str, str]]
    id: str
    finished_at: str
    seen: float
    size: int


class Kept:
    """The answers used last, in `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._taken = 0
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._lock = threading.Lock()
        self._doubted = 0.0  # what was seen before may have been forgotten since

    def find(self) -> Response | None:
        """The answer to a request, if it was given before and is still right."""
        key = _key()
        found = self._answers.get(key) if key else None
        if key is None or found is None:
            return None
        now = time.monotonic()
        if now - found.seen > _GOOD or found.seen <= self._doubted:
            found = replace(found, seen=now) if _is_there(found) else None
            self._put(key, found)
        if found is None:
            return None
        g.kept = True
        response = Response(found.body, headers=found.headers)
        if "If-None-Match" in request.headers:
            response.make_conditional(request)
        return response

    def keep(self, response: Response) -> Response:
        """Keep an answer that is finished, whole and not too large."""
        if request.method == "DELETE" or g.get("unfinished"):
            self._doubted = time.monotonic()
        of: State[Any] | None = g.get("made_of")
        key, length = _key(), response.content_length
        if of is None or key is None or response.status_code != 200 or length is None:
            return response
        size = length + _OVERHEAD + sum(len(part) for part in key if part)  # a query may be longer than its answer
        if size <= self.room // _SHARE:
            headers = [(name, value) for name, value in response.headers if name != "Date"]
            finished_at = of.manifest["finished_at"]
            self._put(key, Answer(response.get_data(), headers, of.id, finished_at, time.monotonic(), size))
        return response

    def _put(self, key: Key, answer: Answer | None) -> None:
        """Make an answer the one used last, or remove it."""
        with self._lock:
            before = self._answers.pop(key, None)
            self._taken -= before.size if before else 0
            if answer is not None:
                self._answers[key] = answer
                self._taken += answer.size
            while self._taken > self.room:
                self._taken -= self._answers.popitem(last=False)[1].size


def register(app: Flask, room: int) -> None:
    """Have an app keep answers in `room` bytes, as they are after all that is registered later has worked on them."""
    kept = app.extensions["kept"] = Kept(room)
    app.before_request(kept.find)
    app.after_request(kept.keep)


def _is_there(answer: Answer) -> bool:
    """Whether its result is still there, and was not made again meanwhile."""
    try:
        return bool(broker().results.manifest(answer.id)["finished_at"] == answer.finished_at)
    except Missing:
        return False


def _key() -> Key | None:
    """What selects the answer to this request; None where it is not kept."""
    given = request.environ
    if request.method != "GET" or "HTTP_RANGE" in given:
        return None
    return tuple(map(given.get, _SELECTING))
