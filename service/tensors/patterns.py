"""Select tensors by patterns of their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain

from service.errors import Invalid
from worker.trace.arena import captured

PATTERNS = 100  # allowed in one request


def select(
    names: Collection[str],
    given: Sequence[str],
    what: str,
    resolve: Callable[[str], Sequence[str]] = lambda pattern: (pattern,),
) -> list[str]:
    """Return the names that match any shell-style pattern, in the order of `names`; all names without a pattern.

    Each text of `given` has one pattern, or several separated by commas. `resolve` translates a pattern to some in the
    spelling of `names`; `what` describes a name in messages. Raises Invalid (422) if a pattern matches nothing or there
    are more than PATTERNS.
    """
    patterns = [pattern.strip() for text in given for pattern in text.split(",")] or ["*"]
    if len(patterns) > PATTERNS:
        raise Invalid({"tensors": [f"At most {PATTERNS} patterns are allowed, not {len(patterns):,}."]})
    resolved = [resolve(pattern) for pattern in patterns]
    for pattern, original in zip(resolved, patterns, strict=True):
        if not any(captured(names, pattern)):
            known = [*names]
            some = ", ".join(known if len(known) < 8 else [*known[:5], "…", *known[-2:]])
            raise Invalid({"tensors": [f"{original!r} matches no {what}; its {len(known)} names are {some}."]})
    return [*captured(names, chain.from_iterable(resolved))]
