"""Fields that many schemas have: numbers as JSON has them, and times."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from marshmallow import ValidationError, fields, validate

from worker.describe.config import MAX_TOKENS


def whole(least: int, most: int, **kwargs: Any) -> fields.Integer:
    """A whole number in a range; numbers as text are refused."""
    return fields.Integer(strict=True, validate=validate.Range(least, most), **kwargs)


class Number(fields.Float):
    """A number; one as text is refused."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value + 0.0, attr, data, **kwargs)  # −0 is 0


class Digits(fields.Integer):
    """A whole number in a query: an optional sign and digits, as JSON has them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not re.fullmatch(r"-?\d{1,19}", value, re.ASCII):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Tokens(fields.List[Any]):
    """Whole numbers in a list that may be long: only what looks wrong is looked at closely, and little of that."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        for validator in self.validators:
            validator(value)
        errors, most = {}, MAX_TOKENS - 1
        for n in islice((n for n, token in enumerate(value) if type(token) is not int or not 0 <= token <= most), 100):
            try:
                self.inner.deserialize(value[n])
            except ValidationError as error:
                errors[n] = error.messages
        if errors:
            raise ValidationError(errors)
        return value


def moment(**kwargs: Any) -> fields.String:
    """A time as RFC 3339, in UTC."""
    return fields.String(**kwargs, metadata={"format": "date-time"})
