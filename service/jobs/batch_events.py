"""The event stream of a batch."""

from __future__ import annotations

import time
from collections.abc import Iterator

import service.jobs.batching as batching
import worker.store.events as events
from service.jobs.batching import Batch
from service.jobs.broker import Broker, Status
from service.jobs.status import UNFINISHED
from worker.store.events import ENDS, Event

_PROGRESS_INTERVAL = 0.25  # seconds between two progress events
_GATHER_SECONDS = 0.05  # for more events to arrive: one wake-up for each would cost as much as a trace
_READ_SECONDS = 1.0  # without an event, after which the client's connection is checked
_RECHECK_SECONDS = 10.0  # without an event, after which statuses are read: a killed job publishes nothing

_STATUS: dict[str, Status] = {
    "queued": "queued",
    "started": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


class BatchEvents:
    """The events of a batch for one client: the end of each trace, progress counts and the end of the batch.

    The events of all requests are in one log. An event's id is its position in that log, after which a client can
    resume. Only the end of a trace and the end of the batch have ids: a client that disconnects before the first of
    them starts over.
    """

    def __init__(self, broker: Broker, batch: Batch) -> None:
        self.broker, self.batch = broker, batch
        self.position = events.log_end(broker.queue)  # before the statuses are read, so that no event is missed
        self._read_statuses()
        self._sent: dict[str, str] = {}  # the final status sent for each trace
        self._indices: dict[str, list[int]] = {}  # of each trace in the batch
        for n, id in enumerate(batch.traces):
            self._indices.setdefault(id, []).append(n)

    def is_last(self, event_id: str) -> bool:
        """Whether this is the id of the batch's last event: just after the last trace's, where no trace's event is."""
        begin = events.log_start(self.broker.queue)
        if self._unfinished or begin is None or _order(event_id) < _order(begin):
            return False
        return events.logged_request(self.broker.queue, event_id) not in self.statuses

    def after(self, last_id: str | None) -> Iterator[Event | None]:
        """Yield the events after `last_id`, or all; None from time to time if nothing happens."""
        if last_id is None or events.logged_request(self.broker.queue, last_id) not in self.statuses:
            yield from self._ends()
            last_id = self.position
        yield self._counts("progress")
        yield from self._follow(last_id)

    def _follow(self, position: str) -> Iterator[Event | None]:
        counted = received = time.monotonic()
        changed = False
        while self._unfinished or _order(position) < _order(self.position):
            entries = events.log(self.broker.queue, position, _PROGRESS_INTERVAL if changed else _READ_SECONDS)
            for at, id, event in entries:
                if id in self._indices:
                    changed, received = True, time.monotonic()
                    yield from self._receive(at, id, event)
            if entries:
                time.sleep(_GATHER_SECONDS)
            position = entries[-1][0] if entries else max(position, self.position, key=_order)
            now = time.monotonic()
            if now - received >= _RECHECK_SECONDS:
                received = now
                self._read_statuses()
                yield from self._ends()
            if changed and now - counted >= _PROGRESS_INTERVAL:
                counted, changed = now, False
                yield self._counts("progress")
            else:
                yield None  # keeps the stream alive, however many events other requests have
        milliseconds, number = _order(position)
        yield self._counts("done", f"{milliseconds}-{number + 1}")

    def _read_statuses(self) -> None:
        self.statuses = batching.statuses(self.broker, self.batch.traces)
        self._unfinished = {id for id, status in self.statuses.items() if status in UNFINISHED}

    def _receive(self, position: str, id: str, event: str) -> Iterator[Event]:
        if _order(position) > _order(self.position):
            self.statuses[id] = _STATUS[event]
            (self._unfinished.add if self.statuses[id] in UNFINISHED else self._unfinished.discard)(id)
        if event not in ENDS:
            self._sent.pop(id, None)  # the request was submitted again
        elif self._sent.get(id) != event:
            yield from self._end(id, event, position)

    def _ends(self) -> Iterator[Event]:
        """Yield the ends that were not sent yet, without ids: the log may have been trimmed."""
        for id, status in self.statuses.items():
            if status in ENDS and self._sent.get(id) != status:
                yield from self._end(id, status)

    def _end(self, id: str, status: str, position: str = "") -> Iterator[Event]:
        self._sent[id] = status
        *others, last = self._indices[id]
        for index in others:
            yield Event("", "trace", {"index": index, "id": id, "status": status})
        yield Event(position, "trace", {"index": last, "id": id, "status": status})

    def _counts(self, name: str, position: str = "") -> Event:
        return Event(position, name, batching.counts([self.statuses[id] for id in self.batch.traces]))


def _order(position: str) -> tuple[int, int]:
    milliseconds, number = position.split("-")
    return int(milliseconds), int(number)
