"""Checkpoints: folders as Hugging Face's transformers saves them, each a model under its folder's name.

A folder holds `config.json` and `model.safetensors`, or `model.safetensors.index.json` and the files it names. Its
tensors are mapped, under the names with or without the prefix of the family; what else there is, is left alone.
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
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import worker.weights.digests as digests
from worker.describe.config import Config, ConfigError
from worker.families.family import UnsupportedConfigError
from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES, describe, family_of
from worker.models.sources import catalogue
from worker.weights.digests import ChangedError, Stamp
from worker.weights.folder import FileError, Folder
from worker.weights.mapped import STORED, MappedFile, MappedWeights

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_NAMES = {STORED["F32"]: "float32", STORED["F16"]: "float16", STORED["BF16"]: "bfloat16"}


class CheckpointError(ValueError):
    """A folder whose model cannot be used: says what is wrong and what is expected."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"The checkpoint in the folder {id!r} cannot be used: {reason}.")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model's folder as it was when it was opened: its tensors are mapped, and each is there in its shape."""

    id: str
    config: Config
    tensors: Mapping[str, NDArray[Any]]
    stamps: Mapping[Path, Stamp | None]  # of each file that decides the model; of some it decides that they are missing

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the sizes and of the files with weights. Raises CheckpointError where one changed."""
        with _problems_of(self.id):
            parts = [orjson.dumps(self.config.to_mapping()).decode()]
            for path, stamp in self.stamps.items():
                if stamp is not None and path.name != CONFIG:
                    parts.append(f"{path.name} {digests.of(path, stamp)}")
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def note(self) -> str:
        """What these weights are, for people."""
        found = {_NAMES[tensor.dtype] for tensor in self.tensors.values()}
        widened = "" if found == {"float32"} else ", widened to float32 as they are read"
        return f"From the checkpoint in the folder {self.id!r}: {' and '.join(sorted(found))}{widened}."

    def is_unchanged(self) -> bool:
        """Whether the folder's files are still those that were opened."""
        with suppress(OSError):
            return all(digests.stamp(path) == stamp for path, stamp in self.stamps.items())
        return False

    def weights(self) -> MappedWeights:
        """The weights under the catalogue's names."""
        return MappedWeights(self.tensors)


def names(models_dir: str) -> list[str]:
    """The folders directly under `models_dir`, sound or not; none where it is not there, or the empty name."""
    if not models_dir:
        return []
    try:
        with os.scandir(models_dir) as entries:
            found = [entry.name for entry in entries if entry.is_symlink() or entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        log.warning("no checkpoint can be read: %s", error)
        return []
    return sorted(name for name in found if not name.startswith(".") and name.isprintable())


def read_config(id: str, models_dir: str) -> Config:
    """The configuration of a folder's model; its weights are not looked at. Raises CheckpointError."""
    with _problems_of(id):
        return _config(Folder(id, models_dir))


_opened: dict[tuple[str, str], Checkpoint] = {}


def load(id: str, models_dir: str) -> Checkpoint:
    """The model in the folder `id`, which is one of `names`; opened again only when it changed on disk.

    Raises CheckpointError.
    """
    held = _opened.get((models_dir, id))
    if held is None or not held.is_unchanged():
        for key, other in [*_opened.items()]:
            if not other.is_unchanged():  # what is mapped takes room on the disk even when it was deleted
                _opened.pop(key, None)
        with _problems_of(id):
            held = _opened[models_dir, id] = _open(id, Folder(id, models_dir))
    return held


@contextmanager
def _problems_of(id: str) -> Iterator[None]:
    """Whatever is wrong with a folder as that model's one problem."""
    try:
        yield
    except (FileError, ChangedError) as error:
        raise CheckpointError(id, str(error)) from None
    except OSError as error:
        raise CheckpointError(id, f"it cannot be read ({error.strerror})") from None


def _config(folder: Folder) -> Config:
    given = folder.json(CONFIG)
    name = given.get("model_type", DEFAULT_MODEL_TYPE)
    if not isinstance(name, str) or name not in FAMILIES:
        found, known = orjson.dumps(name).decode(), ", ".join(FAMILIES)
        raise FileError(f"{CONFIG} says model_type: {found}, and what is computed here is {known}")
    family = FAMILIES[name]
    try:
        return family.Config.from_mapping(family.from_hub(given))
    except UnsupportedConfigError as error:
        raise FileError(f"{CONFIG} {error}") from None
    except ConfigError as error:
        raise FileError(f"{CONFIG}: {str(error).removesuffix('.')}") from None


def _open(id: str, folder: Folder) -> Checkpoint:
    stamps = {folder.path / name: digests.stamp(folder.path / name) for name in (CONFIG, WEIGHTS, INDEX)}
    config = _config(folder)
    if stamps[folder.path / WEIGHTS] is not None:
        stamps.pop(folder.path / INDEX)  # as Hugging Face does it: the one file goes before the index of many
        shards, where = [WEIGHTS], None
    elif stamps[folder.path / INDEX] is not None:
        where = _weight_map(folder)
        shards = sorted(set(where.values()))
        stamps |= {folder.path / name: digests.stamp(folder.need(name)) for name in shards}
    else:
        raise FileError(_no_weights(folder))
    files = {name: _mapped(folder, name) for name in shards}
    tensors = _tensors(config, files, where or dict.fromkeys(files[WEIGHTS].entries, WEIGHTS))
    checkpoint = Checkpoint(id, config, tensors, stamps)
    if not checkpoint.is_unchanged():
        raise FileError("it changed while it was read: ask again")
    return checkpoint


def _weight_map(folder: Folder) -> dict[str, str]:
    found = folder.json(INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise FileError(f"{INDEX} has no weight_map from the names of tensors to those of files")
    return found


def _no_weights(folder: Folder) -> str:
    pickles = sorted(path.name for path in folder.path.glob("*.bin"))
    if pickles:
        return (
            f"it has {pickles[0]} and no {WEIGHTS}: a pickle can run code and is not read; "
            "save the model again with save_pretrained(…, safe_serialization=True)"
        )
    return f"it has neither {WEIGHTS} nor {INDEX}"


def _mapped(folder: Folder, name: str) -> MappedFile:
    path = folder.need(name)
    try:
        return MappedFile(path)
    except FileError as error:
        raise FileError(f"{name} {error}") from None


def _tensors(config: Config, files: Mapping[str, MappedFile], where: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Every tensor of the catalogue, as it is stored."""
    shapes, tensors, missing = catalogue(config), {}, []
    copies = {shapes.source(tensor.name): tensor.name for tensor in describe(config).weights if tensor.alias_of}
    for name, shape in shapes.items():
        source = shapes.source(name)
        own = [*_stored_as(config, source), *(_stored_as(config, copies[source]) if source in copies else ())]
        stored = next((other for other in own if other in where), None)  # whichever of two tied ones was kept is both
        if stored is None:
            missing.append(name)
        else:
            tensors[name] = _tensor(files, where[stored], stored, shape)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileError(f"the tensor {missing[0]}{more} is missing from {_listed(files)}")
    for source, copy in copies.items():
        stored = next((other for other in _stored_as(config, copy) if other in where), None)
        if stored is not None:
            found = _tensor(files, where[stored], stored, shapes[copy])
            _check_tied(source, tensors[source], copy, found)
    return tensors


def _stored_as(config: Config, name: str) -> list[str]:
    """The names that a weight may have in a file: with the family's prefix and without."""
    prefix = family_of(config).prefix
    return list(dict.fromkeys((name, f"{prefix}{name.removeprefix(prefix)}", name.removeprefix(prefix))))


def _tensor(files: Mapping[str, MappedFile], file: str, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name not in files[file].entries:
        raise FileError(f"{file} has no tensor {name}, although {INDEX} says so")
    try:
        found = files[file].array(name)
    except FileError as error:
        raise FileError(f"{file}: {error}") from None
    if found.shape != shape:
        raise FileError(
            f"{file}: the tensor {name} has the shape {list(found.shape)}, and {CONFIG} makes it {list(shape)}"
        )
    return found


def _check_tied(source: str, table: NDArray[Any], copy: str, head: NDArray[Any]) -> None:
    """A head that is said to be the embedding and is not: either way, half of its readers would be wrong."""
    pair, step = MappedWeights({"table": table, "head": head}), max(1, (1 << 20) // table.shape[1])
    for start in range(0, len(table), step):
        part = (slice(start, start + step),)
        if not np.array_equal(pair.read("table", part), pair.read("head", part), equal_nan=True):
            raise FileError(
                f"{CONFIG} ties the head to {source}, and {copy} is another matrix: "
                f"set tie_word_embeddings to false, or leave {copy} out"
            )


def _listed(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more files" if rest else first
