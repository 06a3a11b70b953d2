"""Prometheus metrics of requests, jobs, workers and the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import accumulate

import redis.exceptions
from flask import Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from redis import Redis

import worker.rq.monitoring as monitoring
import worker.store.job_metrics as job_metrics
from service.http.blueprint import Blueprint
from service.jobs.broker import broker
from service.resources.health import TIMEOUT
from service.settings import Settings
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES

TEXT = "text/plain"
#: The variable that names the folder in which the processes of a server share counters; each has its own without it.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

blueprint = Blueprint("metrics", __name__, description="Metrics for Prometheus")


@blueprint.get("/metrics")
@blueprint.response(200, {"type": "string"}, content_type=TEXT)
def get() -> Response:
    """Read the metrics of the API, the queue, the workers and the cache, in Prometheus' text format.

    Requests are those that the processes of this server answered. Jobs are counted over all workers; a job whose
    process was killed has the outcome `retried`, and after the last attempt `failed`. Waiting jobs, workers and the
    cache are current values. A Redis that does not answer has `cutaway_redis_up` 0 and no other metrics.
    """
    of_requests: CollectorRegistry = current_app.extensions["metrics"].registry
    if os.environ.get(FOLDER):
        of_requests = CollectorRegistry()
        MultiProcessCollector(of_requests)  # type: ignore[no-untyped-call]
    of_redis = CollectorRegistry()
    of_redis.register(_RedisCollector(broker().settings))
    return Response(generate_latest(of_requests) + generate_latest(of_redis), content_type=CONTENT_TYPE_LATEST)


class _RedisCollector(Collector):
    """Collects metrics from both Redis; from one that does not answer, only that it is down."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("cutaway_redis_up", "Whether a Redis answers", labels=["role"])
        metrics: list[Metric] = []
        sources: list[tuple[str, str, Callable[[Redis], Iterator[Metric]]]] = [
            ("queue", self.settings.queue_url, _queue),
            ("cache", self.settings.cache_url, _cache),
        ]
        for role, url, read in sources:
            try:
                metrics += read(connect(url, timeout=TIMEOUT, retries=0))
                up.add_metric([role], 1)
            except redis.exceptions.RedisError:
                up.add_metric([role], 0)
        yield up
        yield from metrics


def _queue(queue: Redis) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("cutaway_queue_waiting", "Jobs waiting", labels=["queue"])
    oldest = GaugeMetricFamily(
        "cutaway_queue_oldest_seconds", "Seconds for which the next job has waited", labels=["queue"]
    )
    running = GaugeMetricFamily("cutaway_jobs_running", "Jobs running", labels=["queue"])
    for name, count in monitoring.waiting(queue).items():
        waiting.add_metric([name], count)
        oldest.add_metric([name], monitoring.oldest_wait(queue, name))
        running.add_metric([name], monitoring.running(queue, name))
    alive = GaugeMetricFamily("cutaway_workers", "Workers with a recent heartbeat", labels=["lane"])
    for size in JOB_SIZES:
        alive.add_metric([size], monitoring.count_workers(queue, size))
    yield from (waiting, oldest, running, alive)
    labels = ["queue", "kind", "parameters", "outcome"]
    took = HistogramMetricFamily("cutaway_job_seconds", "Seconds for which a job ran", labels=labels)
    waited = HistogramMetricFamily("cutaway_job_wait_seconds", "Seconds for which a job waited", labels=labels)
    bounds = [*map(str, job_metrics.BUCKETS), "+Inf"]
    for histogram in job_metrics.read(queue):
        buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(histogram.counts), strict=True)]
        family = took if histogram.measure == "took" else waited
        family.add_metric(
            [histogram.queue, histogram.kind, histogram.size, histogram.outcome], buckets, histogram.total
        )
    yield took
    yield waited


def _cache(cache: Redis) -> Iterator[Metric]:
    info = cache.info()
    yield _gauge("cutaway_cache_bytes", "Bytes of memory that the cache uses", info["used_memory"])
    yield _gauge("cutaway_cache_limit_bytes", "Bytes of memory that it may use; 0 if unlimited", info["maxmemory"])
    yield _counter("cutaway_cache_hits", "Lookups of keys that were found", info["keyspace_hits"])
    yield _counter("cutaway_cache_misses", "Lookups of keys that were not found", info["keyspace_misses"])
    yield _counter("cutaway_cache_evictions", "Keys evicted to make room", info["evicted_keys"])


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)
