"""Health: whether the process lives, and whether it can do its work."""

from __future__ import annotations

from typing import Any

import redis.exceptions
from flask import Response
from redis import Redis
from rq import Queue, Worker

from service.asking.queue import desk
from service.http.answers import json
from service.http.blueprint import Blueprint
from service.http.problems import problem
from service.http.schemas import HealthSchema, ProblemSchema
from worker.store.connection import connect
from worker.store.queues import LANES, Lane, name

PATIENCE = 0.8  # seconds for each Redis; a health check that hangs tells nothing

blueprint = Blueprint("health", __name__, description="Whether the service can do its work")


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

    503 says what is missing. A load balancer sends no requests here until this answers 200.
    """
    settings = desk().settings
    missing = [
        f"the {role}'s Redis does not answer"
        for role, url in (("queue", settings.queue_url), ("cache", settings.cache_url))
        if not _answers(url)
    ]
    if not missing:
        missing = [f"no worker for {lane} jobs is registered" for lane in LANES if not workers(desk().queue, lane)]
    if missing:
        return problem(503, f"Not ready: {'; '.join(missing)}.", headers={"Retry-After": "2"})
    return json({"status": "ok"})


def _answers(url: str) -> bool:
    try:
        return bool(connect(url, timeout=PATIENCE, retries=0).ping())
    except redis.exceptions.RedisError:
        return False


def workers(queue: Redis, lane: Lane) -> int:
    """How many workers of a lane gave a sign of life lately; those that died stay registered for a while."""
    keys = Worker.all_keys(queue=Queue(name(lane, "normal"), connection=queue))
    return int(queue.exists(*keys)) if keys else 0
