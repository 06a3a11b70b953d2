"""A short soak test; `make soak` sends 10,000 requests."""

from __future__ import annotations

from bench.soak import soak


def test_every_accepted_request_ends_while_workers_are_killed() -> None:
    report = soak(requests=200, clients=6, kill_every=1.0, seconds=60.0)
    print(report.table())  # shown if the test fails
    assert report.problems == []
    assert report.killed > 0
    assert report.ended["trace"]["done"] > 0
