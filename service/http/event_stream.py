"""Redis Streams as server-sent events (text/event-stream): how a request goes, while it goes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import orjson
from flask import Response, current_app, request
from werkzeug.exceptions import TooManyRequests

import worker.store.events as events
from service.errors import Invalid
from service.http.blueprint import Blueprint
from service.http.responses import representation
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
    "description": "Go on after this event",
}
_RECONNECT = 2000  # milliseconds after which a browser that lost the stream comes back
_SILENCE = 15.0  # seconds after which a comment keeps proxies from closing a stream, and finds clients that are gone
_LOOK_AGAIN = 1.0  # seconds after which a silent stream looks for itself: a killed job tells nobody


class Streams:
    """The streams that are open in this process: each holds a thread of the server, so there are only so many."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)
        self.going_on: Callable[[], bool] = lambda: True  # false when the server is about to stop

    def answer(self, told: Iterable[Event | None]) -> Response:
        """Events as they come, and None now and then while none does. 429 where too many streams are open."""
        if request.method == "HEAD":
            return _headed(())
        if not self._free.acquire(blocking=False):
            raise TooManyRequests("As many streams as may be are open here; ask with Prefer: wait.", retry_after=5)
        response = _headed(self._written(told))
        response.call_on_close(self._free.release)
        return response

    def _written(self, told: Iterable[Event | None]) -> Iterator[bytes]:
        yield b"retry: %d\n\n" % _RECONNECT
        spoke = time.monotonic()
        for event in told:
            if event is not None:
                yield _text(event)
            elif time.monotonic() - spoke >= _SILENCE:
                yield b":\n\n"
            else:
                if not self.going_on():
                    return  # the client comes back, to whoever goes on
                continue
            spoke = time.monotonic()


def streams() -> Streams:
    """The app's streams."""
    return cast(Streams, current_app.extensions["streams"])


def last_event_id() -> str | None:
    """After which event the client wants to go on. 422 where it is no id of an event."""
    told = request.headers.get("Last-Event-ID")
    if told and not re.fullmatch(r"\d{1,19}-\d{1,19}", told, re.ASCII):
        raise Invalid({"Last-Event-ID": [f"{told!r} is no id of an event: one is like 1767323045678-0."]})
    return told or None


def stream(state: State[Any]) -> Response:
    """The events of a request, to its end. 204 where the client knows the end: a browser stops coming back then."""
    representation(EVENT_STREAM)
    seen, queue = last_event_id(), broker().queue
    if seen and state.status not in UNFINISHED:
        last = events.latest(queue, state.id)
        if last is not None and last.id == seen:
            return Response(status=204)
    return streams().answer(
        _told(broker().for_streams(), type(state.request), state.id, seen or events.begin(queue, state.id))
    )


def _told(broker: Broker, kind: type[Request], id: str, seen: str) -> Iterator[Event | None]:
    patience = 0.0
    while True:
        found = events.read(broker.queue, id, seen, patience)
        yield from found
        if not found:
            state = broker.find(kind, id)
            if state is None:
                return  # somebody had it forgotten
            if state.status in ENDS:  # and nobody said so, or what was said is gone
                reason = {"reason": state.reason} if state.reason else {}
                yield Event(events.publish(broker.queue, id, state.status, **reason), state.status, reason)
                return
            yield None
        elif found[-1].name in ENDS:
            return
        else:
            seen = found[-1].id
        patience = _LOOK_AGAIN


def _headed(chunks: Iterable[bytes]) -> Response:
    # A proxy that gathers an answer before it passes it on (nginx does) would hold events back.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(chunks, headers=headers, content_type=EVENT_STREAM)


def _text(event: Event) -> bytes:
    id = f"id: {event.id}\n" if event.id else ""
    return f"{id}event: {event.name}\ndata: ".encode() + orjson.dumps(event.data) + b"\n\n"


#: What an event stream is, for the description of an operation.
DESCRIBED: dict[str, Any] = {
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


def route(blueprint: Blueprint, rule: str, description: str = "Events, to its end") -> Callable[[Any], Any]:
    """What makes a view the operation that answers with events, and describes it."""

    def decorate(view: Any) -> Any:
        for status in (429, 422, 406, 404):
            view = blueprint.alt_response(status, schema=ProblemSchema)(view)
        view = blueprint.alt_response(204, description="You know its end already", success=True)(view)
        view = blueprint.response(200, description=description)(view)
        return blueprint.get(rule)(blueprint.doc(parameters=[LAST_EVENT_ID], **DESCRIBED)(view))

    return decorate
