"""Prefer: wait (RFC 7240)."""

from __future__ import annotations

import pytest
from flask import Flask

from service.http.responses import preferred_wait


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=9", 9),
        ('wait="9"', 9),
        ("respond-async, WAIT = 9; a=b", 9),
        ('x="a, wait=9", wait=0', 0),
        ('x="a, wait=9"', 0),
        ("wait=1, wait=9", 1),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("wait", 0),
        ('x="', 0),
        ("wait=99999999", 60),
    ],
)
def test_the_first_wait_outside_quotes_counts(app: Flask, header: str, seconds: float) -> None:
    with app.test_request_context(headers={"Prefer": header}):
        assert preferred_wait() == seconds
