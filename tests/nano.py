"""nano-gpt's trained weights."""

from __future__ import annotations

from pathlib import Path

import worker.models.sources as sources
from worker.families.registry import PRESETS
from worker.weights.base import FileWeights

NANO_PATH = PRESETS["nano-gpt"].trained or Path()


def nano() -> FileWeights:
    return sources.trained(NANO_PATH)


def nano_digest() -> str:
    return sources.trained_digest(NANO_PATH)
