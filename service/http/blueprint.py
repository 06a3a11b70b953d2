"""Blueprints that parse requests strictly: JSON only, no unknown fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flask_smorest
import marshmallow
from flask import Request
from webargs.flaskparser import FlaskParser, is_json_request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

import service.http.json_parsing as json_parsing
import service.openapi.examples as examples


class Parser(FlaskParser):
    """Parses JSON bodies and queries; unknown query parameters are errors."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": marshmallow.RAISE}  # noqa: RUF012

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        """Parse the body as JSON (RFC 8259). 415 for another Content-Type, 400 for invalid JSON."""
        if not is_json_request(req):
            raise UnsupportedMediaType(f"Content-Type must be application/json, not {req.mimetype or 'absent'}.")
        try:
            return json_parsing.loads(read_body(req))
        except json_parsing.InvalidJson as error:
            raise BadRequest(f"The body is not valid JSON: {error}.") from None


def read_body(req: Request) -> bytes:
    """Return the bytes of a body. 413 if it is too large.

    415 if it is compressed: decompressing a small body could fill the memory.
    """
    coding = req.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise _Compressed(f"Content-Encoding {coding!r} is not supported: send the body uncompressed.")
    limit = req.max_content_length
    if limit is None or req.content_length is not None:
        return req.get_data()
    req.max_content_length = limit + 1  # Werkzeug cuts a chunked body here without an error
    body = req.get_data()
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body


class _Compressed(UnsupportedMediaType):
    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), ("Accept-Encoding", "identity")]


class Blueprint(flask_smorest.Blueprint):
    """The operations of a resource."""

    ARGUMENTS_PARSER = Parser()

    def arguments(self, schema: type[marshmallow.Schema], **kwargs: Any) -> Callable[[Any], Any]:
        """Declare the arguments of an operation. The schema is created once, which takes as long as parsing a query."""
        return cast("Callable[[Any], Any]", super().arguments(schema(), **kwargs))

    @classmethod
    def headers(cls, *parameters: dict[str, Any]) -> Callable[[Any], Any]:
        """Document request headers, beside the query that `arguments` documents."""

        def decorate(view: Any) -> Any:
            documented = cls.doc()(view)  # with a copy of the view's documentation
            documented._apidoc.setdefault("arguments", {}).setdefault("parameters", []).extend(parameters)
            return documented

        return decorate

    @classmethod
    def example(cls, **given: Any) -> Callable[[Any], Any]:
        """Declare the example request of an operation; see `examples.declare`."""
        return cast("Callable[[Any], Any]", cls.doc(**{"x-example": examples.declare(**given)}))


PREFER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "example": "wait=10",
    "description": "Wait until the request has ended, at most so many seconds (RFC 7240)",
}

RANGE = {
    "in": "header",
    "name": "Range",
    "schema": {"type": "string"},
    "example": "bytes=0-7",
    "description": "One range of bytes (RFC 9110); with If-Range, only if the file has not changed",
}
BYTES = {"type": "string", "format": "binary"}


def other_media_types(*media_types: str) -> dict[str, Any]:
    """Document further media types of a 200 response."""
    return {"responses": {200: {"content": {media_type: {"schema": {}} for media_type in media_types}}}}
