"""A model is a configuration, weights and a vocabulary: every preset, every checkpoint, and any configuration.

Checkpoints are folders under `models_dir`; where it is left out there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import worker.models.checkpoints as checkpoints
import worker.models.sources as sources
import worker.models.tokens as tokens
from worker.describe.architecture import Architecture
from worker.describe.config import Config
from worker.families.family import Preset
from worker.families.registry import PRESETS, config_from_mapping, config_from_text, describe, family_of
from worker.models.checkpoints import Checkpoint, CheckpointError
from worker.models.reference import ModelRef
from worker.weights.base import Weights
from worker.weights.synthetic import synthetic_digest

Source = Literal["trained", "checkpoint", "synthetic"]
_SYNTHETIC = synthetic_digest(0).removesuffix("0")


class UnknownModelError(LookupError):
    """No model of this id; says which there are."""

    def __init__(self, id: str, known: list[str]) -> None:
        super().__init__(
            f"There is no model {id!r}: the models are {', '.join(known)}, and any configuration, "
            "as in n_layer=3,n_head=3,n_embd=48."
        )


class MissingWeightsError(ValueError):
    """The weights of a request are others now."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"the weights {digest} are not here any more: their checkpoint was changed or removed, "
            "or they were made in another way; ask for the trace again"
        )


@dataclass(frozen=True)
class Model:
    """What a request names. The `id` of a configuration that is neither a preset's nor a checkpoint's is its text.

    `lost` is the digest of weights that are not here any more, of which no more than that is known.
    """

    id: str
    config: Config
    source: Source
    seed: int = 0
    checkpoint: Checkpoint | None = None
    lost: str | None = None
    remark: str = field(default="", compare=False)

    @property
    def preset(self) -> Preset | None:
        return PRESETS.get(self.id)

    @property
    def architecture(self) -> Architecture:
        return describe(self.config)

    @property
    def digest(self) -> str:
        """What the weights are known by: equal digests and configurations, equal weights. Raises CheckpointError."""
        if self.lost:
            return self.lost
        if self.checkpoint:
            return self.checkpoint.digest
        trained = self._trained
        return sources.trained_digest(trained) if trained else synthetic_digest(self.seed)

    @property
    def _trained(self) -> Path | None:
        """The file of its weights, where they come with this package."""
        return self.preset.trained if self.preset and self.source == "trained" else None

    @property
    def note(self) -> str:
        if self.lost:
            return "These weights are not here any more."
        if self.checkpoint:
            return self.checkpoint.note
        if self.preset and self.source == "trained":
            return self.preset.trained_note + self.remark
        title = family_of(self.config).title
        return (
            f"Made from seed {self.seed} with the mean and deviation of {title}'s initialisation: "
            "the sizes are real, the values and what they predict are not." + self.remark
        )

    @property
    def vocabulary(self) -> tokens.Vocabulary:
        return tokens.of(self.config, self.preset.letters if self.preset else "")

    @property
    def reference(self) -> ModelRef:
        """What of the model decides a result: its configuration and which weights. Raises CheckpointError."""
        return ModelRef(self.config, self.digest)

    def weights(self) -> Weights:
        """The weights themselves; synthetic ones are made as they are read, those of a checkpoint are mapped."""
        if self.lost:
            raise MissingWeightsError(self.lost)
        if self.checkpoint:
            return self.checkpoint.weights()
        return sources.trained(self._trained) if self._trained else sources.synthetic(self.config, self.seed)

    def confirm(self) -> None:
        """Raise MissingWeightsError where a checkpoint's files are others than when they were opened."""
        if self.checkpoint and not self.checkpoint.is_unchanged():
            raise MissingWeightsError(self.digest)


def ids(models_dir: str = "") -> list[str]:
    """What may be asked for by name: the presets in the order of their sizes, then the other checkpoints by name."""
    return [*PRESETS, *(name for name in checkpoints.names(models_dir) if name not in PRESETS)]


def find(id: str, models_dir: str = "") -> Model:
    """The model of an id of `ids`. A preset's weights come from the checkpoint of its id and sizes, where there is one.

    Raises UnknownModelError, and CheckpointError where the folder of that id cannot be used.
    """
    has_folder, preset = id in checkpoints.names(models_dir), PRESETS.get(id)
    if not has_folder and preset is None:
        raise UnknownModelError(id, ids(models_dir))
    if preset is not None and preset.trained:
        remark = f" The folder {id!r} is not read: a model of this name is trained already." if has_folder else ""
        return Model(id, preset.config, "trained", remark=remark)
    if preset is not None:
        others = _differences(preset.config, checkpoints.read_config(id, models_dir)) if has_folder else ""
        if not has_folder or others:
            remark = f" The folder {id!r} is not read: its model has {others}. Give it another name." if others else ""
            return Model(id, preset.config, "synthetic", remark=remark)
    found = checkpoints.load(id, models_dir)
    return Model(id, found.config, "checkpoint", checkpoint=found)


def preset_of(config: Config) -> str | None:
    """The id of the preset that has exactly these sizes."""
    return next((preset.id for preset in PRESETS.values() if preset.config == config), None)


def id_of(config: Config) -> str:
    """The id of a model of these sizes that has no other: the preset's, or the sizes in a line."""
    return preset_of(config) or config.to_text()


def resolve_config(spec: str | Mapping[str, Any], models_dir: str = "") -> Config:
    """The configuration that a request means by an id or a (partial) configuration, whatever the weights.

    Raises UnknownModelError, ConfigError and CheckpointError.
    """
    if not isinstance(spec, str):
        return config_from_mapping(spec)
    if spec in PRESETS:
        return PRESETS[spec].config
    if spec in checkpoints.names(models_dir):
        return checkpoints.read_config(spec, models_dir)
    if "=" in spec:
        return config_from_text(spec)
    raise UnknownModelError(spec, ids(models_dir))


def resolve(spec: str | Mapping[str, Any], models_dir: str = "", *, synthetic_seed: int | None = None) -> Model:
    """The model that a request means by an id or a (partial) configuration, as a mapping or in a line of text; a
    preset's own sizes mean the preset.

    `synthetic_seed` asks for synthetic weights in any case. Raises UnknownModelError, ConfigError and CheckpointError.
    """
    if isinstance(spec, str) and synthetic_seed is None and spec in ids(models_dir):
        return find(spec, models_dir)
    config = resolve_config(spec, models_dir)
    same = preset_of(config)
    if same and synthetic_seed is None:
        return find(same, models_dir)
    return Model(id_of(config), config, "synthetic", synthetic_seed or 0)


def from_reference(reference: ModelRef, models_dir: str = "") -> Model:
    """The model of a reference. Raises MissingWeightsError where its weights are others now."""
    config, digest = reference.config, reference.weights
    same = preset_of(config)
    if digest.startswith(_SYNTHETIC):
        return Model(id_of(config), config, "synthetic", int(digest.removeprefix(_SYNTHETIC)))
    trained = PRESETS[same].trained if same else None
    if same and trained and digest == sources.trained_digest(trained):
        return find(same)
    for found in _checkpoints_of(config, models_dir):
        with suppress(CheckpointError):
            if found.digest == digest:
                return Model(found.id, config, "checkpoint", checkpoint=found)
    raise MissingWeightsError(digest)


def from_old_reference(reference: ModelRef, models_dir: str = "") -> Model:
    """The model of a reference from an old request: where its weights are gone, one that says so (`lost`)."""
    try:
        return from_reference(reference, models_dir)
    except MissingWeightsError:
        config, digest = reference.config, reference.weights
        source: Source = "synthetic" if digest.startswith("synthetic-") else "checkpoint"
        return Model(id_of(config), config, source, lost=digest)


def _checkpoints_of(config: Config, models_dir: str) -> Iterator[Checkpoint]:
    """The sound checkpoints of a configuration, that of its preset first."""
    same = preset_of(config)
    for id in sorted(checkpoints.names(models_dir), key=lambda id: (id != same, id)):
        if id not in PRESETS or (id == same and not PRESETS[id].trained):
            with suppress(CheckpointError):
                if checkpoints.read_config(id, models_dir) == config:
                    yield checkpoints.load(id, models_dir)


def _differences(wanted: Config, found: Config) -> str:
    if wanted.model_type != found.model_type:
        return f"model_type {found.model_type}, not {wanted.model_type}"
    pairs = zip(wanted.to_mapping().items(), found.to_mapping().values(), strict=True)
    return ", ".join(f"{name} {other}, not {value}" for (name, value), other in pairs if other != value)
