"""Who asks: let in by a key where keys are set, and asking for computation no more often than is allowed."""

from __future__ import annotations

import ipaddress
import math
import time
from typing import Any

import limits
from flask import Flask, Response, current_app, g, request
from limits import RateLimitItem
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import Redis
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

import worker.logs as logs
from service.http.api_keys import Keys
from service.jobs.broker import broker
from service.settings import Settings

#: Blueprints for whoever comes: health, descriptions and pages. All that is added needs a key.
OPEN = {"health", "openapi", "docs", "docs_files", "viewer"}
HEADERS = ["RateLimit", "RateLimit-Policy"]
#: How a key is given, for the description of the API.
SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_NETWORK = 64  # bits of an IPv6 address that one caller has all to themselves


def caller() -> str:
    """Who asks: a key by its name, or an address."""
    return str(g.get("caller", ""))


def count() -> None:
    """Count that the caller asks for something to be computed. 429 where that is too often."""
    rate: Rate | None = current_app.extensions["rate"]
    if rate is not None:
        rate.count(caller())


def admit(id: str) -> None:
    """Let the caller have a result computed (again) by reading it, as if it were asked for by a POST. Raises 429."""
    count()
    broker().admission.admit(caller(), [id])


def register(app: Flask, settings: Settings, queue: Redis) -> None:
    """Have an app know its callers. Raises ValueError where a setting cannot be."""
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    keys = Keys.of(settings)
    app.extensions["rate"] = Rate(parsed(settings.rate_limit), queue) if settings.rate_limit else None

    @app.before_request
    def let_in() -> None:
        if request.url_rule is None or request.blueprint in OPEN or request.method == "OPTIONS":
            return
        g.caller = _key_name(keys) if keys else _address()
        if keys:
            logs.add(caller=g.caller)
        if request.method == "POST":  # what else has something computed is counted when it does
            count()

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers.update(g.get("rate", {}))
        if keys and "caller" in g:  # what is for who has a key is for no cache that others share
            response.headers["Cache-Control"] = response.headers.get("Cache-Control", "").replace("public", "private")
        return response


def parsed(rate_limit: str) -> RateLimitItem:
    """How many in how long. Raises ValueError."""
    try:
        return limits.parse(rate_limit)
    except ValueError:
        raise ValueError(f"RATE_LIMIT={rate_limit!r}: one is like 600/minute, 10/second or 5000/day.") from None


class Rate:
    """How often a caller may ask for something to be computed, in any window of time and over all processes."""

    def __init__(self, item: RateLimitItem, queue: Redis) -> None:
        self.item = item
        self.policy = f'"caller";q={self.item.amount};w={self.item.get_expiry()}'
        storage = RedisStorage("redis://", connection_pool=queue.connection_pool, key_prefix="rate")
        self.limiter = MovingWindowRateLimiter(storage)

    def count(self, caller: str) -> None:
        """Count a request, and have the answer tell what is left. 429 where nothing is."""
        allowed = self.limiter.hit(self.item, caller)
        reset, left = self.limiter.get_window_stats(self.item, caller)
        seconds = max(1, math.ceil(reset - time.time()))
        g.rate = {"RateLimit-Policy": self.policy, "RateLimit": f'"caller";r={max(0, left)};t={seconds}'}
        if not allowed:
            told = f"At most {self.item.amount:,} requests to compute something are allowed for each caller"
            raise TooManyRequests(f"{told} in {self.item.get_expiry():,} s (RATE_LIMIT).", retry_after=seconds)


def _key_name(keys: Keys) -> str:
    given = request.headers.get("X-API-Key")
    if request.authorization is not None and request.authorization.type == "bearer":
        given = request.authorization.token
    name = keys.name(given) if given else None
    if name is not None:
        return f"key:{name}"
    told, parameters = "A key is needed here", dict[str, str | None](realm="cutaway")
    if given:
        told, parameters["error"] = "This key is not known", "invalid_token"
    raise Unauthorized(
        f"{told}: Authorization: Bearer KEY and X-API-Key: KEY are read.",
        www_authenticate=WWWAuthenticate("bearer", parameters),
    )


def _address() -> str:
    """The address of who asks; of IPv6, where one has many, their network's."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:  # a socket of this machine
        return "address:local"
    if address.version == 6:
        return f"address:{ipaddress.ip_network((address, _NETWORK), strict=False)}"
    return f"address:{address}"
