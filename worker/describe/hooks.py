"""TransformerLens's names of values: its hook points, such as `blocks.0.attn.hook_q`.

`hook_normalized` is here the whole output of a norm, as in TransformerLens 1 and 2. In versions 3 and 4 it is the value
before the gain γ and the bias β: (x − mean) / scale, with the norm's own input x, `mean` and `scale`.
`hook_attn_scores` are masked, as ours are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import translate

_HOOK = "hook_"
_RENAMED = {"attn_scores": "scores", "normalized": "out"}
#: The last parts of the names of values that TransformerLens has no hook for.
_WITHOUT = re.compile(r"tokens|mean|cos|sin|slopes|logits|probs|\w+_(max|sum)")
_LAYER = re.compile(r"(?<=^blocks\.)\d+(?=\.)")


def value_name(name: str) -> str:
    """Translate a value's name from TransformerLens's; other names are unchanged."""
    for theirs, ours in _RENAMED.items():
        name = name.replace(f"{_HOOK}{theirs}", ours)
    return name.replace(_HOOK, "")


def hook_name(name: str) -> str | None:
    """Return TransformerLens's name of a value, or None if it has no hook for it."""
    path, dot, last = name.rpartition(".")
    if _WITHOUT.fullmatch(last):
        return None
    theirs = {ours: theirs for theirs, ours in _RENAMED.items()}.get(last, last)
    return f"{path}{dot}{_HOOK}{theirs}"


def value_patterns(pattern: str, names: Collection[str]) -> list[str]:
    """Return patterns of our `names` that select what a shell-style pattern selects.

    A pattern with `hook_` is matched against the whole names of TransformerLens: `*hook_pre` selects the values before
    the activation and not `hook_resid_pre`. One that selects nothing is returned as it is.
    """
    if _HOOK not in pattern:
        return [pattern]
    hooks = {hook: name for name in names if (hook := hook_name(name))}
    selected = [hooks[hook] for hook in _matching(hooks, pattern)]
    for patterns in ([value_name(pattern)], _of_all_layers(selected)):
        if selected and _matching(names, *patterns) == selected:
            return patterns
    return selected or [pattern]


def _of_all_layers(names: Iterable[str]) -> list[str]:
    """Return the names with a star in place of the layer, each once."""
    return list(dict.fromkeys(_LAYER.sub("*", name) for name in names))


def _matching(names: Iterable[str], *patterns: str) -> list[str]:
    matches = re.compile("|".join(map(translate, patterns))).match
    return [name for name in names if matches(name)]
