"""Which tensors are asked for by patterns of their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from service.errors import Invalid
from worker.trace.arena import captured

PATTERNS = 100  # that are read, in all


def chosen(
    names: Collection[str], given: Sequence[str], what: str, meant: Callable[[str], str] = lambda pattern: pattern
) -> list[str]:
    """The names that shell-style patterns match, in their order: all without a pattern.

    `given` has one pattern a text, or several with commas between them; `meant` is a pattern by the names' own words,
    `what` what a name is of, for people. Raises Invalid (422) where a pattern matches nothing, and beyond PATTERNS.
    """
    told = [pattern.strip() for text in given for pattern in text.split(",")] or ["*"]
    if len(told) > PATTERNS:
        raise Invalid({"tensors": [f"{len(told):,} patterns are too many: at most {PATTERNS} are read."]})
    ours = [meant(pattern) for pattern in told]
    for pattern, said in zip(ours, told, strict=True):
        if not any(captured(names, [pattern])):
            known = [*names]
            some = ", ".join(known if len(known) < 8 else [*known[:5], "…", *known[-2:]])
            raise Invalid({"tensors": [f"{said!r} matches no {what}: it has {len(known)}, {some}."]})
    return [*captured(names, ours)]
