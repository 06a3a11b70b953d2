"""Content negotiation: the media type and the content coding that a client prefers (RFC 9110, section 12)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from flask import Flask, request
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from service.http.problems import not_acceptable

CODINGS = ("br", "gzip")  # the first of those that a client likes equally


def representation(*offered: str) -> str:
    """Return the media type that the client prefers, the first without Accept. 406 if it accepts none.

    Parameters of a media range other than q are ignored: no representation here has variants that they could select.
    """
    header = request.headers.get("Accept")
    if not header:
        return offered[0]
    best = _best_media_type(header, offered)
    if best is None:
        raise not_acceptable(list(offered))
    return best


@lru_cache(1024)
def _best_media_type(header: str, offered: tuple[str, ...]) -> str | None:
    ranges = [(value.partition(";")[0].strip().lower(), quality) for value, quality in parse_accept_header(header)]
    qualities = {media_type: _media_quality(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: qualities[media_type])
    return best if qualities[best] > 0 else None


def _media_quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality from the most specific range that matches, 0 if none does."""
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        qualities = [quality for value, quality in ranges if value == media_range]
        if qualities:
            return max(qualities)
    return 0.0


def register(app: Flask) -> None:
    """Reduce each request's Accept-Encoding to the coding to use, before anything reads it."""

    @app.before_request
    def choose_coding() -> None:
        header = request.environ.get("HTTP_ACCEPT_ENCODING")
        if header:
            request.environ["HTTP_ACCEPT_ENCODING"] = content_coding(header)


@lru_cache(1024)
def content_coding(header: str) -> str:
    """Return the coding that an Accept-Encoding prefers of ours; "identity" to send the response as it is.

    A coding of quality 0 is never used.
    """
    accept = parse_accept_header(header, Accept)
    qualities = {value.lower(): quality for value, quality in accept}
    anything = qualities.get("*", 0.0)
    best = max(CODINGS, key=lambda coding: qualities.get(coding, anything))
    quality = qualities.get(best, anything)
    return best if quality > 0 and quality >= qualities.get("identity", 0.0) else "identity"
