"""TransformerLens's names: translated one by one, and matched as a whole by patterns."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from tests.gpt2 import CONFIGS
from worker.describe.hooks import hook_name, value_name, value_patterns
from worker.families.registry import describe

NANO = [name for name, _ in describe(CONFIGS["nano-gpt"]).all_values()]

#: Every default hook point of a GPT-2 in TransformerLens's HookedTransformer, with our name.
HOOKS = {
    "hook_embed": "embed",
    "hook_pos_embed": "pos_embed",
    "blocks.{}.hook_resid_pre": "blocks.{}.resid_pre",
    "blocks.{}.ln1.hook_scale": "blocks.{}.ln1.scale",
    "blocks.{}.ln1.hook_normalized": "blocks.{}.ln1.out",
    **{f"blocks.{{}}.attn.hook_{name}": f"blocks.{{}}.attn.{name}" for name in ("q", "k", "v", "pattern", "z")},
    "blocks.{}.attn.hook_attn_scores": "blocks.{}.attn.scores",
    "blocks.{}.hook_attn_out": "blocks.{}.attn_out",
    "blocks.{}.hook_resid_mid": "blocks.{}.resid_mid",
    "blocks.{}.ln2.hook_scale": "blocks.{}.ln2.scale",
    "blocks.{}.ln2.hook_normalized": "blocks.{}.ln2.out",
    "blocks.{}.mlp.hook_pre": "blocks.{}.mlp.pre",
    "blocks.{}.mlp.hook_post": "blocks.{}.mlp.post",
    "blocks.{}.hook_mlp_out": "blocks.{}.mlp_out",
    "blocks.{}.hook_resid_post": "blocks.{}.resid_post",
    "ln_final.hook_scale": "ln_final.scale",
    "ln_final.hook_normalized": "ln_final.out",
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("layer", ["0", "11", "*", "[0-3]"])
def test_transformer_lens_names_are_translated(hook: str, layer: str) -> None:
    assert value_name(hook.format(layer)) == HOOKS[hook].format(layer)


def test_transformer_lens_names_are_translated_to_existing_values() -> None:
    assert {ours.format(0) for ours in HOOKS.values()} <= {*NANO}


@pytest.mark.parametrize("name", NANO)
def test_our_own_names_are_unchanged(name: str) -> None:
    assert value_name(name) == name


def test_only_values_with_a_hook_have_its_name() -> None:
    hooks = {hook.format(layer): ours.format(layer) for hook, ours in HOOKS.items() for layer in range(3)}
    assert {name: hook_name(name) for name in NANO} == dict.fromkeys(NANO) | {
        ours: hook for hook, ours in hooks.items()
    }


@pytest.mark.parametrize(
    "pattern",
    [
        "*hook_pre", "*.hook_*", "hook_*", "*hook_?", "*hook_normalized", "blocks.[01].attn.hook_[qk]",
        "blocks.1.*hook_*out", "*hook_scale", "*.hook_attn_*", "*.mlp.hook_*", "blocks.2.hook_resid_pre", "*hook_*_pre",
    ],
)  # fmt: skip
def test_a_pattern_with_a_hook_is_matched_against_the_whole_names_of_transformer_lens(pattern: str) -> None:
    expected = [name for name in NANO if (hook := hook_name(name)) and fnmatchcase(hook, pattern)]
    found = value_patterns(pattern, NANO)
    assert expected
    assert [name for name in NANO if any(fnmatchcase(name, own) for own in found)] == expected


@pytest.mark.parametrize(
    ("pattern", "own"),
    [
        ("*hook_pre", ["blocks.*.mlp.pre"]),  # and not resid_pre
        ("hook_*", ["embed", "pos_embed"]),
        ("*.ln1.hook_normalized", ["*.ln1.out"]),
        ("blocks.*.attn.hook_[qk]", ["blocks.*.attn.[qk]"]),
        ("blocks.0.attn.hook_pattern", ["blocks.0.attn.pattern"]),
        ("*hook_nothing", ["*hook_nothing"]),
        ("*.pre", ["*.pre"]),
    ],
)
def test_patterns_are_translated_to_short_ones(pattern: str, own: list[str]) -> None:
    assert value_patterns(pattern, NANO) == own
