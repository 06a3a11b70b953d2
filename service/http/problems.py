"""Error responses as application/problem+json (RFC 9457)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson
import redis.exceptions
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
)

import worker.logs as logs
from service.errors import Errors, Invalid
from worker.describe.config import ConfigError
from worker.models.checkpoints import BeingReadError, CheckpointError
from worker.models.lookup import UnknownModelError
from worker.models.tokenizer import TokenizerBusyError
from worker.store.stored_bytes import Missing, Unavailable
from worker.weights.digests import ChangedError

log = logging.getLogger(__name__)
_OUT_OF_SPACE = ("OOM ", "MISCONF ")  # in Redis' errors, also those from scripts: memory or disk is full
_MAX_ERRORS = 110  # reported fields, and messages of a field; one mistake is often in all of them
_MAX_TEXT = 2000  # characters of a message
_READ_RATE = 500_000_000  # bytes of a checkpoint that are read in a second, about
#: Headers of an exception that its response has, too.
_HEADERS = ("Allow", "Retry-After", "Accept", "Accept-Encoding", "Content-Range", "WWW-Authenticate")


def problem(status: int, detail: str, errors: Errors | None = None, headers: dict[str, str] | None = None) -> Response:
    """Return a problem as a response."""
    return Response(
        orjson.dumps(body(status, detail, errors)), status, headers, content_type="application/problem+json"
    )


def body(status: int, detail: str, errors: Errors | None = None) -> dict[str, Any]:
    """Return the body of a problem."""
    members = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    context = logs.context()
    if "request_id" in context:
        members["request_id"] = context["request_id"]
    return members | ({"errors": errors} if errors else {})


def not_acceptable(offered: list[str], reason: str = "None of the accepted media types is available") -> NotAcceptable:
    """Return a 406 that lists the media types on offer."""
    return NotAcceptable(f"{reason}: Accept must allow {' or '.join(offered)}.")


def register(app: Flask) -> None:
    """Respond to every exception with a problem. Only bugs are a 500, which reveals no details."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(ConfigError, lambda error: _invalid(errors_of(error)))
    app.register_error_handler(UnknownModelError, lambda error: problem(404, _cut(str(error))))
    app.register_error_handler(CheckpointError, lambda error: _invalid(errors_of(error)))
    app.register_error_handler(ChangedError, _changed)
    app.register_error_handler(BeingReadError, _being_read)
    for unavailable in (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        app.register_error_handler(unavailable, _redis_unavailable)
    app.register_error_handler(redis.exceptions.ResponseError, _redis_error)
    app.register_error_handler(Missing, _missing)
    app.register_error_handler(TokenizerBusyError, _tokenizer_busy)
    app.register_error_handler(Unavailable, _archive_unavailable)
    app.register_error_handler(Exception, _bug)


def errors_of(error: Invalid | ConfigError | UnknownModelError | CheckpointError) -> Errors:
    """Return the errors of a request by field; those of a configuration get the prefix `model.`."""
    if isinstance(error, Invalid):
        return error.errors
    if isinstance(error, ConfigError):
        own = ("tokens", "batch", "style")  # fields of the request itself
        return {k if k in own else f"model.{k}" if k else "model": v for k, v in error.errors.items()}
    return {"model": [str(error)]}


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None:
        return problem(status, HTTPStatus(status).description)
    if isinstance(error, Invalid):
        return _invalid(errors_of(error))
    messages = getattr(error, "data", {}).get("messages")
    if messages:  # from marshmallow, by location (json, query)
        return _invalid(flatten({k: v for part in messages.values() for k, v in _fields(part).items()}))
    headers = {name: value for name, value in error.get_headers() if name in _HEADERS}
    return problem(status, _detail(error), headers=headers)


def _detail(error: HTTPException) -> str:
    """Return the detail of a problem, more specific than werkzeug's descriptions."""
    if isinstance(error, RequestEntityTooLarge):
        return f"The body must have at most {current_app.config['MAX_CONTENT_LENGTH']:,} bytes."
    if isinstance(error, MethodNotAllowed):
        return f"{request.method} is not allowed: use {', '.join(sorted(error.valid_methods or ()))}."
    if isinstance(error, NotFound) and error.description == NotFound.description:
        return f"There is no route {_cut(request.path)}: see /openapi.yaml."
    return _cut(error.description) if error.description else HTTPStatus(error.code or 500).description


def _invalid(all_errors: Errors) -> Response:
    errors = _shorten(all_errors)
    return problem(422, "; ".join(f"{field}: {' '.join(texts)}" for field, texts in errors.items()), errors)


def _shorten(errors: Errors) -> Errors:
    """Limit the number and length of messages: they quote what the client sent."""
    shown = {
        _cut(field): [_cut(text) for text in texts[:_MAX_ERRORS]]
        for field, texts in islice(errors.items(), _MAX_ERRORS)
    }
    if len(errors) > _MAX_ERRORS:
        shown["body"] = [*shown.get("body", []), f"{len(errors) - _MAX_ERRORS:,} more errors are not listed."]
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]}…{text[-_MAX_TEXT // 2 :]}"


def _fields(part: Any) -> dict[str, Any]:
    return {str(k): v for k, v in part.items()} if isinstance(part, dict) else {"body": part}


def flatten(messages: dict[str, Any], prefix: str = "") -> Errors:
    """Return nested messages by the dotted paths of their fields."""
    errors: Errors = {}
    for name, inner in messages.items():
        path = (prefix or "body") if name == "_schema" else f"{prefix}.{name}" if prefix else str(name)
        if isinstance(inner, dict):
            errors |= flatten(inner, path)
        else:
            errors[path] = [str(text) for text in inner]
    return errors


def _redis_unavailable(error: Exception) -> Response:
    log.warning("Redis is unavailable: %s", error)
    return problem(503, "The store is temporarily unavailable; try again.", headers={"Retry-After": "2"})


def _redis_error(error: redis.exceptions.ResponseError) -> Response:
    if not any(word in str(error) for word in _OUT_OF_SPACE):
        return _bug(error)
    log.error("Redis is out of space: %s", error)
    return problem(503, "The store is temporarily out of space; try again.", headers={"Retry-After": "5"})


def _archive_unavailable(error: Unavailable) -> Response:
    return problem(503, f"{error} Try again.", headers={"Retry-After": "5"})


def _missing(error: Missing) -> Response:
    return problem(503, "The result was lost while it was read; try again.", headers={"Retry-After": "1"})


def _changed(error: ChangedError) -> Response:
    return problem(503, f"A file of the checkpoint has changed: {error}. Try again.", headers={"Retry-After": "1"})


def _being_read(error: BeingReadError) -> Response:
    """Return a 503 that asks to retry after about the rest of the reading."""
    seconds = min(max(1, (error.total - error.done) // _READ_RATE), 60)
    return problem(503, f"{error} Try again.", headers={"Retry-After": str(seconds)})


def _tokenizer_busy(error: TokenizerBusyError) -> Response:
    return problem(503, f"{error} Try again.", headers={"Retry-After": "5"})


def _bug(error: Exception) -> Response:
    log.exception("unexpected error", exc_info=error)
    return problem(500, "Internal error: the request did not cause it.")
