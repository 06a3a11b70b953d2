"""Parameter and operation counts, from the description alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from worker.describe.architecture import Architecture, Section
from worker.describe.blocks import Tensor


def by_part(architecture: Architecture) -> dict[str, int]:
    """Return the number of parameters of each part; a tied unembedding is counted too."""
    return _count_parts(architecture, architecture.weights)


def total(architecture: Architecture) -> int:
    """Return the number of parameters; a tied unembedding adds none."""
    return sum(_count_parts(architecture, (t for t in architecture.weights if t.alias_of is None)).values())


def parameters(architecture: Architecture) -> dict[str, int | dict[str, int]]:
    """Return {total, non_embedding, by_part}.

    `non_embedding` is N of Kaplan et al. 2020 (arXiv:2001.08361): without token and position embeddings and the
    unembedding.
    """
    inside = _count_parts(architecture, (tensor for tensor in architecture.weights if not tensor.is_table))
    return {
        "total": total(architecture),
        "non_embedding": sum(inside.values()),
        "by_part": by_part(architecture),
    }


def _count_parts(architecture: Architecture, tensors: Iterator[Tensor] | tuple[Tensor, ...]) -> dict[str, int]:
    sizes, parts = architecture.sizes(), dict[str, int]()
    for tensor in tensors:
        times = architecture.n_layer if tensor.is_layered else 1
        for part in tensor.parts:
            parts[part] = parts.get(part, 0) + times * prod(tensor.shape(sizes)) // len(tensor.parts)
    return parts


def operations(architecture: Architecture, tokens: int, batch: int = 1) -> int:
    """Return the floating-point operations of the matrix products of a forward pass over `tokens` positions."""
    sizes = architecture.sizes(tokens, batch)
    return sum(
        (section.layers or 1) * section_operations(architecture, section, sizes) for section in architecture.sections
    )


def section_operations(architecture: Architecture, section: Section, sizes: Mapping[str, int]) -> int:
    """Return those of one layer of a section: a multiplication and an addition for each product of a formula."""
    found = 0
    for kind in section.kinds:
        if kind.formula is not None and kind.formula.op == "dot":
            each = next((given.each for given in kind.formula.inputs if given.each), None)
            times = sizes[kind.group.count] if kind.group else sizes[_count(architecture, each)] if each else 1
            pairs = len(kind.formula.inputs) // 2
            found += 2 * times * pairs * prod(sizes[size] for size in kind.cells) * sizes[kind.formula.over or "1"]
    return found


def multiplied_weights(section: Section) -> set[str]:
    """Return the names of a section's weights that are factors of a matrix product."""
    read = {
        given.block for kind in section.kinds if kind.formula and kind.formula.op == "dot"
        for given in kind.formula.inputs[: len(kind.formula.inputs) // 2 * 2]
    }  # fmt: skip
    return {kind.tensor for kind in section.kinds if kind.id in read and kind.role == "weight" and kind.tensor}


def _count(architecture: Architecture, group: str) -> str:
    return next(known.count for known in architecture.groups if known.name == group)
