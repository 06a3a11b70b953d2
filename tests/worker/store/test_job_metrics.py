"""Histograms of jobs."""

from __future__ import annotations

import pytest
from redis import Redis

import worker.store.job_metrics as job_metrics


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [(1, "1M"), (85_728, "1M"), (10**6, "1M"), (10**6 + 1, "1B"), (174_604_259_328, "1T"), (10**12 + 1, "more")],
)
def test_size_class_is_the_smallest_that_holds_the_model(parameters: int, expected: str) -> None:
    assert job_metrics.size(parameters) == expected


def test_each_job_is_counted_in_one_bucket_and_in_the_sum(queue: Redis) -> None:
    for took in (0.01, 0.011, 5.0, 4000.0):
        job_metrics.record(queue, "q", "trace", "1M", "done", 0.2, took)
    job_metrics.record(queue, "q", "layout", "1T", "failed", -0.5, 1.0)  # the clocks of two machines differ
    found = {histogram[:5]: histogram for histogram in job_metrics.read(queue)}
    done = found["took", "q", "trace", "1M", "done"]
    assert done.counts == [1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert done.total == pytest.approx(4005.021)
    assert found["waited", "q", "trace", "1M", "done"].counts == [0, 0, 0, 4, *[0] * 8]
    assert found["waited", "q", "layout", "1T", "failed"].total == 0
    assert len(found) == 4
