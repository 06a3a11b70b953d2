"""Checkpoints: model folders as saved by Hugging Face's transformers, and GGUF files.

A folder has `config.json` and `model.safetensors`, or `model.safetensors.index.json` and the files it lists. Tensors
are read only when they are used; their names may have the family's prefix. Other tensors and files are ignored.
A GGUF file is a model by itself, or the only one of a folder without those files.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson

import worker.models.safetensors_files as safetensors_files
import worker.weights.digests as digests
from worker.describe.config import Config, ConfigError, short_json
from worker.families.parts.hub import UnsupportedConfigError
from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES
from worker.models.safetensors_files import CONFIG, INDEX, WEIGHTS
from worker.weights.base import Weights
from worker.weights.digests import ChangedError, Stamp, UnreadError
from worker.weights.folder import FileError, Folder, shortened
from worker.weights.stored import STORED, StoredTensor, StoredWeights

if TYPE_CHECKING:
    from worker.weights.quantized import GgufWeight

log = logging.getLogger(__name__)

GGUF = ".gguf"
_NAMES = {dtype: dtype.name for dtype in STORED.values()} | {STORED["BF16"]: "bfloat16"}
_MAX_CONFIG = 1 << 20  # bytes of a config.json
_MAX_REASON = 300  # characters


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"The checkpoint in the {_kind(id)} {id!r} cannot be used: {_shortened(reason)}.")


def _kind(id: str) -> str:
    return "file" if id.endswith(GGUF) else "folder"


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 1]}…"


class BeingReadError(Exception):
    """A checkpoint whose digest is not known yet, as its files are still being read: `done` of `total` bytes."""

    def __init__(self, id: str, done: int, total: int) -> None:
        gigabytes = f"{done / 1e9:,.1f} of {total / 1e9:,.1f} GB"
        super().__init__(
            f"The checkpoint in the {_kind(id)} {id!r} is being read to identify its weights: {gigabytes}."
        )
        self.id, self.done, self.total = id, done, total


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint: every tensor has the expected shape. No file is kept open."""

    id: str
    config: Config
    tensors: Mapping[str, StoredTensor] | Mapping[str, GgufWeight]
    stamps: Mapping[Path, Stamp | None]  # of the files that determine the model; None: the file must be absent

    @property
    def gguf(self) -> Path | None:
        """The GGUF file of the model, if it is one."""
        return next((path for path in self.stamps if path.suffix == GGUF), None)

    @property
    def folder(self) -> Path | None:
        """The folder of the checkpoint, unless it is a file directly in the models folder."""
        return next((path.parent for path in self.stamps if path.name != self.id), None)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the configuration and the weight files.

        Raises CheckpointError if a file changed, and BeingReadError if another process is reading a file.
        """
        parts, done, total = [orjson.dumps(self.config.to_mapping()).decode()], 0, 0
        with _as_checkpoint_error(self.id):
            files = {path: stamp for path, stamp in self.stamps.items() if stamp is not None and path.name != CONFIG}
            for path, stamp in files.items():
                total += stamp.size
                try:
                    name = GGUF if path == self.gguf else path.name  # GGUF files have any name
                    parts.append(f"{name} {digests.sha256(path, stamp)}")
                    done += stamp.size
                except UnreadError as error:
                    done += error.done
        if len(parts) <= len(files):
            raise BeingReadError(self.id, done, total)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def note(self) -> str:
        """A description of the weights for people."""
        converted = "" if self.dtypes == ["float32"] else ", converted to float32 when read"
        return f"From the checkpoint in the {_kind(self.id)} {self.id!r}: {' and '.join(self.dtypes)}{converted}."

    @property
    def format(self) -> str:
        return "gguf" if self.gguf else "safetensors"

    @cached_property
    def dtypes(self) -> list[str]:
        """The stored types: NumPy's names, and those of GGUF for types that NumPy does not have."""
        return sorted({self.dtype(name) for name in self.tensors})

    def dtype(self, name: str) -> str:
        """Return the stored type of a weight."""
        tensor = self.tensors[name]
        return _NAMES[tensor.dtype] if isinstance(tensor, StoredTensor) else _dtype(tensor.tensor.type)

    def is_unchanged(self) -> bool:
        """Return whether the folder's files have not changed since they were opened."""
        with suppress(OSError):
            return all(digests.stamp(path) == stamp for path, stamp in self.stamps.items())
        return False

    def weights(self) -> Weights:
        """Return the weights, under the catalogue's names. Reading raises ChangedError if the files have changed."""
        if self.gguf:
            from worker.weights.quantized import GgufWeights

            return GgufWeights(cast("Mapping[str, GgufWeight]", self.tensors))
        return StoredWeights(cast("Mapping[str, StoredTensor]", self.tensors))

    def mapped_weights(self) -> Weights:
        """Return the weights mapped, which is faster. If a file is shortened, reading them kills this process.

        Those of a GGUF file are not mapped.
        """
        if self.gguf:
            return self.weights()
        from worker.weights.mapped import MappedWeights  # imported late: the API never maps a file

        with _as_checkpoint_error(self.id):
            return MappedWeights(cast("Mapping[str, StoredTensor]", self.tensors))


def _dtype(type: str) -> str:
    return _NAMES[STORED[type]] if type in STORED else type


def names(models_dir: str) -> list[str]:
    """Return the names of the folders and GGUF files in `models_dir`, valid or not; none if it does not exist."""
    if not models_dir:
        return []
    try:
        with os.scandir(models_dir) as entries:
            found = [
                entry.name for entry in entries if entry.is_symlink() or entry.is_dir() or entry.name.endswith(GGUF)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        log.warning("cannot list the checkpoints: %s", error)
        return []
    return sorted(name for name in found if not name.startswith(".") and name.isprintable())


def read_config(id: str, models_dir: str) -> Config:
    """Return the configuration of a checkpoint without reading its weights. Raises CheckpointError."""
    with _as_checkpoint_error(id):
        folder, file = _found(id, models_dir)
        if file is None:
            return _config(folder)
    return load(id, models_dir).config


_opened: dict[tuple[str, str], Checkpoint] = {}


def load(id: str, models_dir: str) -> Checkpoint:
    """Return the checkpoint `id`, one of `names`; it is cached until it changes on disk.

    Raises CheckpointError.
    """
    checkpoint = _opened.get((models_dir, id))
    if checkpoint is None or not checkpoint.is_unchanged():
        for key, other in [*_opened.items()]:
            if not other.is_unchanged():
                _opened.pop(key, None)
        with _as_checkpoint_error(id):
            folder, file = _found(id, models_dir)
            checkpoint = _open(id, folder) if file is None else _open_gguf(id, folder, file)
            _opened[models_dir, id] = checkpoint
    return checkpoint


def _found(id: str, models_dir: str) -> tuple[Folder, str | None]:
    """Return the folder of a checkpoint, and the name of its GGUF file if it is one. Raises FileError and OSError."""
    if id.endswith(GGUF) and not os.path.isdir(os.path.join(models_dir, id)):
        return Folder(".", models_dir), id
    folder = Folder(id, models_dir)
    if folder.find(WEIGHTS) or folder.find(INDEX):
        return folder, None
    files = sorted(name for name in os.listdir(folder.path) if name.endswith(GGUF))
    if len(files) > 1:
        raise FileError(f"it has {len(files)} GGUF files, {shortened(files[0])} and others: keep one")
    return folder, files[0] if files else None


@contextmanager
def _as_checkpoint_error(id: str) -> Iterator[None]:
    """Convert errors of files to CheckpointError."""
    try:
        yield
    except (FileError, ChangedError) as error:
        raise CheckpointError(id, str(error)) from None
    except OSError as error:
        raise CheckpointError(id, f"it cannot be read ({error.strerror})") from None
    except Exception as error:  # one folder must not break the list of models
        log.exception("cannot read the checkpoint %r", id)
        raise CheckpointError(id, f"it cannot be read ({type(error).__name__})") from None


def _open_gguf(id: str, folder: Folder, name: str) -> Checkpoint:
    import worker.models.gguf as gguf  # imported late, as most services have no such file

    stamps: dict[Path, Stamp | None] = {folder.path / name: digests.stamp(folder.require(name))}
    if name != id:  # others take precedence
        stamps |= dict.fromkeys(folder.path / other for other in (WEIGHTS, INDEX))
    config, weights = gguf.open_gguf(folder.path / name)
    checkpoint = Checkpoint(id, config, weights, stamps)
    if not checkpoint.is_unchanged():
        raise FileError("it changed while it was read: try again")
    return checkpoint


def _config(folder: Folder) -> Config:
    hub_config = folder.json(CONFIG, _MAX_CONFIG)
    name = hub_config.get("model_type", DEFAULT_MODEL_TYPE)
    if not isinstance(name, str) or name not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise FileError(f"{CONFIG} has model_type: {short_json(name)}, and only {supported} are supported")
    family = FAMILIES[name]
    try:
        return family.Config.from_mapping(family.from_hub(hub_config))
    except UnsupportedConfigError as error:
        raise FileError(f"{CONFIG} {error}") from None
    except ConfigError as error:
        raise FileError(f"{CONFIG}: {str(error).removesuffix('.')}") from None


def _open(id: str, folder: Folder) -> Checkpoint:
    stamps = {folder.path / name: digests.stamp(folder.path / name) for name in (CONFIG, WEIGHTS, INDEX)}
    config = _config(folder)
    if stamps[folder.path / WEIGHTS] is not None:
        stamps.pop(folder.path / INDEX)  # a single file takes precedence over an index, as in transformers
        shards, where = [WEIGHTS], None
    elif stamps[folder.path / INDEX] is not None:
        where = safetensors_files.weight_map(folder)
        shards = sorted(set(where.values()))
        stamps |= {folder.path / name: digests.stamp(folder.require(name)) for name in shards}
    else:
        raise FileError(safetensors_files.no_weights(folder))
    files = {name: safetensors_files.opened_file(folder, name) for name in shards}
    tensors = safetensors_files.tensors(config, files, where or dict.fromkeys(files[WEIGHTS].entries, WEIGHTS))
    checkpoint = Checkpoint(id, config, tensors, stamps)
    if not checkpoint.is_unchanged():
        raise FileError("it changed while it was read: try again")
    return checkpoint
