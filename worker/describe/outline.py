"""An architecture as JSON, for front ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.describe.architecture import RESIDUAL, Architecture, Section
from worker.describe.blocks import Kind, Step


def outline(architecture: Architecture) -> dict[str, Any]:
    """Return {kinds, stacks, groups, steps, context, activation, tied}.

    A kind has its id pattern, name, role, scope, dims and tensor; its stack of layers and its group, if any; its tour
    step, its part in any transformer, and, for a weight, the part it is counted under. A step has the kinds that it
    computes and reads. `context` is the maximum number of positions, `activation` the function of the MLPs, `tied`
    the parts that are tied to another.
    """
    steps = {id: step.id for step in architecture.steps for id in step.kinds}
    counted = _counted(architecture)
    sizes = architecture.sizes(1)
    functions = (kind.formula.parameters.function for kind in architecture.stack.kinds if kind.formula)
    return {
        "kinds": [
            _kind(kind, section) | {"step": steps.get(kind.id), "parameters": counted.get(kind.id)}
            for section in architecture.sections
            for kind in section.kinds
        ],
        "stacks": [{"name": of.name, "layers": of.layers} for of in architecture.sections if of.layers],
        "groups": [
            {"name": group.name, "count": sizes[group.count], "pattern": f"{group.name}s.{group.placeholder}"}
            for group in architecture.groups
        ],
        "steps": [_step(architecture, step) for step in architecture.steps],
        "context": architecture.fixed_sizes["N"],
        "activation": next((function for function in functions if function), None),
        "tied": [part for tensor in architecture.weights if tensor.alias_of for part in tensor.parts],
    }


def _kind(kind: Kind, section: Section) -> dict[str, Any]:
    return {
        "id": kind.id,
        "name": kind.name,
        "role": kind.role,
        "scope": "head" if kind.group else kind.scope,
        "dims": kind.cells,
        "minor": kind.minor,
        "tensor": kind.tensor,
        "merges": kind.merges,
        "stack": section.name if section.layers else None,
        "group": kind.group.name if kind.group else None,
        "part": kind.part,
    }


def _counted(architecture: Architecture) -> Mapping[str, str]:
    """Return the parameter part of each kind of weight; a tensor with several parts has one for each kind."""
    found: dict[str, str] = {}
    for tensor in architecture.weights:
        kinds = [kind.id for kind in architecture.kinds if kind.tensor == tensor.name]
        parts = tensor.parts if len(tensor.parts) == len(kinds) else tensor.parts * len(kinds)
        found.update(zip(kinds, parts, strict=False))
    return found


def _step(architecture: Architecture, step: Step) -> dict[str, Any]:
    read = dict.fromkeys(id for kind in step.kinds for id in _read(architecture, kind) if id not in step.kinds)
    return {
        "id": step.id,
        "name": step.name,
        "text": step.text,
        "formula": step.formula,
        "kinds": step.kinds,
        "from": [*read],
    }


def _read(architecture: Architecture, id: str) -> Iterator[str]:
    """Yield the kinds that a kind reads, the residual stream resolved to the block before or after the layers."""
    formula = architecture.kinds_by_id[id].formula
    stack = architecture.stack
    for given in formula.inputs if formula else ():
        if given.block == RESIDUAL:
            yield stack.enters if architecture.kinds_by_id[id] in stack.kinds else stack.leaves
        else:
            yield given.block
