"""Every error's shape: application/problem+json (RFC 9457)."""

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
from worker.models.checkpoints import CheckpointError
from worker.models.lookup import UnknownModelError
from worker.store.stored_bytes import Missing, Unavailable

log = logging.getLogger(__name__)
_NO_ROOM = ("OOM ", "MISCONF ")  # how Redis begins, or has a script say, that memory or disk are full
_MOST = 110  # fields that are told of; one mistake is often in all of them
_LONGEST = 2000  # characters of a text
#: What is told of an exception's own headers.
_TOLD = ("Allow", "Retry-After", "Accept", "Accept-Encoding", "Content-Range", "WWW-Authenticate")


def problem(status: int, detail: str, errors: Errors | None = None, headers: dict[str, str] | None = None) -> Response:
    """A problem as a response."""
    return Response(
        orjson.dumps(body(status, detail, errors)), status, headers, content_type="application/problem+json"
    )


def body(status: int, detail: str, errors: Errors | None = None) -> dict[str, Any]:
    """What a problem says."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    about = logs.context()
    if "request_id" in about:
        told["request_id"] = about["request_id"]
    return told | ({"errors": errors} if errors else {})


def not_acceptable(allowed: list[str], why: str = "There is no such representation") -> NotAcceptable:
    """406, listing what there is."""
    return NotAcceptable(f"{why}: ask for {' or '.join(allowed)} in Accept.")


def register(app: Flask) -> None:
    """Answer every exception with a problem; only a defect of ours is a 500, and it tells nothing of itself."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(ConfigError, lambda error: _invalid(wrong_with(error)))
    app.register_error_handler(UnknownModelError, lambda error: problem(404, _cut(str(error))))
    app.register_error_handler(CheckpointError, lambda error: _invalid(wrong_with(error)))
    for away in (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        app.register_error_handler(away, _redis_away)
    app.register_error_handler(redis.exceptions.ResponseError, _redis_refused)
    app.register_error_handler(Missing, _lost)
    app.register_error_handler(Unavailable, _archive_away)
    app.register_error_handler(Exception, _defect)


def wrong_with(error: Invalid | ConfigError | UnknownModelError | CheckpointError) -> Errors:
    """What is wrong with a request, by its fields: a size that cannot be is the model's, unless it is beside it."""
    if isinstance(error, Invalid):
        return error.errors
    if isinstance(error, ConfigError):
        beside = ("tokens", "batch", "style")
        return {k if k in beside else f"model.{k}" if k else "model": v for k, v in error.errors.items()}
    return {"model": [str(error)]}


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None:
        return problem(status, HTTPStatus(status).description)
    if isinstance(error, Invalid):
        return _invalid(wrong_with(error))
    messages = getattr(error, "data", {}).get("messages")
    if messages:  # marshmallow's, by where the field was looked for
        return _invalid(flatten({k: v for part in messages.values() for k, v in _fields(part).items()}))
    headers = {name: value for name, value in error.get_headers() if name in _TOLD}
    return problem(status, _detail(error), headers=headers)


def _detail(error: HTTPException) -> str:
    """What went wrong, in words of this API where werkzeug has only general ones."""
    if isinstance(error, RequestEntityTooLarge):
        return f"The body is larger than the {current_app.config['MAX_CONTENT_LENGTH']:,} bytes that are read here."
    if isinstance(error, MethodNotAllowed):
        return f"{request.method} is not allowed here: {', '.join(sorted(error.valid_methods or ()))} are."
    if isinstance(error, NotFound) and error.description == NotFound.description:
        return f"There is nothing at {_cut(request.path)}: /openapi.yaml tells what there is."
    return _cut(error.description) if error.description else HTTPStatus(error.code or 500).description


def _invalid(wrong: Errors) -> Response:
    errors = _shortened(wrong)
    return problem(422, "; ".join(f"{field}: {' '.join(texts)}" for field, texts in errors.items()), errors)


def _shortened(errors: Errors) -> Errors:
    """Errors that quote what was sent, but no more of it than helps."""
    told = {_cut(field): [_cut(text) for text in texts[:_MOST]] for field, texts in islice(errors.items(), _MOST)}
    if len(errors) > _MOST:
        told["body"] = [*told.get("body", []), f"{len(errors) - _MOST:,} more are wrong."]
    return told


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def _fields(part: Any) -> dict[str, Any]:
    return {str(k): v for k, v in part.items()} if isinstance(part, dict) else {"body": part}


def flatten(messages: dict[str, Any], prefix: str = "") -> Errors:
    """Nested messages by the dotted path of their field."""
    errors: Errors = {}
    for name, inner in messages.items():
        path = (prefix or "body") if name == "_schema" else f"{prefix}.{name}" if prefix else str(name)
        if isinstance(inner, dict):
            errors |= flatten(inner, path)
        else:
            errors[path] = [str(text) for text in inner]
    return errors


def _redis_away(error: Exception) -> Response:
    log.warning("Redis is away: %s", error)
    return problem(503, "The service's store is away for the moment; try again.", headers={"Retry-After": "2"})


def _redis_refused(error: redis.exceptions.ResponseError) -> Response:
    if not any(word in str(error) for word in _NO_ROOM):
        return _defect(error)
    log.error("Redis refuses to write: %s", error)
    return problem(503, "The service's store has no room for the moment; try again.", headers={"Retry-After": "5"})


def _archive_away(error: Unavailable) -> Response:
    return problem(503, f"{error} Try again.", headers={"Retry-After": "5"})


def _lost(error: Missing) -> Response:
    return problem(503, "The store lost this while it was read; ask again.", headers={"Retry-After": "1"})


def _defect(error: Exception) -> Response:
    log.exception("unexpected error", exc_info=error)
    return problem(500, "Something went wrong here; the request was not the reason.")
