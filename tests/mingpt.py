"""minGPT's forward pass in NumPy, with its weight names and (out, in) orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]


def layer_norm(x: NDArray[Any], w: Tensors, name: str) -> NDArray[Any]:  # [B, T, C] -> [B, T, C]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.asarray(x * w[f"{name}.weight"] + w[f"{name}.bias"])


def linear(x: NDArray[Any], w: Tensors, name: str) -> NDArray[Any]:  # [B, T, in] -> [B, T, out]
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def softmax(x: NDArray[Any]) -> NDArray[Any]:
    x = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(x / x.sum(-1, keepdims=True))


def heads(x: NDArray[Any], n_head: int) -> NDArray[Any]:  # [B, T, C] -> [B, H, T, A]
    return x.reshape(*x.shape[:2], n_head, -1).swapaxes(1, 2)


def attention(x: NDArray[Any], w: Tensors, name: str, n_head: int) -> Tensors:
    q, k, v = (heads(part, n_head) for part in np.split(linear(x, w, f"{name}.c_attn"), 3, axis=-1))
    seen = w[f"{name}.bias"][:, :, : x.shape[1], : x.shape[1]]
    att = np.where(seen == 0, -np.inf, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[3]))
    y = (softmax(att) @ v).swapaxes(1, 2).reshape(x.shape)
    return {"q": q, "k": k, "v": v, "att": att, "attSm": softmax(att), "y": y, "yProj": linear(y, w, f"{name}.c_proj")}


def block(x: NDArray[Any], w: Tensors, name: str, n_head: int) -> Tensors:
    found = {"ln1": layer_norm(x, w, f"{name}.ln_1")}
    found |= attention(found["ln1"], w, f"{name}.attn", n_head)
    found["attnResid"] = x + found["yProj"]
    found["ln2"] = layer_norm(found["attnResid"], w, f"{name}.ln_2")
    found["fc"] = fc = linear(found["ln2"], w, f"{name}.mlp.c_fc")
    found["gelu"] = 0.5 * fc * (1 + np.tanh(np.sqrt(2 / np.pi) * (fc + 0.044715 * fc**3)))
    found["mlp"] = linear(found["gelu"], w, f"{name}.mlp.c_proj")
    return found | {"mlpResid": found["attnResid"] + found["mlp"]}


def forward(idx: NDArray[Any], weights: Tensors, n_layer: int, n_head: int) -> Tensors:
    """Return every value in the LLM Visualization page's file, in its order, in float64, for tokens [B, T]."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    found = {"idx": idx, "tok_emb": w["transformer.wte.weight"][idx.astype(int)]}
    found["pos_emb"] = w["transformer.wpe.weight"][None, : idx.shape[1]]
    found["x"] = x = found["tok_emb"] + found["pos_emb"]
    blocks = []
    for layer in range(n_layer):
        blocks.append(block(x, w, f"transformer.h.{layer}", n_head))
        x = blocks[-1]["mlpResid"]
    found |= blocks[0] | {f"block{layer}": blocks[layer]["mlpResid"] for layer in range(n_layer)}
    found["ln_f"] = layer_norm(x, w, "transformer.ln_f")
    found["lm_head"] = found["ln_f"] @ w["lm_head.weight"].T
    return found | {"probs": softmax(found["lm_head"])}
