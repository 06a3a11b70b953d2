"""The weights of a configuration: their names and shapes, synthetic ones, and those that come with this package."""

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
    """The shape of every weight of a model of these sizes, by name."""
    return Catalogue(describe(config))


def synthetic(config: Config, seed: int) -> SyntheticWeights:
    """Weights of any configuration, drawn as its family's are initialised."""
    return SyntheticWeights(catalogue(config), partial(family_of(config).initial, config), seed)


@cache
def trained(file: Path) -> FileWeights:
    """The weights of a preset that is trained already, read once a process."""
    return FileWeights(file)


@cache
def trained_digest(file: Path) -> str:
    """SHA-256 of their file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
