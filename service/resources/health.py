"""Health: whether the process lives, and whether it can do its work."""

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

PATIENCE = 0.8  # seconds for each Redis, and for the store meanwhile; a health check that hangs tells nothing

blueprint = Blueprint("health", __name__, description="Whether the service can do its work")


class HealthSchema(Schema):
    status = fields.String(required=True)
    detail = fields.Dict(keys=fields.String(), values=fields.String())


@blueprint.get("/healthz")
@blueprint.response(200, HealthSchema)
def alive() -> dict[str, Any]:
    """Say that this process lives.

    It asks nobody else: a process that answers need not be started again.
    """
    return {"status": "ok"}


@blueprint.get("/readyz")
@blueprint.response(200, HealthSchema)
@blueprint.alt_response(503, schema=ProblemSchema)
def ready() -> Response:
    """Say whether traces can be computed: both Redis answer and workers are registered, for small jobs and large ones.

    503 says what is missing, in `errors` by what is to be looked at: queue, cache, workers, and store, where there is a
    trace store. A load balancer sends no requests here until this answers 200.
    """
    settings, probe, began = broker().settings, current_app.extensions["probe"], time.monotonic()
    if probe is not None:
        probe.start()
    wrong = {"queue": _wrong("queue", settings.queue_url), "cache": _wrong("cache", settings.cache_url)}
    if not any(wrong.values()):
        wrong["workers"] = [
            f"no worker for {size} jobs is registered"
            for size in JOB_SIZES
            if not monitoring.count_workers(broker().queue, size)
        ]
    if probe is not None and (told := probe.problem(max(0.0, began + PATIENCE - time.monotonic()))):
        wrong["store"] = [told]
    missing = {part: texts for part, texts in wrong.items() if texts}
    if missing:
        told = "; ".join(text for texts in missing.values() for text in texts)
        return problem(503, f"Not ready: {told}.", missing, headers={"Retry-After": "2"})
    return json({"status": "ok"})


def _wrong(role: str, url: str) -> list[str]:
    """What keeps a Redis from its work. A full cache makes room; the queue's never does."""
    try:
        told = connect(url, timeout=PATIENCE, retries=0).info("memory")
    except redis.exceptions.RedisError:
        return [f"the {role}'s Redis does not answer"]
    used, most = told["used_memory"], told["maxmemory"]
    full = most and used >= most and told["maxmemory_policy"] == "noeviction"
    return [f"the {role}'s Redis is full: it takes {used:,} bytes of {most:,}"] if full else []
