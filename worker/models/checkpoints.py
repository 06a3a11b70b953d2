"""Checkpoints: model folders as saved by Hugging Face's transformers.

A folder has `config.json` and `model.safetensors`, or `model.safetensors.index.json` and the files it lists. Tensors
are read only when they are used; their names may have the family's prefix. Other tensors and files are ignored.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson

import worker.weights.digests as digests
from worker.describe.config import Config, ConfigError, short_json
from worker.families.parts.hub import UnsupportedConfigError
from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES, describe, family_of
from worker.models.sources import catalogue
from worker.weights.digests import ChangedError, Stamp, UnreadError
from worker.weights.folder import FileError, Folder
from worker.weights.stored import STORED, StoredFile, StoredTensor, StoredWeights

if TYPE_CHECKING:
    from worker.weights.mapped import MappedWeights

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_NAMES = {dtype: dtype.name for dtype in STORED.values()} | {STORED["BF16"]: "bfloat16"}
_MAX_CONFIG = 1 << 20  # bytes of a config.json
_MAX_INDEX = 16 << 20  # bytes of an index: that of 10,000 layers takes 9 MB
_MAX_REASON = 300  # characters
_MANY = 1000  # missing tensors, which are not all looked for


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"The checkpoint in the folder {id!r} cannot be used: {_shortened(reason)}.")


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 1]}…"


class BeingReadError(Exception):
    """A checkpoint whose digest is not known yet, as its files are still being read: `done` of `total` bytes."""

    def __init__(self, id: str, done: int, total: int) -> None:
        gigabytes = f"{done / 1e9:,.1f} of {total / 1e9:,.1f} GB"
        super().__init__(f"The checkpoint in the folder {id!r} is being read to identify its weights: {gigabytes}.")
        self.id, self.done, self.total = id, done, total


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint: every tensor has the expected shape. No file is kept open."""

    id: str
    config: Config
    tensors: Mapping[str, StoredTensor]
    stamps: Mapping[Path, Stamp | None]  # of the files that determine the model; None: the file must be absent

    @property
    def folder(self) -> Path:
        return next(path.parent for path in self.stamps if path.name == CONFIG)

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
                    parts.append(f"{path.name} {digests.sha256(path, stamp)}")
                    done += stamp.size
                except UnreadError as error:
                    done += error.done
        if len(parts) <= len(files):
            raise BeingReadError(self.id, done, total)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def note(self) -> str:
        """A description of the weights for people."""
        found = {_NAMES[tensor.dtype] for tensor in self.tensors.values()}
        converted = "" if found == {"float32"} else ", converted to float32 when read"
        return f"From the checkpoint in the folder {self.id!r}: {' and '.join(sorted(found))}{converted}."

    def is_unchanged(self) -> bool:
        """Return whether the folder's files have not changed since they were opened."""
        with suppress(OSError):
            return all(digests.stamp(path) == stamp for path, stamp in self.stamps.items())
        return False

    def weights(self) -> StoredWeights:
        """Return the weights, under the catalogue's names. Reading raises ChangedError if the files have changed."""
        return StoredWeights(self.tensors)

    def mapped_weights(self) -> MappedWeights:
        """Return the weights mapped, which is faster. If a file is shortened, reading them kills this process."""
        from worker.weights.mapped import MappedWeights  # imported late: the API never maps a file

        with _as_checkpoint_error(self.id):
            return MappedWeights(self.tensors)


def names(models_dir: str) -> list[str]:
    """Return the names of the folders in `models_dir`, valid or not; none if it does not exist or is empty."""
    if not models_dir:
        return []
    try:
        with os.scandir(models_dir) as entries:
            found = [entry.name for entry in entries if entry.is_symlink() or entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        log.warning("cannot list the checkpoints: %s", error)
        return []
    return sorted(name for name in found if not name.startswith(".") and name.isprintable())


def read_config(id: str, models_dir: str) -> Config:
    """Return the configuration of a checkpoint without reading its weights. Raises CheckpointError."""
    with _as_checkpoint_error(id):
        return _config(Folder(id, models_dir))


_opened: dict[tuple[str, str], Checkpoint] = {}


def load(id: str, models_dir: str) -> Checkpoint:
    """Return the checkpoint in the folder `id`, one of `names`; it is cached until it changes on disk.

    Raises CheckpointError.
    """
    checkpoint = _opened.get((models_dir, id))
    if checkpoint is None or not checkpoint.is_unchanged():
        for key, other in [*_opened.items()]:
            if not other.is_unchanged():
                _opened.pop(key, None)
        with _as_checkpoint_error(id):
            checkpoint = _opened[models_dir, id] = _open(id, Folder(id, models_dir))
    return checkpoint


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
        where = _weight_map(folder)
        shards = sorted(set(where.values()))
        stamps |= {folder.path / name: digests.stamp(folder.require(name)) for name in shards}
    else:
        raise FileError(_no_weights(folder))
    files = {name: _opened_file(folder, name) for name in shards}
    tensors = _tensors(config, files, where or dict.fromkeys(files[WEIGHTS].entries, WEIGHTS))
    checkpoint = Checkpoint(id, config, tensors, stamps)
    if not checkpoint.is_unchanged():
        raise FileError("it changed while it was read: try again")
    return checkpoint


def _weight_map(folder: Folder) -> dict[str, str]:
    found = folder.json(INDEX, _MAX_INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise FileError(f"{INDEX} has no weight_map from tensor names to file names")
    return found


def _no_weights(folder: Folder) -> str:
    pickles = sorted(path.name for path in folder.path.glob("*.bin"))
    if pickles:
        return (
            f"it has {pickles[0]} and no {WEIGHTS}: a pickle can run code and is not read; "
            "save the model again with save_pretrained(…, safe_serialization=True)"
        )
    return f"it has neither {WEIGHTS} nor {INDEX}"


def _opened_file(folder: Folder, name: str) -> StoredFile:
    path = folder.require(name)
    try:
        return StoredFile(path)
    except FileError as error:
        raise FileError(f"{name} {error}") from None


def _tensors(config: Config, files: Mapping[str, StoredFile], where: Mapping[str, str]) -> dict[str, StoredTensor]:
    """Return every tensor of the catalogue, as stored."""
    shapes, tensors, missing = catalogue(config), dict[str, StoredTensor](), list[str]()
    copies = {shapes.source(tensor.name): tensor.name for tensor in describe(config).weights if tensor.alias_of}
    lacking = len(shapes) - len(copies) - len(where)  # at least so many are missing
    for name, shape in shapes.items():
        if missing and lacking > _MANY:
            raise FileError(
                f"the tensors {missing[0]} and at least {lacking - 1:,} more are missing from {_listed(files)}"
            )
        source = shapes.source(name)
        own = [*_stored_as(config, source), *(_stored_as(config, copies[source]) if source in copies else ())]
        stored = next((other for other in own if other in where), None)  # tied weights may be stored under either name
        if stored is None:
            missing.append(name)
        else:
            tensors[name] = _tensor(files, where[stored], stored, shape)
    if missing:
        several = len(missing) > 1
        listed = f"tensors {missing[0]} and {len(missing) - 1} more are" if several else f"tensor {missing[0]} is"
        raise FileError(f"the {listed} missing from {_listed(files)}")
    for source, copy in copies.items():
        stored = next((other for other in _stored_as(config, copy) if other in where), None)
        if stored is not None:
            found = _tensor(files, where[stored], stored, shapes[copy])
            _check_tied(source, tensors[source], copy, found)
    return tensors


def _stored_as(config: Config, name: str) -> list[str]:
    """Return the names that a weight may have in a file: with and without the family's prefix."""
    prefix = family_of(config).prefix
    return list(dict.fromkeys((name, f"{prefix}{name.removeprefix(prefix)}", name.removeprefix(prefix))))


def _tensor(files: Mapping[str, StoredFile], file: str, name: str, shape: tuple[int, ...]) -> StoredTensor:
    found = files[file].entries.get(name)
    if found is None:
        raise FileError(f"{file} has no tensor {name}, although {INDEX} lists it")
    if found.shape != shape:
        raise FileError(
            f"{file}: the tensor {name} has the shape {list(found.shape)}, but {CONFIG} requires {list(shape)}"
        )
    try:
        return files[file].tensor(name)
    except FileError as error:
        raise FileError(f"{file}: {error}") from None


def _check_tied(source: str, table: StoredTensor, copy: str, head: StoredTensor) -> None:
    """Raise FileError if a tied head differs from the embedding: which of the two applies is ambiguous."""
    pair, step = StoredWeights({"table": table, "head": head}), max(1, (1 << 20) // table.shape[1])
    for start in range(0, table.shape[0], step):
        part = (slice(start, start + step),)
        if not np.array_equal(pair.read("table", part), pair.read("head", part), equal_nan=True):
            raise FileError(
                f"{CONFIG} ties the head to {source}, but {copy} differs from it: "
                f"set tie_word_embeddings to false, or remove {copy}"
            )


def _listed(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more files" if rest else first
