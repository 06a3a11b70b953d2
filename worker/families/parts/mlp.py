"""MLPs: two linear layers with an activation between them, or three with a gate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.describe.blocks import Kind, Spot, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.notation import ATTENTION, LAYER, Inputs, beside, kind, read, read_if, value, weight
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

_AT, _OUT = f"{LAYER}.mlp", f"{LAYER}.mlp_out"
_RESULT = Spot("attention", "left", margins=-1)


# ------------------------------------------------------------------------------------------------- two linear layers


def mlp_weights(up: str, down: str, biased: bool = True) -> Iterator[Tensor]:
    """Yield the weights of an MLP of two linear layers, stored (out, in)."""
    for name, rows, columns, part in ((up, "F", "C", "up_projection"), (down, "C", "F", "down_projection")):
        yield weight(f"{name}.weight", f"{rows} {columns}", part)
        if biased:
            yield weight(f"{name}.bias", rows, "biases")


def mlp_values() -> tuple[Tensor, ...]:
    """Return the values of an MLP of two linear layers."""
    return (*(value(f"{_AT}.{name}", "B T F") for name in ("pre", "post")), value(_OUT, "B T C"))


def mlp_kinds(
    up: str, down: str, function: str, *, source: str = f"{LAYER}.ln2.out", biased: bool = True,
    transposed: bool = True, spot: Spot = ATTENTION,
) -> Iterator[Kind]:  # fmt: skip
    """Yield the blocks of an MLP of two linear layers, whose tensors are `{up}.weight` and so on.

    All but the result are at `spot`. `transposed`: weights are stored (out, in), as torch.nn.Linear's are; else
    (in, out).
    """
    wide: Inputs = (read(f"{_AT}.in_weight", "i s 0"), read(source, "j s k"))
    narrow: Inputs = (read(f"{_AT}.out_weight", "s j 0"), read(f"{_AT}.post", "s i k"))
    wide += read_if(biased, f"{_AT}.in_bias", "i 0 0")
    narrow += read_if(biased, f"{_AT}.out_bias", "0 j 0")
    act = Formula("activation", (read(f"{_AT}.pre", "i j k"),), parameters=Parameters(function=function))
    of_up, of_down = ("i j", "j i") if transposed else ("j i", "i j")
    yield kind(f"{_AT}.in_weight", "MLP Weights", "weight", "F C 1", f"{up}.weight: {of_up}", spot,
               "in_weight")  # fmt: skip
    if biased:
        yield kind(f"{_AT}.in_bias", "MLP Bias", "weight", "F 1 1", f"{up}.bias: i", spot, "in_bias",
                   minor=True)  # fmt: skip
    yield kind(f"{_AT}.pre", "MLP", "activation", "F T B", f"{_AT}.pre: k j i", spot, "pre",
               Formula("dot", wide, "C"))  # fmt: skip
    yield kind(f"{_AT}.post", "MLP Activation", "activation", "F T B", f"{_AT}.post: k j i", spot, "post", act,
               part="mlp")  # fmt: skip
    yield kind(f"{_AT}.out_weight", "MLP Projection Weights", "weight", "F C 1", f"{down}.weight: {of_down}", spot,
               "mlp_out")  # fmt: skip
    if biased:
        yield kind(f"{_AT}.out_bias", "MLP Projection Bias", "weight", "1 C 1", f"{down}.bias: j",
                   beside(f"{_AT}.out_weight"), "mlp_out", minor=True)  # fmt: skip
    yield kind(_OUT, "MLP Result", "activation", "T C B", f"{_OUT}: k i j", _RESULT, "mlp_out",
               Formula("dot", narrow, "F"))  # fmt: skip


def mlp_shelves(top: str) -> dict[str, str]:
    """Return the shelves of an MLP of two linear layers."""
    return {
        "in_weight": top,
        "in_bias": "in_weight - s - m",
        "pre": "in_weight + (C*s + m)",
        "post": "pre + (T*s + m)",
        "mlp_out": "post + (T*s + m)",
    }


def mlp(
    engine: Engine, x: NDArray[Any], up: str, down: str, function: str, new: Tensors, layer: str, *, biased: bool = True
) -> NDArray[Any]:
    """Compute a layer's MLP of two linear layers, stored (out, in), from x [B, n, C]; return its result."""
    pre, post, out = (new[f"{layer}.{name}"] for name in ("mlp.pre", "mlp.post", "mlp_out"))
    engine.project(x, up, pre, bias=biased)
    engine.activate(function, pre, post)
    engine.project(post, down, out, bias=biased)
    return out


# ------------------------------------------------------------------------------------------------------ with a gate


def gated_mlp_weights(prefix: str, biased: bool) -> Iterator[Tensor]:
    """Yield the weights of a gated MLP: `{prefix}.gate_proj`, `up_proj` and `down_proj`, stored (out, in)."""
    for name, rows, columns in (("gate", "F", "C"), ("up", "F", "C"), ("down", "C", "F")):
        yield weight(f"{prefix}.{name}_proj.weight", f"{rows} {columns}", f"{name}_projection")
        if biased:
            yield weight(f"{prefix}.{name}_proj.bias", rows, "biases")


def gated_mlp_values() -> tuple[Tensor, ...]:
    """Return the values of a gated MLP."""
    return (*(value(f"{_AT}.{name}", "B T F") for name in ("pre", "pre_linear", "post")), value(_OUT, "B T C"))


def gated_mlp_kinds(prefix: str, function: str, biased: bool) -> Iterator[Kind]:
    """Yield the blocks of a gated MLP (Shazeer 2020, arXiv:2002.05202)."""
    for name, result, title in (("gate", "pre", "MLP Gate"), ("up", "pre_linear", "MLP Up")):
        dot: Inputs = (read(f"{_AT}.{name}_weight", "i s 0"), read(f"{LAYER}.ln2.out", "j s k"))
        dot += read_if(biased, f"{_AT}.{name}_bias", "i 0 0")
        yield kind(f"{_AT}.{name}_weight", f"{title} Weights", "weight", "F C 1", f"{prefix}.{name}_proj.weight: i j",
                   ATTENTION, f"{name}_weight")  # fmt: skip
        if biased:
            yield kind(f"{_AT}.{name}_bias", f"{title} Bias", "weight", "F 1 1", f"{prefix}.{name}_proj.bias: i",
                       ATTENTION, f"{name}_bias", minor=True)  # fmt: skip
        yield kind(f"{_AT}.{result}", title, "activation", "F T B", f"{_AT}.{result}: k j i", ATTENTION, result,
                   Formula("dot", dot, "C"))  # fmt: skip
    gated = (read(f"{_AT}.pre", "i j k"), read(f"{_AT}.pre_linear", "i j k"))
    gate = Formula("gated", gated, parameters=Parameters(function=function))
    down: Inputs = (read(f"{_AT}.down_weight", "s j 0"), read(f"{_AT}.post", "s i k"))
    down += read_if(biased, f"{_AT}.down_bias", "0 j 0")
    yield kind(f"{_AT}.post", "Gated MLP", "activation", "F T B", f"{_AT}.post: k j i", ATTENTION, "post", gate,
               part="mlp")  # fmt: skip
    yield kind(f"{_AT}.down_weight", "MLP Down Weights", "weight", "F C 1", f"{prefix}.down_proj.weight: j i",
               ATTENTION, "mlp_out")  # fmt: skip
    if biased:
        yield kind(f"{_AT}.down_bias", "MLP Down Bias", "weight", "1 C 1", f"{prefix}.down_proj.bias: j",
                   beside(f"{_AT}.down_weight"), "mlp_out", minor=True)  # fmt: skip
    yield kind(_OUT, "MLP Result", "activation", "T C B", f"{_OUT}: k i j", _RESULT, "mlp_out",
               Formula("dot", down, "F"))  # fmt: skip


def gated_mlp_shelves(top: str) -> dict[str, str]:
    """Return the shelves of a gated MLP."""
    return {
        "gate_weight": top,
        "gate_bias": "gate_weight - s - m",
        "pre": "gate_weight + C*s + m",
        "up_bias": "pre + T*s + m",
        "up_weight": "up_bias + s + m",
        "pre_linear": "up_weight + C*s + m",
        "post": "pre_linear + T*s + m",
        "mlp_out": "post + T*s + m",
    }


def gated_mlp(
    engine: Engine, x: NDArray[Any], weights: str, function: str, biased: bool, new: Tensors, layer: str
) -> NDArray[Any]:
    """Compute a layer's gated MLP of x [B, n, C] into `new`; return its result [B, n, C]."""
    gate, up, post, out = (new[f"{layer}.{name}"] for name in ("mlp.pre", "mlp.pre_linear", "mlp.post", "mlp_out"))
    engine.project(x, f"{weights}.gate_proj", gate, bias=biased)
    engine.project(x, f"{weights}.up_proj", up, bias=biased)
    engine.gate(function, gate, up, post)
    engine.project(post, f"{weights}.down_proj", out, bias=biased)
    return out
