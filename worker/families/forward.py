"""The forward pass of a GPT (Radford et al. 2019), every intermediate value written into the arena.

Pre-norm blocks and a final norm. Weights carry the checkpoint's names, the arena's tensors TransformerLens's.
`rows` are the positions to compute: the keys and values of earlier ones are already in the arena, so a
sequence can be filled all at once or position by position with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from worker.engine.numpy_engine import Engine
from worker.families.config import Config

_ATTENTION = ("q", "k", "v", "scores", "scores_max", "scores_sum", "pattern", "z")  # in the engine's order


class Tensors(Protocol):
    """Arrays by name: an arena."""

    def __getitem__(self, name: str, /) -> NDArray[Any]: ...


class _Positions:
    """Some positions of an arena's tensors."""

    def __init__(self, a: Tensors, rows: slice) -> None:
        self._all, self._rows = a, rows

    def __getitem__(self, name: str, /) -> NDArray[Any]:
        return self._all[name][:, self._rows]


def block(l: int, config: Config, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """One transformer block: resid_pre [B, T, C] -> resid_post [B, T, C]; `new` are the `rows` of `a`."""
    here, weights = f"blocks.{l}", f"h.{l}"
    resid_pre, resid_mid, attn_out, mlp_out = (
        new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "attn_out", "mlp_out")
    )
    normed = _normed(engine, resid_pre, f"{weights}.ln_1", config, new, f"{here}.ln1")
    engine.linear(normed, f"{weights}.attn.c_attn", *(_joined(new[f"{here}.attn.{name}"]) for name in "qkv"))
    engine.attention(rows, *(a[f"{here}.attn.{name}"] for name in _ATTENTION))
    engine.linear(_joined(new[f"{here}.attn.z"]), f"{weights}.attn.c_proj", attn_out)
    engine.add(attn_out, resid_pre, resid_mid)

    pre, post = new[f"{here}.mlp.pre"], new[f"{here}.mlp.post"]
    normed = _normed(engine, resid_mid, f"{weights}.ln_2", config, new, f"{here}.ln2")
    engine.linear(normed, f"{weights}.mlp.c_fc", pre)
    engine.activate(config.activation_function, pre, post)
    engine.linear(post, f"{weights}.mlp.c_proj", mlp_out)
    engine.add(mlp_out, resid_mid, new[f"{here}.resid_post"])


def forward(
    config: Config, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Fill `rows` of every tensor of the arena `a` from its `tokens`; `after_layer` is called L times."""
    tokens = a["tokens"]
    new = a if rows == slice(0, tokens.shape[1]) else _Positions(a, rows)
    resid = new["blocks.0.resid_pre"]
    engine.embed("wte.weight", tokens[:, rows], new["embed"])
    engine.embed("wpe.weight", rows, new["pos_embed"])
    engine.add(new["embed"], new["pos_embed"], resid)
    for l in range(config.n_layer):  # noqa: E741
        if l:
            new[f"blocks.{l}.resid_pre"][:] = resid
        block(l, config, engine, a, new, rows)
        resid = new[f"blocks.{l}.resid_post"]
        after_layer()
    predict(config, engine, resid, new)


def predict(config: Config, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """The end of the pass, from a residual stream [B, n, C] -> `ln_final`, `logits` and `probs` [B, n, V]."""
    normed = _normed(engine, resid, "ln_f", config, new, "ln_final")
    engine.unembed(normed, "lm_head.weight", new["logits"])
    engine.softmax(*(new[name] for name in ("logits", "logits_max", "logits_sum", "probs")))


def _joined(heads: NDArray[Any]) -> NDArray[Any]:
    """[B, T, H, A] -> [B, T, HA], a view."""
    return heads.reshape(*heads.shape[:2], -1)


def _normed(engine: Engine, x: NDArray[Any], weights: str, config: Config, new: Tensors, name: str) -> NDArray[Any]:
    mean, scale, out = (new[f"{name}.{part}"] for part in ("mean", "scale", "out"))
    engine.layer_norm(x, weights, config.layer_norm_epsilon, mean, scale, out)
    return out
