"""The forward pass of a GPT (Radford et al. 2019), every intermediate value written into the arena.

Pre-norm blocks and a final norm. Weights carry the checkpoint's names, the arena's tensors TransformerLens's.
`rows` are the positions to compute: the keys and values of earlier ones are already in the arena, so a
sequence can be filled all at once or position by position with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from worker.gpt.config import Config
from worker.gpt.engine import Engine


class Tensors(Protocol):
    """Arrays by name: an arena."""

    def __getitem__(self, name: str, /) -> NDArray[Any]: ...


def block(l: int, config: Config, engine: Engine, a: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """One transformer block: resid_pre [B, T, C] -> resid_post [B, T, C]."""
    here, weights = f"blocks.{l}", f"h.{l}"
    resid_pre, resid_mid, resid_post, attn_out, mlp_out, pre, post = (
        a[f"{here}.{name}"][:, rows]
        for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp.pre", "mlp.post")
    )
    normed = _normed(engine, resid_pre, f"{weights}.ln_1", config, a, f"{here}.ln1", rows)
    q, k, v, z = (a[f"{here}.attn.{name}"] for name in "qkvz")
    engine.linear(normed, f"{weights}.attn.c_attn", *(_heads(part, rows) for part in (q, k, v)))
    scores, largest, total, pattern = (
        a[f"{here}.attn.{name}"] for name in ("scores", "scores_max", "scores_sum", "pattern")
    )
    engine.attention(rows, q, k, v, scores, largest, total, pattern, z)
    engine.linear(_heads(z, rows), f"{weights}.attn.c_proj", attn_out)
    engine.add(attn_out, resid_pre, resid_mid)

    normed = _normed(engine, resid_mid, f"{weights}.ln_2", config, a, f"{here}.ln2", rows)
    engine.linear(normed, f"{weights}.mlp.c_fc", pre)
    engine.activate(config.activation_function, pre, post)
    engine.linear(post, f"{weights}.mlp.c_proj", mlp_out)
    engine.add(mlp_out, resid_mid, resid_post)


def forward(
    config: Config, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Fill `rows` of every tensor of the arena `a` from its `tokens`; `after_layer` is called L times."""
    embed, pos_embed, resid = (a[name][:, rows] for name in ("embed", "pos_embed", "blocks.0.resid_pre"))
    engine.embed("wte.weight", a["tokens"][:, rows], embed)
    engine.embed("wpe.weight", rows, pos_embed)
    engine.add(embed, pos_embed, resid)
    for l in range(config.n_layer):  # noqa: E741
        if l:
            a[f"blocks.{l}.resid_pre"][:, rows] = resid
        block(l, config, engine, a, rows)
        resid = a[f"blocks.{l}.resid_post"][:, rows]
        after_layer()
    normed = _normed(engine, resid, "ln_f", config, a, "ln_final", rows)
    logits, *softmax = (a[name][:, rows] for name in ("logits", "logits_max", "logits_sum", "probs"))
    engine.unembed(normed, "lm_head.weight", logits)
    engine.softmax(logits, *softmax)


def _heads(x: NDArray[Any], rows: slice) -> NDArray[Any]:
    """[B, T, H, A] -> [B, n, HA], a view."""
    B, T, H, A = x.shape
    return x.reshape(B, T, H * A)[:, rows]


def _normed(
    engine: Engine, x: NDArray[Any], weights: str, config: Config, a: Tensors, name: str, rows: slice
) -> NDArray[Any]:
    mean, scale, out = (a[f"{name}.{part}"][:, rows] for part in ("mean", "scale", "out"))
    engine.layer_norm(x, weights, config.layer_norm_epsilon, mean, scale, out)
    return out
