"""The GGUF files of decoders with RMS norms, rotary positions and gated MLPs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.families.parts.gguf import GgufFormat, Rows, pairs_apart
from worker.families.parts.hub import UnsupportedConfigError

_FIELDS = {
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "embedding_length": "hidden_size",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_LAYER, _BLOCK = "model.layers.{layer}", "blk.{layer}"
_ATTENTION, _MLP = f"{_LAYER}.self_attn", f"{_LAYER}.mlp"
_MODULES = {
    "model.embed_tokens": "token_embd",
    f"{_LAYER}.input_layernorm": f"{_BLOCK}.attn_norm",
    f"{_ATTENTION}.q_proj": f"{_BLOCK}.attn_q",
    f"{_ATTENTION}.k_proj": f"{_BLOCK}.attn_k",
    f"{_ATTENTION}.v_proj": f"{_BLOCK}.attn_v",
    f"{_ATTENTION}.o_proj": f"{_BLOCK}.attn_output",
    f"{_LAYER}.post_attention_layernorm": f"{_BLOCK}.ffn_norm",
    f"{_MLP}.gate_proj": f"{_BLOCK}.ffn_gate",
    f"{_MLP}.up_proj": f"{_BLOCK}.ffn_up",
    f"{_MLP}.down_proj": f"{_BLOCK}.ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
}
#: Keys of YaRN's ramp, and transformers' names.
_RAMP = {"rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow"}


def rms_format(
    architecture: str,
    *,
    pairs_are_neighbours: bool = False,
    fields: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
    optional: Mapping[str, str] | None = None,
) -> GgufFormat:
    """Return the format of an architecture.

    `pairs_are_neighbours`: the rows of queries and keys are in the order of llama.cpp's rotation, which pairs
    neighbouring channels. `fields`, `modules` and `optional` are added to the common ones.
    """

    def rows(config: Any, module: str) -> Rows:
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(module.rpartition(".")[2]) if pairs_are_neighbours else None
        return None if count is None else pairs_apart(count, config.head_dim)

    return GgufFormat(
        architecture=architecture,
        fields={**_FIELDS, **(fields or {})},
        modules={**_MODULES, **(modules or {})},
        optional=optional or {},
        defaults=_defaults,
        complete=_complete,
        fixed={"attention.causal": True, "rope.scaling.attn_factor": 1.0, "rope.scaling.yarn_attn_factor": 1.0},
        rows=rows,
    )


def _defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
    heads, width = fields.get("num_attention_heads"), fields.get("hidden_size")
    head_dim = width // heads if isinstance(heads, int) and isinstance(width, int) and heads > 0 else None
    return {"rope_theta": 10000.0, "num_key_value_heads": heads, "head_dim": head_dim}


def _complete(fields: dict[str, Any], keys: dict[str, Any]) -> None:
    """Check the widths of a head, and add the scaling of rotary positions."""
    for key in ("attention.value_length", "rope.dimension_count"):
        found = keys.pop(key, fields["head_dim"])
        if found != fields["head_dim"] is not None:
            raise UnsupportedConfigError(
                f"has {key}: {found}, and only the head width {fields['head_dim']} is supported"
            )
    kind = keys.pop("rope.scaling.type", "none")
    factor = keys.pop("rope.scaling.factor", keys.pop("rope.scale_linear", 1.0))
    context = keys.pop("rope.scaling.original_context_length", fields["max_position_embeddings"])
    ramp = {name: keys.pop(key) for key, name in _RAMP.items() if key in keys}
    if kind == "none" or (kind == "linear" and factor in (0, 1)):
        return
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        scaling |= {"original_max_position_embeddings": context} | ramp
    fields["rope_scaling"] = scaling
