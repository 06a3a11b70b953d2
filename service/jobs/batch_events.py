"""A batch as events: the end of each of its traces, how many stand how, and the end of all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import service.jobs.batching as batching
import worker.store.events as events
from service.jobs.batching import Batch
from service.jobs.broker import Broker, Status
from service.jobs.status import UNFINISHED
from worker.store.events import ENDS, Event

_PROGRESS_EVERY = 0.25  # seconds between two counts
_GATHERED = 0.05  # seconds in which ends come together: a wake for each would cost as much as a trace
_LOOK_AGAIN = 1.0  # seconds of silence after which the client may be gone
_COUNT_AGAIN = 10.0  # seconds of silence after which the traces are looked at: a killed job tells nobody

_STATUS: dict[str, Status] = {
    "queued": "queued",
    "started": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Watched:
    """A batch that a client watches.

    All requests' events are in one log; a place in it is the id that a client goes on from. Only the end of a trace
    and the end of all have one: who was cut off before the first is told anew.
    """

    def __init__(self, broker: Broker, batch: Batch) -> None:
        self.broker, self.batch = broker, batch
        self.place = events.log_end(broker.queue)  # before the traces are looked at: nothing is missed between
        self._look()
        self._told: dict[str, str] = {}  # the ends that were told by the ids
        self._at: dict[str, list[int]] = {}  # where in the batch each id is
        for n, id in enumerate(batch.traces):
            self._at.setdefault(id, []).append(n)

    def knows_the_end(self, seen: str) -> bool:
        """Whether who saw this saw everything: the end's place is behind the last trace's, where no trace's is."""
        begins = events.log_begin(self.broker.queue)
        if self._left or begins is None or _order(seen) < _order(begins):
            return False
        return events.logged(self.broker.queue, seen) not in self.standing

    def told(self, seen: str | None) -> Iterator[Event | None]:
        """The events after `seen`, or all; None now and then while nothing happens."""
        if seen is None or events.logged(self.broker.queue, seen) not in self.standing:
            yield from self._ends()
            seen = self.place
        yield self._counts("progress")
        yield from self._followed(seen)

    def _followed(self, seen: str) -> Iterator[Event | None]:
        counted = heard = time.monotonic()
        changed = False
        while self._left or _order(seen) < _order(self.place):
            entries = events.log(self.broker.queue, seen, _PROGRESS_EVERY if changed else _LOOK_AGAIN)
            for place, id, event in entries:
                if id in self._at:
                    changed, heard = True, time.monotonic()
                    yield from self._heard(place, id, event)
            if entries:
                time.sleep(_GATHERED)
            seen = entries[-1][0] if entries else max(seen, self.place, key=_order)
            now = time.monotonic()
            if now - heard >= _COUNT_AGAIN:
                heard = now
                self._look()
                yield from self._ends()
            if changed and now - counted >= _PROGRESS_EVERY:
                counted, changed = now, False
                yield self._counts("progress")
            else:
                yield None  # others are busy, or nobody: who watches hears at times that the stream lives
        milliseconds, number = _order(seen)
        yield self._counts("done", f"{milliseconds}-{number + 1}")

    def _look(self) -> None:
        self.standing = batching.statuses(self.broker, self.batch.traces)
        self._left = {id for id, status in self.standing.items() if status in UNFINISHED}

    def _heard(self, place: str, id: str, event: str) -> Iterator[Event]:
        if _order(place) > _order(self.place):
            self.standing[id] = _STATUS[event]
            (self._left.add if self.standing[id] in UNFINISHED else self._left.discard)(id)
        if event not in ENDS:
            self._told.pop(id, None)  # it was asked for again
        elif self._told.get(id) != event:
            yield from self._end(id, event, place)

    def _ends(self) -> Iterator[Event]:
        """Of what has ended and was not told yet. Without places: the log may not have them any more."""
        for id, status in self.standing.items():
            if status in ENDS and self._told.get(id) != status:
                yield from self._end(id, status)

    def _end(self, id: str, status: str, place: str = "") -> Iterator[Event]:
        self._told[id] = status
        *others, last = self._at[id]
        for index in others:
            yield Event("", "trace", {"index": index, "id": id, "status": status})
        yield Event(place, "trace", {"index": last, "id": id, "status": status})

    def _counts(self, name: str, place: str = "") -> Event:
        return Event(place, name, batching.counts([self.standing[id] for id in self.batch.traces]))


def _order(place: str) -> tuple[int, int]:
    milliseconds, number = place.split("-")
    return int(milliseconds), int(number)
