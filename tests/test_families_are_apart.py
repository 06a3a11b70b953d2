"""No module outside worker/families contains a family's names: adding a family changes only that folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import modules
from worker.families.registry import FAMILIES, describe

#: The families, and the exports for LLM Visualization, which support GPT-2 only.
EXEMPT = ("worker.families", "worker.layout.llm_viz", "service.tensors.llm_viz")
EXAMPLES = ("example", "metadata", "description")  # keywords and decorators of documentation


def names() -> set[str]:
    """Return the families' names of tensors, blocks and parts of the parameters, without numbers."""
    found: set[str] = set()
    for family in FAMILIES.values():
        described = describe(family.Config())
        tensors = [*described.weights, *described.values]
        paths = {tensor.name for tensor in tensors} | {kind.id for kind in described.kinds}
        found |= paths | {path.rpartition("}.")[2] for path in paths if "}." in path}
        found |= {part for tensor in described.weights for part in tensor.parts}
    return {name for name in found if not name.isalpha()}  # a single word may have another meaning


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield the strings in a module's code, without docstrings and examples in documentation."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.keyword) and node.arg in EXAMPLES:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXAMPLES:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "patterns":
            continue  # its arguments are examples
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        yield from strings(node)


OTHERS = [
    (name, file)
    for package in ("worker", "service")
    for name, file in modules(package).items()
    if not name.startswith(EXEMPT)
]


def named(text: str, known: set[str]) -> bool:
    """Return whether a text is one of the names, or such a name in a layer."""
    pattern = re.sub(r"\.\d+\.", ".{layer}.", text, count=1)
    return {text, pattern} & known != set() or text.startswith(("blocks.", "h."))


@pytest.mark.parametrize(("name", "file"), OTHERS, ids=[name for name, _ in OTHERS])
def test_module_contains_no_names_of_a_family(name: str, file: Path) -> None:
    known = names() - GENERIC.get(name, set())
    assert [text for text in strings(ast.parse(file.read_text("utf-8"))) if named(text, known)] == []


#: Names with another meaning: operations, and parts of the description.
GENERIC: dict[str, set[str]] = {
    "worker.describe.norm_operations": {"layer_norm", "rms_norm"},
    "worker.describe.blocks": {"attention_out"},
}


def test_names_are_detected() -> None:
    code = 'x = arena["blocks.0.attn.q"]\ny = weights["wte.weight"]\nz = parts["up_projection"]\n"""wte.weight"""\n'
    assert [text for text in strings(ast.parse(code)) if named(text, names())] == [
        "blocks.0.attn.q",
        "wte.weight",
        "up_projection",
    ]
