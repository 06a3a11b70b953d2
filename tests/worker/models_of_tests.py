"""Models with random weights for tests, and runs of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import worker.weights.digests as digests
from tests.checkpoints import write
from worker.describe.config import Config
from worker.engine.numpy_engine import Engine
from worker.families.registry import family_of
from worker.models.sources import catalogue
from worker.trace.arena import Arena, plan
from worker.weights.base import CachedWeights

Weights = dict[str, NDArray[Any]]


def _make_weights(config: Config, seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)

    def tensor(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        values = random.standard_normal(shape)
        if len(shape) == 1:
            values = 0.3 * values + (0.0 if name.endswith("bias") else 1.0)
        elif shapes.tensor(name).is_layered:
            values /= np.sqrt(shape[0] if name.startswith("h.") else shape[1])  # the inputs of a row or a column
        return values.astype(np.float32)

    shapes = catalogue(config)
    made = {name: tensor(name, shape) for name, shape in shapes.items()}
    return {name: made[shapes.source(name)] for name in made}


def _run_model(
    config: Config, weights: Weights, tokens: Any, rows: Sequence[slice] = (), precision: str = "float32"
) -> Arena:
    tokens = np.atleast_2d(tokens)
    batch, length = tokens.shape
    arena = Arena(plan(config, length, batch, precision=precision))
    arena.memory[:] = 0xFF  # NaN in any precision
    arena["tokens"][...] = tokens
    held = CachedWeights({name: weight.astype(precision) for name, weight in weights.items()})
    for part in rows or [slice(0, length)]:
        family_of(config).forward(config, Engine(held), arena, part, lambda: None)
    return arena


@pytest.fixture(scope="session")
def make_weights() -> Callable[..., Weights]:
    """(config, seed) -> float32 weights: biases are not 0, gains are not 1."""
    return _make_weights


@pytest.fixture(scope="session")
def run_model() -> Callable[..., Arena]:
    """(config, weights, tokens, rows, precision) -> the filled arena; values that were not computed are NaN."""
    return _run_model


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """An empty models folder, with a secret folder next to it."""
    (tmp_path / "models").mkdir()
    write(tmp_path / "secret")
    return tmp_path / "models"


@pytest.fixture
def folder(models_dir: Path) -> Path:
    """The folder of the model `mine`, which does not exist yet."""
    return models_dir / "mine"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files in this test."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose digests were computed."""
    hashed: list[Path] = []
    compute = digests._computed

    def recording(path: Path, as_of: digests.Stamp, progress: Callable[[int], None] | None) -> str:
        hashed.append(path)
        return compute(path, as_of, progress)

    monkeypatch.setattr(digests, "_computed", recording)
    return hashed
