"""Where weights come from: a trained or downloaded file, mapped, or a pure function of (seed, name, index)."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from math import prod, sqrt
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

import worker.describe.architecture as architecture
from worker.describe.architecture import LAYER
from worker.families.config import Config

try:
    from worker.engine._kernels import draw
except ImportError:  # see compiled.py
    draw = None  # type: ignore[assignment]

Key = tuple[slice | int, ...]

SYNTHETIC_VERSION = 1
_GAMMA = 0x9E3779B97F4A7C15  # the odd increment of SplitMix64, 2⁶⁴ divided by the golden ratio
_RUN = 1 << 14  # words made at a time
_TILE = 1 << 20  # values of a tile
_FEW = 64  # values in a row that are made one by one as fast as together


class Weights(ABC):
    """Weights by Hugging Face name. Where they are made or converted as they are read, a whole one may be large:
    `read`, `rows` and `tiles` take little memory."""

    @abstractmethod
    def __getitem__(self, name: str, /) -> NDArray[Any]:
        """A weight, whole."""

    def read(self, name: str, key: Key) -> NDArray[Any]:
        """`weights[name][key]`, without making the rest of the tensor."""
        return np.asarray(self[name][key])

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        """`weights[name][index]`, without making the rest of the table."""
        return self[name][index]

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        """A matrix from its first row to its last, as many at a time as are cheap to have at once."""
        whole = self[name]
        yield slice(0, len(whole)), whole


class Catalogue(Mapping[str, tuple[int, ...]]):
    """The shape of every weight by name, the (perhaps tied) head included.

    Shapes are worked out as they are asked for: one of ten thousand layers costs no more than one of two.
    """

    _kinds: ClassVar = {tensor.name: tensor for tensor in architecture.WEIGHTS}
    _numbered = re.compile(r"(?<=^h\.)(0|[1-9]\d{0,8})(?=\.)", re.ASCII)

    def __init__(self, config: Config) -> None:
        self._n_layer, self._sizes = config.n_layer, architecture.sizes(config)

    def __getitem__(self, name: str) -> tuple[int, ...]:
        layer = self._numbered.search(name)
        if LAYER in name or (layer and int(layer[0]) >= self._n_layer):
            raise KeyError(name)
        return self._kinds[self._numbered.sub(LAYER, name)].shape(self._sizes)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in architecture.expand(architecture.WEIGHTS, self._n_layer))

    def __len__(self) -> int:
        return sum(self._n_layer if kind.scope == "layer" else 1 for kind in self._kinds.values())


def catalogue(config: Config) -> Catalogue:
    """The shape of every weight of a model of these sizes, by name."""
    return Catalogue(config)


class FileWeights(Weights, Mapping[str, NDArray[Any]]):
    """A safetensors file of one model: float32, every tensor of the catalogue."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            self._tensors: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            self.metadata: dict[str, str] = file.metadata() or {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class SyntheticWeights(Weights):
    """Weights of any model from a seed, each value by itself and the same on every machine.

    A value is a uniform one with the mean and deviation of GPT-2's initialisation: lane `i mod 4` (int16) of
    the SplitMix64 output (Steele et al. 2014, doi:10.1145/2714064.2660195) at position `i div 4` of the stream
    that the seed and the tensor's name choose, i being the index in C order.
    """

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.seed = config, seed
        self._shapes = catalogue(config)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.read(name, ())

    def read(self, name: str, key: Key) -> NDArray[Any]:
        name, shape = self._source(name), self._shapes[name]
        if self._deviation(name) == 0:
            gain = name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
            return np.full(self._picked(shape, key), float(gain), dtype=np.float32)
        first = key[0] if key else slice(None)
        if len(key) <= 1 and isinstance(first, slice) and first.step in (None, 1):
            rows, pitch = range(*first.indices(shape[0])), prod(shape[1:])
            return self._run(name, rows.start * pitch, len(rows) * pitch).reshape(len(rows), *shape[1:])
        axes = [*key, *(slice(None),) * (len(shape) - len(key))]
        last = axes[-1]
        if len(shape) == 2 and isinstance(first, slice) and isinstance(last, slice):
            rows, columns = (range(*axis.indices(size)) for axis, size in zip((first, last), shape, strict=True))
            if columns.step == 1 and len(columns) >= _FEW:
                return self._rows(name, rows, columns)
        index = np.zeros((), dtype=np.uint64)
        for size, axis in zip(shape, axes, strict=True):
            positions = np.arange(*axis.indices(size)) if isinstance(axis, slice) else np.array(range(size)[axis])
            index = np.add.outer(index * np.uint64(size), positions.astype(np.uint64))
        lanes = self._values((index // np.uint64(4)).ravel(), *self.stream(name)).reshape(-1, 4)
        return np.take_along_axis(lanes, (index % np.uint64(4)).astype(np.intp).reshape(-1, 1), 1).reshape(index.shape)

    def rows(self, name: str, index: NDArray[Any] | slice) -> NDArray[Any]:
        if isinstance(index, slice):
            return self.read(name, (index,))
        width = self._shapes[self._source(name)][1]
        return self._rows(name, index.ravel().tolist(), range(width)).reshape(*index.shape, width)

    def tiles(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        count, width = self._shapes[self._source(name)]
        step = max(1, _TILE // width)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, self.read(name, (rows,))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight."""
        return self._shapes[name]

    def stream(self, name: str) -> tuple[int, float]:
        """Where the stream of a matrix's words begins, and what makes deviates of its lanes, which come ± 0.5."""
        name = self._source(name)
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "little"), self._deviation(name) * sqrt(12) / 2**16

    def _rows(self, name: str, rows: Sequence[int], columns: range) -> NDArray[np.float32]:
        """Of some rows of a matrix, columns that follow each other."""
        table = np.empty((len(rows), len(columns)), dtype=np.float32)
        base, scale = self.stream(name)
        width = self._shapes[self._source(name)][1]
        for row, out in zip(rows, table, strict=True):
            self._fill(out, base, scale, row * width + columns.start)
        return table

    def _run(self, name: str, first: int, count: int) -> NDArray[np.float32]:
        """Values that follow each other: `count` of them from `first` on."""
        values = np.empty(count, dtype=np.float32)
        self._fill(values, *self.stream(name), first)
        return values

    def _fill(self, out: NDArray[np.float32], base: int, scale: float, first: int) -> None:
        """The same into an array [N]; without the kernels in runs that stay in the processor's cache."""
        if draw is not None:
            draw(base, first, scale, out)
            return
        start, stop = first // 4, -(-(first + len(out)) // 4)
        for word in range(start, stop, _RUN):
            values = self._values(np.arange(word, min(word + _RUN, stop), dtype=np.uint64), base, scale)
            skip = max(first - 4 * word, 0)
            at = 4 * word + skip - first
            out[at : at + len(values) - skip] = values[skip : skip + len(out) - at]

    def _source(self, name: str) -> str:
        return "wte.weight" if name == "lm_head.weight" and self.config.tie_word_embeddings else name

    @staticmethod
    def _picked(shape: tuple[int, ...], key: Key) -> tuple[int, ...]:
        return np.broadcast_to(np.empty(()), shape)[key].shape

    def _deviation(self, name: str) -> float:
        """GPT-2's: 0.02, residual projections 0.02/√(2L), biases and the norms' parameters none."""
        if name.endswith(".bias") or ".ln_" in name or name.startswith("ln_f"):
            return 0.0
        return 0.02 / sqrt(2 * self.config.n_layer) if name.endswith("c_proj.weight") else 0.02

    @staticmethod
    def _values(words: NDArray[np.uint64], base: int, scale: float) -> NDArray[np.float32]:
        """The four values of each word: float32 [4 · len(words)]."""
        z = words * np.uint64(_GAMMA)
        z += np.uint64(base)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        values = z.astype("<u8", copy=False).view("<i2").astype(np.float32)
        values += 0.5  # int16 has one negative value more: its mean is −1/2
        values *= scale
        return values


class HeldWeights(Weights):
    """Weights made or read once and kept, for a model that is passed through many times."""

    def __init__(self, source: Weights | Mapping[str, NDArray[Any]]) -> None:
        self.source = source
        self._held: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = self.source[name]
        return found


def synthetic_digest(seed: int) -> str:
    """What stands for the digest of synthetic weights: they follow from it and the configuration."""
    return f"synthetic-{SYNTHETIC_VERSION}-{seed}"


NANO_PATH = Path(str(resources.files("worker.weights") / "nano-gpt.safetensors"))


@cache
def nano() -> FileWeights:
    """The trained weights of nano-gpt, read once a process."""
    return FileWeights(NANO_PATH)


@cache
def nano_digest() -> str:
    """SHA-256 of the file of nano-gpt's weights, in hex."""
    return hashlib.sha256(NANO_PATH.read_bytes()).hexdigest()
