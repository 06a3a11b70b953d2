"""docs/settings.md has every setting's default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from service.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
UNDOCUMENTED = {"HELD_WEIGHTS_BYTES", "LAYOUT_TIMEOUT"}  # not for deployments to change
ELSEWHERE = {"QUEUE_URL", "CACHE_URL"}  # `make run` embeds both


def test_the_page_has_the_default_of_every_setting() -> None:
    shown: dict[str, str] = {}
    for names, defaults in re.findall(
        r"^\| (`[A-Z_`, ]+`) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    ):
        variables = re.findall(r"[A-Z_]+", names)
        values = defaults.split(", ")
        shown |= zip(variables, values * len(variables) if len(values) == 1 else values, strict=False)
    defaults = {field.name.upper(): str(field.default) for field in fields(Settings)}
    for name in defaults.keys() - UNDOCUMENTED - ELSEWHERE:
        assert shown[name] == {"": "none"}.get(defaults[name], defaults[name]), name
