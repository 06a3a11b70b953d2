"""GPT-2's published configurations, typed as GPT2Config."""

from __future__ import annotations

from worker.families.gpt2 import FAMILY, GPT2Config

CONFIGS: dict[str, GPT2Config] = {
    preset.id: preset.config for preset in FAMILY.presets if isinstance(preset.config, GPT2Config)
}
