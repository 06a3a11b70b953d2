"""Logits and probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.notation import NORM, beside, kind, read, read_if, value
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


def prediction_values(*, capped: bool = False) -> tuple[Tensor, ...]:
    """Return logits and probabilities. These stay float32: most would be subnormal in float16."""
    return (
        *((value("uncapped_logits", "B T V"),) if capped else ()),
        value("logits", "B T V", landmark="logits"),
        value("logits_max", "B T", "statistic"),
        value("logits_sum", "B T", "statistic"),
        value("probs", "B T V", landmark="probs", is_exact=True),
    )


def prediction_kinds(
    table: str, bias: str | None = None, source: str = "ln_final.out", width: str = "C", cap: float | None = None
) -> Iterator[Kind]:
    """Yield the blocks of the unembedding of the block `source`, and of the softmax; `table` is a weight [V, width],
    `bias` one of [V], `cap` the soft cap of logits.
    """
    inputs = read("lm_head", "s j 0"), read(source, "i s k"), *read_if(bias, "lm_head_bias", "0 j 0")
    dot = Formula("dot", inputs, width)
    total = Formula("sum_exp", (read("logits", "i s k"), read("logits_max", "i 0 k")), "V")
    largest = Formula("max", (read("logits", "i s k"),), "V")
    softmax = (read("logits", "i j k"), read("logits_max", "i 0 k"), read("logits_sum", "i 0 k"))
    first = "logits" if cap is None else "uncapped_logits"
    yield kind("lm_head", "LM Head Weights", "weight", f"{width} V 1", f"{table}: j i", beside(first), first)
    if bias:
        yield kind("lm_head_bias", "LM Head Bias", "weight", "1 V 1", f"{bias}: j", beside("lm_head"), first,
                   minor=True)  # fmt: skip
    if cap is not None:
        yield kind("uncapped_logits", "Logits before the Cap", "activation", "T V B", "uncapped_logits: k i j", NORM,
                   first, dot)  # fmt: skip
        dot = Formula("softcap", (read("uncapped_logits", "i j k"),), parameters=Parameters(cap=cap))
    yield kind("logits", "Logits", "activation", "T V B", "logits: k i j", NORM, "logits", dot, part="logits")
    yield kind("logits_sum", "", "statistic", "T 1 B", "logits_sum: k i", NORM, "logits_sum", total)
    yield kind("logits_max", "SM Agg", "statistic", "T 1 B", "logits_max: k i", NORM, "logits_max", largest)
    yield kind("probs", "Logits Softmax", "activation", "T V B", "probs: k i j", NORM, "probs",
               Formula("softmax", softmax), part="probs")  # fmt: skip


def prediction_shelves(after: str, width: str = "C", *, capped: bool = False) -> dict[str, str]:
    """Return the shelves of the predictions, below the shelf `after` of what they are computed from."""
    first = f"{after} + ({width}*s + m)"
    logits = {"uncapped_logits": first, "logits": "uncapped_logits + V*s + m"} if capped else {"logits": first}
    return logits | {
        "logits_max": "logits + (V*s + m)",
        "logits_sum": "logits_max + s",
        "probs": "logits_max + (2*s + m)",
        "end": "probs + V*s",
    }


def unembed(
    engine: Engine, normed: NDArray[Any], new: Tensors, head: str = "lm_head", *, biased: bool = False,
    cap: float | None = None,
) -> None:  # fmt: skip
    """Compute logits and probabilities from the final norm [B, n, C]; `cap` is the soft cap of logits."""
    engine.project(normed, head, new["logits" if cap is None else "uncapped_logits"], bias=biased)
    if cap is not None:
        engine.softcap(new["uncapped_logits"], cap, new["logits"])
    engine.softmax(*(new[name] for name in ("logits", "logits_max", "logits_sum", "probs")))
