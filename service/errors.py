"""Errors in a client's request, raised at any level of the service."""

from __future__ import annotations

from werkzeug.exceptions import UnprocessableEntity

Errors = dict[str, list[str]]  # messages by field


class Invalid(UnprocessableEntity):
    """A request with invalid fields (422); `errors` describes for each what is allowed."""

    def __init__(self, errors: Errors) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, texts in errors.items() for text in texts))
        self.errors = errors
