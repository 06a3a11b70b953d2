"""Server-sent events (text/event-stream) from Redis Streams."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import orjson
from flask import Response, current_app, request
from redis import Redis
from werkzeug.exceptions import TooManyRequests

import worker.store.events as events
from service.errors import Invalid
from service.http.blueprint import Blueprint
from service.http.negotiation import representation
from service.http.schemas.problems import ProblemSchema
from service.jobs.broker import Broker, State, broker
from service.jobs.status import UNFINISHED
from worker.requests import Request
from worker.store.events import ENDS, Event

EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = {
    "in": "header",
    "name": "Last-Event-ID",
    "schema": {"type": "string"},
    "example": "1767323045678-0",
    "description": "Resume after this event",
}
_RECONNECT_MS = 2000  # after which a browser that lost the stream reconnects
_KEEPALIVE_INTERVAL = 15.0  # seconds; a comment keeps proxies from closing the stream and detects lost clients
_POLL_INTERVAL = 1.0  # seconds without an event until the status is read: a killed job publishes nothing


class Streams:
    """The open event streams of this process, limited because each occupies a server thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = threading.Semaphore(limit)
        self.is_running: Callable[[], bool] = lambda: True  # false when the server is about to stop

    def respond(self, stream: Iterable[Event | None]) -> Response:
        """Send events as they come; the iterable yields None now and then while there is none.

        Raises TooManyRequests (429) if too many streams are open.
        """
        if request.method == "HEAD":
            return _response(())
        if not self._free.acquire(blocking=False):
            limit = f"At most {self._limit:,} event streams may be open in a process (MAX_STREAMS)"
            raise TooManyRequests(f"{limit}; use Prefer: wait instead.", retry_after=5)
        response = _response(self._chunks(stream))
        response.call_on_close(self._free.release)
        return response

    def _chunks(self, stream: Iterable[Event | None]) -> Iterator[bytes]:
        yield b"retry: %d\n\n" % _RECONNECT_MS
        last_sent = time.monotonic()
        for event in stream:
            if event is not None:
                yield _serialize(event)
            elif time.monotonic() - last_sent >= _KEEPALIVE_INTERVAL:
                yield b":\n\n"
            else:
                if not self.is_running():
                    return  # the client reconnects, to another process
                continue
            last_sent = time.monotonic()


def streams() -> Streams:
    """Return the current app's streams."""
    return cast(Streams, current_app.extensions["streams"])


def last_event_id() -> str | None:
    """Return the id of the event after which the client resumes, or None. 422 for an invalid id."""
    id = request.headers.get("Last-Event-ID")
    if id and not re.fullmatch(r"\d{1,19}-\d{1,19}", id, re.ASCII):
        raise Invalid({"Last-Event-ID": [f"{id!r} is not the id of an event, such as 1767323045678-0."]})
    return id or None


def stream(state: State[Any]) -> Response:
    """Stream the events of a request until it ends. 204 if the client has the last: browsers then stop reconnecting."""
    representation(EVENT_STREAM)
    seen, queue = last_event_id(), broker().queue
    if seen and state.status not in UNFINISHED and _last_event(queue, state).id == seen:
        return Response(status=204)
    return streams().respond(
        _events(
            broker().for_streams(), type(state.request), state.id, seen or events.before_current_run(queue, state.id)
        )
    )


def _events(broker: Broker, kind: type[Request], id: str, seen: str) -> Iterator[Event | None]:
    timeout = 0.0
    while True:
        new = events.read(broker.queue, id, seen, timeout)
        yield from new
        if not new:
            state = broker.find(kind, id)
            if state is None:
                return  # the request was deleted
            if state.status in ENDS:  # and the client said that it has later events, or none reported the end
                yield _last_event(broker.queue, state)
                return
            yield None
        elif new[-1].name in ENDS:
            return
        else:
            seen = new[-1].id
        timeout = _POLL_INTERVAL


def _last_event(queue: Redis, state: State[Any]) -> Event:
    """Return the event that reports the end; made up, with the next id, if none was published or it has expired.

    It is not published: a reader changes nothing.
    """
    last = events.latest(queue, state.id)
    if last is not None and last.name == state.status:
        return last
    milliseconds, _, number = (last.id if last else "0-0").partition("-")
    reason = {"reason": state.reason} if state.reason else {}
    return Event(f"{milliseconds}-{int(number) + 1}", state.status, reason)


def _response(chunks: Iterable[bytes]) -> Response:
    # A proxy that buffers responses, as nginx does, would delay events.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(chunks, headers=headers, content_type=EVENT_STREAM)


def _serialize(event: Event) -> bytes:
    id = f"id: {event.id}\n" if event.id else ""
    return f"{id}event: {event.name}\ndata: ".encode() + orjson.dumps(event.data) + b"\n\n"


#: The OpenAPI description of an event stream.
_DOC: dict[str, Any] = {
    "responses": {
        200: {
            "content": {
                EVENT_STREAM: {
                    "schema": {
                        "type": "object",
                        "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
                        "required": ["event", "data"],
                    },
                    "example": "retry: 2000\n\nid: 1767323045678-0\nevent: queued\ndata: {}\n\n"
                    "id: 1767323045690-0\nevent: done\ndata: {}\n\n",
                }
            }
        }
    }
}


def route(blueprint: Blueprint, rule: str, description: str = "Events until it ends") -> Callable[[Any], Any]:
    """Return a decorator that routes and documents a view that streams events."""

    def decorate(view: Any) -> Any:
        for status in (429, 422, 406, 404):
            view = blueprint.alt_response(status, schema=ProblemSchema)(view)
        view = blueprint.alt_response(204, description="The client has the last event already", success=True)(view)
        view = blueprint.response(200, description=description)(view)
        return blueprint.get(rule)(blueprint.headers(LAST_EVENT_ID)(blueprint.doc(**_DOC)(view)))

    return decorate
