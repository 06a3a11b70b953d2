"""A blueprint whose requests are read strictly: JSON only, and no field or query that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flask_smorest
import marshmallow
from flask import Request
from webargs.flaskparser import FlaskParser, is_json_request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

import service.http.json_parsing as json_parsing
import service.openapi.examples as examples


class Parser(FlaskParser):
    """Reads JSON bodies and queries, and says what is wrong with them."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": marshmallow.RAISE}  # noqa: RUF012

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        """The body as JSON (RFC 8259). 415 where it is said to be something else, 400 where it is none."""
        if not is_json_request(req):
            sent = f"{req.mimetype!r}" if req.mimetype else "nothing"
            raise UnsupportedMediaType(f"Content-Type says {sent}: application/json is read here.")
        try:
            return json_parsing.loads(content(req))
        except json_parsing.NotJson as error:
            raise BadRequest(f"The body is not JSON: {error}.") from None


def content(req: Request) -> bytes:
    """The bytes of a body. 415 where they are compressed: a few could become more than there is memory."""
    coding = req.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise _Compressed(f"Content-Encoding says {coding!r}: bodies are read here as they are, without one.")
    return req.get_data()


class _Compressed(UnsupportedMediaType):
    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), ("Accept-Encoding", "identity")]


class Blueprint(flask_smorest.Blueprint):
    """One resource's operations."""

    ARGUMENTS_PARSER = Parser()

    def arguments(self, schema: type[marshmallow.Schema], **kwargs: Any) -> Callable[[Any], Any]:
        """What an operation takes. One schema serves all requests: making it takes as long as reading a query."""
        return cast("Callable[[Any], Any]", super().arguments(schema(), **kwargs))

    @classmethod
    def example(cls, **given: Any) -> Callable[[Any], Any]:
        """The request that shows what an operation is for, as `examples.declared` has it."""
        return cast("Callable[[Any], Any]", cls.doc(**{"x-example": examples.declared(**given)}))


PREFER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "example": "wait=10",
    "description": "Hold the request until it has ended, or so many seconds (RFC 7240)",
}

RANGE = {
    "in": "header",
    "name": "Range",
    "schema": {"type": "string"},
    "example": "bytes=0-7",
    "description": "One range of bytes (RFC 9110); with If-Range, only while the file is the same",
}
BYTES = {"type": "string", "format": "binary"}


def also(*media_types: str) -> dict[str, Any]:
    """Documentation of other representations of what an operation answers with 200."""
    return {"responses": {200: {"content": {media_type: {"schema": {}} for media_type in media_types}}}}
