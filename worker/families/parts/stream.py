"""The residual stream: tokens, what layers add, and running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from worker.describe.architecture import RESIDUAL
from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.notation import LAYER, NORM, STREAM, kind, read, value


class Tensors(Protocol):
    """Arrays by name, such as an Arena."""

    def __getitem__(self, name: str, /) -> NDArray[Any]: ...


def tokens_value() -> Tensor:
    """Return the tokens of a trace."""
    return value("tokens", "B T", landmark="tokens", dtype="int32")


def tokens_kind() -> Kind:
    """Return the block of the tokens, on the shelf "tokens"."""
    return kind("tokens", "Tokens", "activation", "T 1 B", "tokens: k i", STREAM, "tokens", Formula("input"),
                part="tokens")  # fmt: skip


def table_kind(id: str, tensor: str, dims: str = "V C 1") -> Kind:
    """Return the block of the table of tokens, on the shelf "tables"."""
    return kind(id, "Token Embed", "weight", dims, f"{tensor}: i j", NORM, "tables")


def embedding_kind(*inputs: tuple[str, str], scale: float | None = None) -> Kind:
    """Return the block of the stream before the layers, on the shelf "tables": a row of each table, times `scale`.

    `inputs` are (block, index) of the token table and, if there is one, of the position table.
    """
    reads = (read("tokens", "i 0 k"), *(read(block, index) for block, index in inputs))
    embed = Formula("embed", reads, parameters=Parameters(scale=scale))
    return kind("embedding", "Input Embed", "activation", "T C B", "blocks.0.resid_pre: k i j", STREAM, "tables", embed,
                part="embedding")  # fmt: skip


def resid_mid_kind(added: str = f"{LAYER}.attn_out", stream: str = RESIDUAL) -> Kind:
    """Return the block of the stream after attention, on the shelf "attn_out": the sum of these blocks."""
    add = Formula("add", (read(added, "i j k"), read(stream, "i j k")))
    at = f"{LAYER}.resid_mid"
    return kind(at, "Attention Residual", "activation", "T C B", f"{at}: k i j", STREAM, "attn_out", add)


def resid_post_kind(*added: str) -> Kind:
    """Return the block of the stream after a layer, on the shelf "mlp_out": the sum of these blocks."""
    blocks = added or (f"{LAYER}.mlp_out", f"{LAYER}.resid_mid")
    add = Formula("add", tuple(read(block, "i j k") for block in blocks))
    at = f"{LAYER}.resid_post"
    return kind(at, "MLP Residual", "activation", "T C B", f"{at}: k i j", STREAM, "mlp_out", add, part="resid")


def restricted(a: Tensors, rows: slice) -> Tensors:
    """Return an arena's tensors restricted to the positions `rows`."""
    return a if rows == slice(0, a["tokens"].shape[1]) else _Positions(a, rows)


class _Positions:
    """An arena's tensors, restricted to the positions `rows`."""

    def __init__(self, a: Tensors, rows: slice) -> None:
        self._all, self._rows = a, rows

    def __getitem__(self, name: str, /) -> NDArray[Any]:
        return self._all[name][:, self._rows]


def run_layers(
    layers: int, block: Callable[[int], None], new: Tensors, after_layer: Callable[[], None], leaves: str = "resid_post"
) -> NDArray[Any]:
    """Run `block` on each layer, passing on the stream, which `leaves` is the value of after each; return the last."""
    for layer in range(layers):
        if layer:
            new[f"blocks.{layer}.resid_pre"][:] = new[f"blocks.{layer - 1}.{leaves}"]
        block(layer)
        after_layer()
    return new[f"blocks.{layers - 1}.{leaves}"]


def merge_heads(x: NDArray[Any]) -> NDArray[Any]:
    """[B, n, H, A] -> [B, n, HA], a view."""
    return x.reshape(*x.shape[:2], -1)
