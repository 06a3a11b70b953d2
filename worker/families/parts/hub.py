"""Reading a `config.json` of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from worker.describe.config import Config, short_json
from worker.describe.functions import SYNONYMS
from worker.describe.rotary import RopeParameters, attention_factor


class UnsupportedConfigError(ValueError):
    """A `config.json` with a setting that is not supported."""


#: Settings that leave a forward pass unchanged: of training, generation, tokens, files and task heads.
_HARMLESS = """
    architectures attention_dropout attention_probs_dropout_prob attn_pdrop bos_token_id cache_implementation
    classifier_dropout cls_token_id decoder_start_token_id do_sample dropout dtype embd_pdrop embedding_dropout
    eos_token_id finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_dropout
    hidden_dropout_prob id2label init_std initializer_range is_decoder is_llama_config keys_to_ignore_at_inference
    label2id layerdrop length_penalty mask_token_id max_length min_length model_type n_ctx no_repeat_ngram_size
    num_beams num_labels num_return_sequences output_attentions output_hidden_states output_router_logits
    output_scores pad_token_id prefix pretraining_tp problem_type repetition_penalty resid_pdrop return_dict
    return_dict_in_generate router_aux_loss_coef sep_token_id summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj task_specific_params temperature tokenizer_class top_k
    top_p torch_dtype torchscript transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed
    unsloth_version use_bfloat16 use_cache
"""
#: Where `rotary_fields` looks.
ROTARY = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


def hub_fields(
    config: type[Config],
    hub_config: Mapping[str, Any],
    fixed: Mapping[str, Any],
    renamed: Mapping[str, str],
    function: str,
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`.

    `fixed` are other settings that change the computation, each with its only supported value; `renamed` maps aliases
    to fields; `function` is the field of the activation function; `ignored` are settings that change nothing in this
    family. Others are refused unless they are off. Raises UnsupportedConfigError.
    """
    for name, supported in fixed.items():
        if hub_config.get(name, supported) != supported:
            found, wanted = (short_json(value) for value in (hub_config[name], supported))
            raise UnsupportedConfigError(f"has {name}: {found}, and only {wanted} is supported")
    hub_config = {renamed.get(name, name): value for name, value in hub_config.items()}
    known = config.rules().keys() | fixed.keys() | {*_HARMLESS.split()} | {*ignored}
    for name, value in hub_config.items():
        if name not in known and not name.startswith("_") and value not in (None, False, "", [], {}):
            raise UnsupportedConfigError(f"has {name}: {short_json(value)}, which {config.model_type} does not have")
    values = {name: hub_config[name] for name in config.rules() if name in hub_config}
    if isinstance(values.get(function), str):
        values[function] = SYNONYMS.get(values[function], values[function])
    return values


def rotary_fields(hub_config: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Return `rope_theta` and `partial_rotary_factor`, where set, and `rope_parameters` (None for none) from a
    `config.json`.

    It may have them in `rope_parameters`, as transformers 5 does, or apart and in `rope_scaling`; `context` is its
    `max_position_embeddings`. Raises UnsupportedConfigError.
    """
    name = next((name for name in ("rope_scaling", "rope_parameters") if hub_config.get(name)), "rope_parameters")
    given = hub_config.get(name) or {}
    if not isinstance(given, dict):
        raise UnsupportedConfigError(f"has {name}: {short_json(given)}, which must be an object or null")
    plain = {key: hub_config[key] for key in ("rope_theta", "partial_rotary_factor") if hub_config.get(key) is not None}
    values = {key: value for key, value in given.items() if value is not None}
    plain |= {key: values.pop(key) for key in ("rope_theta", "partial_rotary_factor") if key in values}
    kind = values.setdefault("rope_type", values.get("type", "default"))
    values.pop("type", None)
    if kind in ("llama3", "yarn"):
        key = "original_max_position_embeddings"
        values[key] = hub_config.get(key) or values.get(key) or context
    if kind == "yarn":
        _complete_yarn(values)
    if wrong := RopeParameters().error(values):
        raise UnsupportedConfigError(f"has {name}: {short_json(given)}: {wrong.removesuffix('.')}")
    return plain | {"rope_parameters": RopeParameters().made(values)}


def _complete_yarn(values: dict[str, Any]) -> None:
    """Replace the factors of cosines and sines by the one that follows from them, and drop betas of 0."""
    own, of_all = values.pop("mscale", None), values.pop("mscale_all_dim", None)
    numbers = all(isinstance(one, int | float) for one in (own, of_all, values.get("factor")))
    if own and of_all and numbers and "attention_factor" not in values:
        values["attention_factor"] = attention_factor(values["factor"], own) / attention_factor(
            values["factor"], of_all
        )
    for key in ("beta_fast", "beta_slow"):
        if values.get(key) == 0:
            del values[key]
