"""The weights of a configuration: catalogue, synthetic, trained."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path

from worker.describe.config import Config
from worker.families.registry import describe, family_of
from worker.weights.base import FileWeights
from worker.weights.catalogue import Catalogue
from worker.weights.synthetic import SyntheticWeights


def catalogue(config: Config) -> Catalogue:
    """Return the shape of every weight by name."""
    return Catalogue(describe(config))


def synthetic(config: Config, seed: int) -> SyntheticWeights:
    """Return synthetic weights, distributed as the family's initialisation."""
    return SyntheticWeights(catalogue(config), partial(family_of(config).initial, config), seed)


@cache
def trained(file: Path) -> FileWeights:
    """Return the weights of a trained preset, read once per process."""
    return FileWeights(file)


@cache
def trained_digest(file: Path) -> str:
    """Return the SHA-256 of a trained preset's file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
