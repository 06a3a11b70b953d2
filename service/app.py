"""The Flask application: resources, extensions and request hooks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from threading import Semaphore
from typing import Any

import orjson
from flask import Flask
from flask.json.provider import JSONProvider
from flask_smorest import Api

import service.http.auth as auth
import service.http.compression as compression
import service.http.cross_origin as cross_origin
import service.http.hosts as hosts
import service.http.negotiation as negotiation
import service.http.problems as problems
import service.http.request_context as request_context
import service.http.request_metrics as request_metrics
import service.http.response_cache as response_cache
import service.http.security_headers as security_headers
import service.jobs.digests as digests
import service.openapi.document as document
import service.resources.batches as batches
import service.resources.docs as docs
import service.resources.explain as explain
import service.resources.exports as exports
import service.resources.families as families
import service.resources.health as health
import service.resources.layouts as layouts
import service.resources.lens as lens
import service.resources.metrics as metrics
import service.resources.models as models
import service.resources.openapi as openapi
import service.resources.trace_file as trace_file
import service.resources.traces as traces
import service.resources.viewer as viewer
import service.resources.weights_file as weights_file
from service.http.event_stream import Streams
from service.http.large_reads import LargeReads
from service.http.request_metrics import RequestMetrics
from service.http.schemas.models import config_components
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import VALUES
from service.http.shared_bytes import SharedBytes
from service.jobs.archive_probe import ArchiveProbe
from service.jobs.broker import Broker
from service.settings import Settings


class App(Flask):
    """A Flask application whose hooks and views are all synchronous."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func  # Flask inspects each of the dozen functions of each request for `async def`


class Json(JSONProvider):
    """Flask's JSON provider, based on orjson: RFC 8259, without NaN."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)


def create_app(given: Settings | None = None) -> Flask:
    """Create the application, by default with settings from the environment. Opens no connection before a request."""
    settings = given or Settings.from_environment()
    app = App(__name__, static_folder=None)
    app.json = Json(app)
    app.url_map.strict_slashes = False
    app.config |= compression.SETTINGS | {
        "MAX_CONTENT_LENGTH": settings.max_body_bytes,
        "API_TITLE": "Cutaway",
        "API_VERSION": version("cutaway"),
        "OPENAPI_VERSION": "3.1.0",
        "API_SPEC_OPTIONS": {"info": {"description": document.INTRODUCTION}},
    }
    app.extensions["broker"] = Broker.for_requests(settings)
    digests.register()
    archive = app.extensions["broker"].results.archive
    app.extensions["probe"] = ArchiveProbe(archive) if archive else None
    app.extensions["waiters"] = Semaphore(settings.max_waits)
    app.extensions["streams"] = Streams(settings.max_streams)
    app.extensions["large_reads"] = LargeReads()
    app.extensions["metrics"] = RequestMetrics()
    app.extensions["shared_bytes"] = SharedBytes(settings.max_kept_bytes // 4, app.extensions["waiters"])
    # Hooks registered earlier see requests earlier and responses later.
    response_cache.register(app, settings.max_kept_bytes // 4 * 3, app.extensions["metrics"])
    request_context.register(app)
    negotiation.register(app)
    request_metrics.register(app)
    hosts.register(app, settings)
    auth.register(app, settings, app.extensions["broker"].queue)  # before any hook or view that responds
    cross_origin.register(app, settings)
    compression.Compression(app)
    api = Api(app)
    api.spec.components.schema("Problem", schema=ProblemSchema)
    for name, component in config_components().items():
        api.spec.components.schema(name, component=component)
    api.spec.components.schema("Values", component=VALUES)
    for resource in (
        models,
        families,
        weights_file,
        layouts,
        traces,
        trace_file,
        batches,
        explain,
        lens,
        exports,
        health,
        metrics,
        openapi,
        docs,
    ):
        api.register_blueprint(resource.blueprint)
    app.register_blueprint(docs.assets)
    app.register_blueprint(viewer.blueprint)
    for name, scheme in auth.SCHEMES.items():
        api.spec.components.security_scheme(name, scheme)
    problems.register(app)
    security_headers.register(app, settings)
    return app


def openapi_yaml() -> str:
    """Return the OpenAPI document of the service as YAML."""
    return document.text(create_app(Settings()))
