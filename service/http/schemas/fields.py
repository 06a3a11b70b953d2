"""Fields that several schemas use: strict numbers, token lists, times."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from marshmallow import ValidationError, fields, validate

from worker.describe.config import MAX_TOKENS


class JsonInteger(fields.Integer):
    """An integer in a JSON body, which may be written 6.0; strings and booleans are invalid."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return super()._deserialize(to_integer(value), attr, data, **kwargs)


def integer(minimum: int, maximum: int, **kwargs: Any) -> fields.Integer:
    """Return a field for an integer in a range."""
    allowed = f"Must be an integer from {minimum:,} to {maximum:,}."
    kwargs["error_messages"] = dict.fromkeys(("invalid", "too_large"), allowed)
    return JsonInteger(strict=True, validate=validate.Range(minimum, maximum, error=allowed), **kwargs)


def to_integer(value: Any) -> Any:
    """Return the integer that a JSON number such as 6.0 or 2e3 is exactly; any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Number(fields.Float):
    """A number; strings and booleans are invalid."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value + 0.0, attr, data, **kwargs)  # turns −0 into 0


class Boolean(fields.Boolean):
    """True or false; numbers and strings are invalid."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryInteger(fields.Integer):
    """An integer in a query string: at most 19 ASCII digits, with an optional minus sign."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not re.fullmatch(r"-?\d{1,19}", value, re.ASCII):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Tokens(fields.List[Any]):
    """A list of tokens, which may be long: only suspicious items are validated, and of those the first 100."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        for validator in self.validators:
            validator(value)
        errors, largest = {}, MAX_TOKENS - 1
        for n in islice(
            (n for n, token in enumerate(value) if type(token) is not int or not 0 <= token <= largest), 100
        ):
            try:
                self.inner.deserialize(value[n])
            except ValidationError as error:
                errors[n] = error.messages
        if errors:
            raise ValidationError(errors)
        return value if all(type(token) is int for token in value) else [to_integer(token) for token in value]


def timestamp(**kwargs: Any) -> fields.String:
    """Return a field for a time in UTC (RFC 3339)."""
    return fields.String(**kwargs, metadata={"format": "date-time"})
