"""How a layer adds attention and MLP to the stream: one after the other, or in parallel.

In a parallel layer both read the stream before the layer, and both are added to it: there is no `resid_mid`. They stand
side by side, on the same shelves, the MLP to the left of attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from worker.describe.architecture import RESIDUAL
from worker.describe.blocks import Kind, Spot
from worker.families.parts import stream
from worker.families.parts.attention import attention_shelves
from worker.families.parts.mlp import mlp_shelves
from worker.families.parts.norms import layer_norm_shelves
from worker.families.parts.notation import LAYER
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

_ATTENTION = "T+max(T+2,C+1,HA+1)"  # cells of the widest row of attention: the pattern, or weights and a bias
_NORM = "T+2"

#: The norm of the MLP, if it has its own.
MLP_NORM = Spot("attention", "right", _ATTENTION, 3)


def mlp_spot(*, own_norm: bool) -> Spot:
    """Return the spot of the MLP: to the left of its own norm, or of attention."""
    return Spot("attention", "right", f"{_ATTENTION}+{_NORM}", 6) if own_norm else MLP_NORM


def serial_shelves(*, rotated: bool) -> dict[str, str]:
    """Return the shelves of a serial layer: a norm and attention, another norm and the MLP."""
    return layer_norm_shelves("ln1", "top + 2*m") | attention_shelves("ln1_out", rotated=rotated) | {
        "attn_out": "end_of_z",
    } | layer_norm_shelves("ln2", "attn_out + C*s + m") | mlp_shelves("ln2_out") | {
        "end": "mlp_out + C*s + m",
    }  # fmt: skip


def post_norm_shelves() -> dict[str, str]:
    """Return the shelves of a serial layer whose norms come after the sums."""
    return attention_shelves("top + 2*m", rotated=False) | {"attn_out": "end_of_z"} | layer_norm_shelves(
        "ln1", "attn_out + C*s + m"
    ) | mlp_shelves("ln1_out") | layer_norm_shelves("ln2", "mlp_out + C*s + m") | {
        "end": "ln2_out + C*s + m",
    }  # fmt: skip


def parallel_shelves(normed: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return the shelves of a parallel layer: the norms, rotated attention beside the MLP, and the sum.

    `normed` are the shelves of norms of heads.
    """
    beside = mlp_shelves("ln1_out")
    end = beside.pop("mlp_out")
    own = attention_shelves("ln1_out", rotated=True, normed=normed)
    return layer_norm_shelves("ln1", "top + 2*m") | own | beside | {
        "attn_out": f"max(end_of_z, {end})",
        "mlp_out": "attn_out",
        "end": "mlp_out + C*s + m",
    }  # fmt: skip


def parallel_sum_kind() -> Kind:
    """Return the block of the stream after a parallel layer: what it was before, plus both results."""
    return stream.resid_post_kind(f"{LAYER}.mlp_out", f"{LAYER}.attn_out", RESIDUAL)


def add_both(engine: Engine, new: Tensors, layer: str) -> None:
    """Compute the stream after a parallel layer."""
    resid_pre, attn_out, mlp_out, resid_post = (
        new[f"{layer}.{name}"] for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    engine.add(mlp_out, attn_out, resid_post)
    engine.add(resid_post, resid_pre, resid_post)
