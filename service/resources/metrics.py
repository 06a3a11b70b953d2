"""Metrics for Prometheus: requests as these processes served them, and what the two Redis know of the work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

import redis.exceptions
from flask import Flask, Response, current_app, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from redis import Redis

import worker.rq.monitoring as monitoring
import worker.store.job_metrics as job_metrics
from service.http.blueprint import Blueprint
from service.jobs.broker import broker
from service.resources.health import PATIENCE
from service.settings import Settings
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES

TEXT = "text/plain"
#: Names the folder in which the processes of one server count together; without it, each counts alone.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")

blueprint = Blueprint("metrics", __name__, description="What goes on, for Prometheus")


@blueprint.get("/metrics")
@blueprint.response(200, {"type": "string"}, content_type=TEXT)
def get() -> Response:
    """Read the metrics of the API, the queue, the workers and the cache, in Prometheus' text format.

    Requests are those that this server's processes answered. Jobs are counted over all workers: one whose process was
    killed has the outcome `retried`, and `failed` the last time. Waiting jobs, workers and the cache are as they are
    now. A Redis that does not answer has `cutaway_redis_up` 0 and no other metrics.
    """
    requests: CollectorRegistry = current_app.extensions["metrics"]
    if os.environ.get(FOLDER):
        requests = CollectorRegistry()
        MultiProcessCollector(requests)  # type: ignore[no-untyped-call]
    work = CollectorRegistry()
    work.register(_Work(broker().settings))
    return Response(generate_latest(requests) + generate_latest(work), content_type=CONTENT_TYPE_LATEST)


def register(app: Flask) -> None:
    """Have an app count its requests; together with other processes where FOLDER names a place for that."""
    # It looked this up when it was imported, too early to know.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
    registry = app.extensions["metrics"] = CollectorRegistry()
    kept = Counter("cutaway_http_kept_answers", "Requests answered by what was kept in memory", registry=registry)
    answered = Counter("cutaway_http_requests", "Requests answered", ["method", "route", "status"], registry=registry)
    seconds = Histogram(
        "cutaway_http_request_seconds",
        "Seconds until an answer began",
        ["method", "route"],
        buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
        registry=registry,
    )

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.method in _METHODS else "other"  # a client may make up as many as it likes
        answered.labels(method, route, str(response.status_code)).inc()
        if "cached" in g:
            kept.inc()
        if "began" in g:
            seconds.labels(method, route).observe(time.perf_counter() - g.began)
        return response


class _Work(Collector):
    """What the two Redis tell; of one that does not answer, that it does not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("cutaway_redis_up", "Whether a Redis answers", labels=["role"])
        found: list[Metric] = []
        roles: list[tuple[str, str, Callable[[Redis], Iterator[Metric]]]] = [
            ("queue", self.settings.queue_url, _queue),
            ("cache", self.settings.cache_url, _cache),
        ]
        for role, url, told in roles:
            try:
                found += told(connect(url, timeout=PATIENCE, retries=0))
                up.add_metric([role], 1)
            except redis.exceptions.RedisError:
                up.add_metric([role], 0)
        yield up
        yield from found


def _queue(queue: Redis) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("cutaway_queue_waiting", "Jobs that wait", labels=["queue"])
    oldest = GaugeMetricFamily("cutaway_queue_oldest_seconds", "Seconds that the next job has waited", labels=["queue"])
    running = GaugeMetricFamily("cutaway_jobs_running", "Jobs that run", labels=["queue"])
    for name, count in monitoring.waiting(queue).items():
        waiting.add_metric([name], count)
        oldest.add_metric([name], monitoring.oldest_wait(queue, name))
        running.add_metric([name], monitoring.running(queue, name))
    alive = GaugeMetricFamily("cutaway_workers", "Workers that gave a sign of life lately", labels=["lane"])
    for size in JOB_SIZES:
        alive.add_metric([size], monitoring.count_workers(queue, size))
    yield from (waiting, oldest, running, alive)
    labels = ["queue", "kind", "parameters", "outcome"]
    took = HistogramMetricFamily("cutaway_job_seconds", "Seconds that a job took", labels=labels)
    waited = HistogramMetricFamily("cutaway_job_wait_seconds", "Seconds that a job had waited", labels=labels)
    bounds = [*map(str, job_metrics.BUCKETS), "+Inf"]
    for histogram in job_metrics.read(queue):
        counted = [(bound, float(count)) for bound, count in zip(bounds, accumulate(histogram.counts), strict=True)]
        family = took if histogram.measure == "took" else waited
        family.add_metric(
            [histogram.queue, histogram.kind, histogram.size, histogram.outcome], counted, histogram.total
        )
    yield took
    yield waited


def _cache(cache: Redis) -> Iterator[Metric]:
    told = cache.info()
    yield _gauge("cutaway_cache_bytes", "Memory that the cache takes", told["used_memory"])
    yield _gauge("cutaway_cache_limit_bytes", "Memory that it may take; 0 is without a limit", told["maxmemory"])
    yield _counter("cutaway_cache_hits", "Keys found, of those that were looked up", told["keyspace_hits"])
    yield _counter("cutaway_cache_misses", "Keys not found", told["keyspace_misses"])
    yield _counter("cutaway_cache_evictions", "Keys evicted to make room", told["evicted_keys"])


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(name, says, value=value)


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(name, says, value=value)
