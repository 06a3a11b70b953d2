"""Families of decoders with RMS norms, rotary positions and gated MLPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from worker.describe.config import Config
from worker.families.family import Family, Preset
from worker.families.parts import defaults, rms_decoder, rms_forward
from worker.families.parts.gguf import GgufFormat
from worker.families.parts.rms_decoder import Decoder
from worker.weights.synthetic import Initial


def rms_family(
    title: str,
    description: str,
    config: type[Config],
    presets: tuple[Preset, ...],
    decoder: Callable[[Any], Decoder],
    from_hub: Callable[[Mapping[str, Any]], dict[str, Any]],
    gguf: GgufFormat | None = None,
) -> Family:
    """Return the family of a configuration, which `decoder` describes as what it has in common with the others."""

    def initial(config: Any, name: str) -> Initial:
        offset = decoder(config).gain if "norm" in name else None
        return Initial(1.0 - offset, 0.0) if offset else defaults.initial(config, name)

    return Family(
        title=title,
        description=description,
        Config=config,
        presets=presets,
        describe=lambda config: rms_decoder.describe(decoder(config)),
        forward=lambda config, *more: rms_forward.forward(decoder(config), *more),
        predict=lambda config, *more: rms_forward.predict(decoder(config), *more),
        initial=initial,
        from_hub=from_hub,
        prefix="model.",
        vocabulary=defaults.vocabulary,
        gguf=gguf,
    )
