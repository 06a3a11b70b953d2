"""The forward pass of a GPT (Radford et al. 2019), every intermediate value written into the arena.

Pre-norm blocks and a final norm. Weights carry the checkpoint's names, the arena's tensors TransformerLens's.
`rows` are the positions to compute: the keys and values of earlier ones are already in the arena, so a
sequence can be filled all at once or position by position with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.gpt.config import Config

Array = NDArray[Any]


class Tensors(Protocol):
    """Arrays by name: weights or an arena."""

    def __getitem__(self, name: str, /) -> Array: ...


def gelu_new(x: Array, out: Array) -> None:
    """0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), Hendrycks and Gimpel 2016 (arXiv:1606.08415)."""
    np.multiply(x, x, out=out)
    out *= 0.044715
    out += 1
    out *= x
    out *= sqrt(2 / pi)
    np.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5


def gelu(x: Array, out: Array) -> None:
    """x·Φ(x), with the error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    magnitude = np.abs(x) * sqrt(0.5)
    t = 1 / (1 + 0.3275911 * magnitude)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-magnitude * magnitude), x)
    np.multiply(0.5 * x, 1 + erf, out=out)


def relu(x: Array, out: Array) -> None:
    """max(x, 0)."""
    np.maximum(x, 0, out=out)


def silu(x: Array, out: Array) -> None:
    """x·σ(x), the logistic function written with tanh so that it cannot overflow."""
    np.multiply(0.5 * x, 1 + np.tanh(0.5 * x), out=out)


ACTIVATIONS: Mapping[str, Callable[[Array, Array], None]] = {
    "gelu_new": gelu_new,
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
}


def linear(x: Array, weight: Array, bias: Array | None, out: Array) -> None:  # [B, n, in], [in, out] -> [B, n, out]
    np.matmul(x, weight, out=out)
    if bias is not None:
        out += bias


def layer_norm(x: Array, w: Tensors, weights: str, a: Tensors, name: str, rows: slice, epsilon: float) -> None:
    """(x − mean) / √(variance + ε) · weight + bias over the last axis, Ba et al. 2016 (arXiv:1607.06450)."""
    mean, scale, out = a[f"{name}.mean"][:, rows], a[f"{name}.scale"][:, rows], a[f"{name}.out"][:, rows]
    part = 1 / x.shape[-1]
    np.add.reduce(x, axis=-1, keepdims=True, out=mean)  # [B, n, 1]
    mean *= part
    np.subtract(x, mean, out=out)
    np.vecdot(out, out, out=scale[..., 0])
    scale *= part
    scale += epsilon
    np.sqrt(scale, out=scale)
    out /= scale
    out *= w[f"{weights}.weight"]
    out += w[f"{weights}.bias"]


def softmax(x: Array, largest: Array, total: Array, out: Array) -> None:
    """exp(x − max) / Σ exp(x − max) over the last axis, its two statistics kept."""
    np.maximum.reduce(x, axis=-1, out=largest)
    np.subtract(x, largest[..., None], out=out)
    np.exp(out, out=out)
    np.add.reduce(out, axis=-1, out=total)
    out /= total[..., None]


def attention(x: Array, w: Tensors, weights: str, a: Tensors, name: str, rows: slice) -> None:
    """Causal self-attention of `rows` to all positions up to each (Vaswani et al. 2017, arXiv:1706.03762)."""
    B, T, H, A = a[f"{name}.q"].shape
    HA, stop = H * A, rows.stop
    weight, bias = w[f"{weights}.weight"], w[f"{weights}.bias"]
    for n, part in enumerate(("q", "k", "v")):
        columns = slice(n * HA, (n + 1) * HA)
        linear(x, weight[:, columns], bias[columns], a[f"{name}.{part}"].reshape(B, T, HA)[:, rows])

    q, k, v, z = (a[f"{name}.{part}"].transpose(0, 2, 1, 3) for part in ("q", "k", "v", "z"))  # [B, H, T, A]
    scores = a[f"{name}.scores"][:, :, rows]  # [B, H, n, T]
    np.matmul(q[:, :, rows], k[:, :, :stop].swapaxes(-1, -2), out=scores[..., :stop])
    scores[..., :stop] *= A**-0.5
    if stop - rows.start == 1:
        scores[..., stop:] = -np.inf
    else:
        future = np.arange(T) > np.arange(rows.start, stop)[:, None]  # [n, T]
        np.copyto(scores, -np.inf, where=future)

    pattern = a[f"{name}.pattern"][:, :, rows]
    softmax(scores, a[f"{name}.scores_max"][:, :, rows], a[f"{name}.scores_sum"][:, :, rows], pattern)
    np.matmul(pattern[..., :stop], v[:, :, :stop], out=z[:, :, rows])


def block(l: int, config: Config, w: Tensors, a: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """One transformer block: resid_pre [B, T, C] -> resid_post [B, T, C]."""
    here, weights = f"blocks.{l}", f"h.{l}"
    resid_pre, resid_mid, resid_post, attn_out, mlp_out, pre, post = (
        a[f"{here}.{name}"][:, rows]
        for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp.pre", "mlp.post")
    )
    layer_norm(resid_pre, w, f"{weights}.ln_1", a, f"{here}.ln1", rows, config.layer_norm_epsilon)
    attention(a[f"{here}.ln1.out"][:, rows], w, f"{weights}.attn.c_attn", a, f"{here}.attn", rows)
    z = a[f"{here}.attn.z"]
    heads = z.reshape(*z.shape[:2], -1)[:, rows]  # [B, n, HA]
    linear(heads, w[f"{weights}.attn.c_proj.weight"], w[f"{weights}.attn.c_proj.bias"], attn_out)
    np.add(attn_out, resid_pre, out=resid_mid)

    layer_norm(resid_mid, w, f"{weights}.ln_2", a, f"{here}.ln2", rows, config.layer_norm_epsilon)
    linear(a[f"{here}.ln2.out"][:, rows], w[f"{weights}.mlp.c_fc.weight"], w[f"{weights}.mlp.c_fc.bias"], pre)
    ACTIVATIONS[config.activation_function](pre, post)
    linear(post, w[f"{weights}.mlp.c_proj.weight"], w[f"{weights}.mlp.c_proj.bias"], mlp_out)
    np.add(mlp_out, resid_mid, out=resid_post)


def forward(
    config: Config, w: Tensors, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Fill `rows` of every tensor of the arena `a` from its `tokens`; `after_layer` is called L times."""
    tokens = a["tokens"][:, rows]
    a["embed"][:, rows] = w["wte.weight"][tokens]
    a["pos_embed"][:, rows] = w["wpe.weight"][rows]
    resid = a["blocks.0.resid_pre"][:, rows]
    np.add(a["embed"][:, rows], a["pos_embed"][:, rows], out=resid)
    for l in range(config.n_layer):  # noqa: E741
        if l:
            a[f"blocks.{l}.resid_pre"][:, rows] = resid
        block(l, config, w, a, rows)
        resid = a[f"blocks.{l}.resid_post"][:, rows]
        after_layer()
    layer_norm(resid, w, "ln_f", a, "ln_final", rows, config.layer_norm_epsilon)
    linear(a["ln_final.out"][:, rows], w["lm_head.weight"].T, None, a["logits"][:, rows])
    softmax(*(a[name][:, rows] for name in ("logits", "logits_max", "logits_sum", "probs")))
