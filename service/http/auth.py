"""Authentication by API keys, and the client of each request."""

from __future__ import annotations

import ipaddress
from typing import Any

from flask import Flask, Response, current_app, g, request
from redis import Redis
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

import service.http.rate_limit as rate_limit
import worker.logs as logs
from service.http.api_keys import Keys
from service.http.rate_limit import RateLimiter
from service.jobs.broker import broker
from service.settings import Settings

#: Blueprints that need no key: health, descriptions and pages. New ones need a key unless they are added here.
PUBLIC = {"health", "openapi", "docs", "docs_files", "viewer"}
#: How a client sends its key, for the OpenAPI document.
SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_NETWORK = 64  # bits of an IPv6 prefix that one client usually owns


def client() -> str:
    """Return the client of the request: `key:` and the name of its key, or `address:` and its address."""
    return str(g.get("client", ""))


def check_rate_limit() -> None:
    """Count a request for computation against the client's rate limit. Raises TooManyRequests (429)."""
    limiter: RateLimiter | None = current_app.extensions["rate_limiter"]
    if limiter is not None:
        limiter.count(client())


def admit(id: str) -> None:
    """Apply the limits of a POST to a GET that computes a result. Raises TooManyRequests (429)."""
    check_rate_limit()
    broker().admission.admit(client(), [id])


def register(app: Flask, settings: Settings, queue: Redis) -> None:
    """Authenticate and rate-limit an app's requests. Raises ValueError for an invalid setting."""
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    keys = Keys.from_settings(settings)
    limit = rate_limit.parse(settings.rate_limit) if settings.rate_limit else None
    app.extensions["rate_limiter"] = RateLimiter(limit, queue) if limit else None

    @app.before_request
    def authenticate() -> None:
        if request.url_rule is None or request.blueprint in PUBLIC or request.method == "OPTIONS":
            return
        g.client = _key_name(keys) if keys else _address()
        if keys:
            logs.add(caller=g.client)
        if request.method == "POST":  # other methods call this where they compute something
            check_rate_limit()

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(g.get("rate_limit", {}))
        cached = response.headers.get("Cache-Control")
        if cached and keys and "client" in g:  # shared caches must not store responses that need a key
            response.headers["Cache-Control"] = cached.replace("public", "private")
        return response


def _key_name(keys: Keys) -> str:
    key = request.headers.get("X-API-Key")
    if request.authorization is not None and request.authorization.type == "bearer":
        key = request.authorization.token
    name = keys.name(key) if key else None
    if name is not None:
        return f"key:{name}"
    message, parameters = "An API key is required", dict[str, str | None](realm="cutaway")
    if key:
        message, parameters["error"] = "This API key is unknown", "invalid_token"
    raise Unauthorized(
        f"{message}: send Authorization: Bearer KEY or X-API-Key: KEY.",
        www_authenticate=WWWAuthenticate("bearer", parameters),
    )


def _address() -> str:
    """Return the client's IPv4 address, or its IPv6 network: a client has many addresses there."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:  # a Unix socket
        return "address:local"
    if address.version == 6:
        return f"address:{ipaddress.ip_network((address, _NETWORK), strict=False)}"
    return f"address:{address}"
