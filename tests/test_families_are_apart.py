"""Nothing outside of worker/families names a model: a new family is a file there and its line in the registry."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import modules
from worker.families.registry import FAMILIES, describe

#: The families themselves, and the exports of LLM Visualization, which are GPT-2's.
THEIRS = ("worker.families", "worker.layout.llm_viz", "service.tensors.llm_viz")
EXAMPLES = ("example", "metadata", "description")  # keywords and decorators of what is shown to people


def names() -> set[str]:
    """What the families call their tensors, blocks and parts of the parameters, numbers left out."""
    found: set[str] = set()
    for family in FAMILIES.values():
        described = describe(family.presets[0].config)
        tensors = [*described.weights, *described.values]
        paths = {tensor.name for tensor in tensors} | {kind.id for kind in described.kinds}
        found |= paths | {path.rpartition("}.")[2] for path in paths if "}." in path}
        found |= {part for tensor in described.weights for part in tensor.parts}
    return {name for name in found if not name.isalpha()}  # a word alone may mean anything


def strings(tree: ast.AST) -> Iterator[str]:
    """The texts in a module's code, without docstrings and what is an example for people."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.keyword) and node.arg in EXAMPLES:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXAMPLES:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "patterns":
            continue  # whose arguments are an example
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        yield from strings(node)


OTHERS = [
    (name, file)
    for package in ("worker", "service")
    for name, file in modules(package).items()
    if not name.startswith(THEIRS)
]


def named(text: str, known: set[str]) -> bool:
    """Whether a text is one of the names, or a path to a layer's."""
    pattern = re.sub(r"\.\d+\.", ".{layer}.", text, count=1)
    return {text, pattern} & known != set() or text.startswith(("blocks.", "h."))


@pytest.mark.parametrize(("name", "file"), OTHERS, ids=[name for name, _ in OTHERS])
def test_a_module_names_no_tensor_block_or_part_of_a_family(name: str, file: Path) -> None:
    known = names() - GENERIC.get(name, set())
    assert [text for text in strings(ast.parse(file.read_text("utf-8"))) if named(text, known)] == []


#: The same words for something else: operations, parts that a front end looks for, and what a refusal advises.
GENERIC: dict[str, set[str]] = {
    "worker.describe.operations": {"layer_norm", "rms_norm"},
    "worker.describe.blocks": {"attention_out"},
}


def test_the_names_are_seen_where_they_are() -> None:
    code = 'x = arena["blocks.0.attn.q"]\ny = weights["wte.weight"]\nz = parts["up_projection"]\n"""wte.weight"""\n'
    assert [text for text in strings(ast.parse(code)) if named(text, names())] == [
        "blocks.0.attn.q",
        "wte.weight",
        "up_projection",
    ]
