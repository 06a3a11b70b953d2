"""Health: liveness of the process, readiness of the service."""

from __future__ import annotations

import time
from typing import Any

import redis.exceptions
from flask import Response, current_app
from marshmallow import Schema, fields

import worker.rq.monitoring as monitoring
from service.http.blueprint import Blueprint
from service.http.problems import problem
from service.http.responses import json
from service.http.schemas.problems import ProblemSchema
from service.jobs.broker import broker
from worker.store.connection import connect
from worker.store.queues import JOB_SIZES

TIMEOUT = 0.8  # seconds for each Redis, and for the trace store meanwhile; a health check must not hang

blueprint = Blueprint("health", __name__, description="Liveness and readiness")


class HealthSchema(Schema):
    status = fields.String(required=True)
    detail = fields.Dict(keys=fields.String(), values=fields.String())


@blueprint.get("/healthz")
@blueprint.response(200, HealthSchema)
def alive() -> dict[str, Any]:
    """Report that this process is alive.

    It depends on nothing else: a process that answers need not be restarted.
    """
    return {"status": "ok"}


@blueprint.get("/readyz")
@blueprint.response(200, HealthSchema)
@blueprint.alt_response(503, schema=ProblemSchema)
def ready() -> Response:
    """Report whether traces can be computed: both Redis answer, and workers for small and large jobs are registered.

    503 has the problems in `errors`, by component: queue, cache, workers, and store if a trace store is configured. A
    load balancer should send no requests here until this returns 200.
    """
    settings, probe, started = broker().settings, current_app.extensions["probe"], time.monotonic()
    if probe is not None:
        probe.start()
    problems = {"queue": _problems("queue", settings.queue_url), "cache": _problems("cache", settings.cache_url)}
    if not any(problems.values()):
        problems["workers"] = [
            f"no worker for {size} jobs is registered"
            for size in JOB_SIZES
            if not monitoring.count_workers(broker().queue, size)
        ]
    if probe is not None and (message := probe.problem(max(0.0, started + TIMEOUT - time.monotonic()))):
        problems["store"] = [message]
    errors = {component: messages for component, messages in problems.items() if messages}
    if errors:
        detail = "; ".join(message for messages in errors.values() for message in messages)
        return problem(503, f"Not ready: {detail}.", errors, headers={"Retry-After": "2"})
    return json({"status": "ok"})


def _problems(role: str, url: str) -> list[str]:
    """Return the problems of a Redis. The cache evicts keys when it is full; the queue's Redis must not."""
    try:
        info = connect(url, timeout=TIMEOUT, retries=0).info("memory")
    except redis.exceptions.RedisError:
        return [f"the {role}'s Redis does not answer"]
    used, limit = info["used_memory"], info["maxmemory"]
    full = limit and used >= limit and info["maxmemory_policy"] == "noeviction"
    return [f"the {role}'s Redis is full: it uses {used:,} of {limit:,} bytes"] if full else []
