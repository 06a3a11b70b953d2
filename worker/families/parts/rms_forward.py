"""The forward pass of decoders with RMS norms, rotary positions and gated MLPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.families.parts import attention, mlp, norms, prediction, stream
from worker.families.parts.rms_decoder import Decoder
from worker.families.parts.rms_head_norms import rms_head_norms
from worker.families.parts.rotary import fill_rotary, rotate
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


def forward(
    d: Decoder, engine: Engine, a: Tensors, rows: slice, after_layer: Callable[[], None] = lambda: None
) -> None:
    """Compute the positions `rows` of every tensor in `a` from its `tokens`; call `after_layer` after each layer."""
    new = stream.restricted(a, rows)
    engine.embed("model.embed_tokens.weight", a["tokens"][:, rows], new["embed"], d.embed_scale)
    new["blocks.0.resid_pre"][:] = new["embed"]
    for rotary in d.rotaries:
        fill_rotary(rotary, rows, new)
    resid = stream.run_layers(
        d.config.num_hidden_layers, lambda layer: block(layer, d, engine, a, new, rows), new, after_layer
    )
    predict(d, engine, resid, new)


def block(l: int, d: Decoder, engine: Engine, a: Tensors, new: Tensors, rows: slice) -> None:  # noqa: E741 - the papers' letter
    """Compute one transformer block: resid_pre [B, n, C] -> resid_post [B, n, C]; `new` is `a` restricted to `rows`."""
    here, weights = f"blocks.{l}", f"model.layers.{l}"
    names = d.norm_names(weights)
    resid_pre, resid_mid, resid_post = (new[f"{here}.{name}"] for name in ("resid_pre", "resid_mid", "resid_post"))

    def norm(x: NDArray[Any], name: str) -> NDArray[Any]:
        return norms.rms_norm(engine, x, names[name], d.config.rms_norm_eps, new, f"{here}.{name}", d.gain)

    attn_out = attend(l, d, engine, norm(resid_pre, "ln1"), a, new, rows)
    engine.add(norm(attn_out, "ln1_post") if d.post_norms else attn_out, resid_pre, resid_mid)
    mlp_out = mlp.gated_mlp(engine, norm(resid_mid, "ln2"), f"{weights}.mlp", d.function, d.mlp_bias, new, here)
    engine.add(norm(mlp_out, "ln2_post") if d.post_norms else mlp_out, resid_mid, resid_post)


def attend(
    l: int, d: Decoder, engine: Engine, x: NDArray[Any], a: Tensors, new: Tensors, rows: slice  # noqa: E741 - the papers' letter
) -> NDArray[Any]:  # fmt: skip
    """Compute the attention of one layer: the norm x [B, n, C] -> attn_out [B, n, C]."""
    here, weights, epsilon = f"blocks.{l}", f"model.layers.{l}.self_attn", d.config.rms_norm_eps
    for n in "qkv":
        engine.project(x, f"{weights}.{n}_proj", stream.merge_heads(new[f"{here}.attn.{n}"]), bias=d.qkv_bias)
    if d.head_norms:
        rms_head_norms(engine, weights, epsilon, new, here, d.gain)
    rotate(engine, d.rotary(l), here, new, d.normed)
    attention.attend(
        engine, rows, a, here, "rot_q", "rot_k", scale=d.score_scale, window=d.window(l), cap=d.score_cap
    )  # fmt: skip
    out = new[f"{here}.attn_out"]
    engine.project(stream.merge_heads(new[f"{here}.attn.z"]), f"{weights}.o_proj", out, bias=d.out_bias)
    return out


def predict(d: Decoder, engine: Engine, resid: NDArray[Any], new: Tensors) -> None:
    """Compute `ln_final`, `logits` and `probs` [B, n, V] from a residual stream [B, n, C]."""
    normed = norms.rms_norm(engine, resid, "model.norm", d.config.rms_norm_eps, new, "ln_final", d.gain)
    prediction.unembed(engine, normed, new, cap=d.logit_cap)
