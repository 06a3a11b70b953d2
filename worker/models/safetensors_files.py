"""The tensors of a checkpoint in safetensors files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from worker.describe.config import Config
from worker.families.registry import describe, family_of
from worker.models.sources import catalogue
from worker.weights.folder import FileError, Folder
from worker.weights.stored import StoredFile, StoredTensor, StoredWeights

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_MAX_INDEX = 16 << 20  # bytes of an index: that of 10,000 layers takes 9 MB
_MANY = 1000  # missing tensors, which are not all looked for


def weight_map(folder: Folder) -> dict[str, str]:
    found = folder.json(INDEX, _MAX_INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise FileError(f"{INDEX} has no weight_map from tensor names to file names")
    return found


def no_weights(folder: Folder) -> str:
    pickles = sorted(path.name for path in folder.path.glob("*.bin"))
    if pickles:
        return (
            f"it has {pickles[0]} and no {WEIGHTS}: a pickle can run code and is not read; "
            "save the model again with save_pretrained(…, safe_serialization=True)"
        )
    return f"it has neither {WEIGHTS} nor {INDEX}"


def opened_file(folder: Folder, name: str) -> StoredFile:
    path = folder.require(name)
    try:
        return StoredFile(path)
    except FileError as error:
        raise FileError(f"{name} {error}") from None


def tensors(config: Config, files: Mapping[str, StoredFile], where: Mapping[str, str]) -> dict[str, StoredTensor]:
    """Return every tensor of the catalogue, as stored."""
    shapes, found, missing = catalogue(config), dict[str, StoredTensor](), list[str]()
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
            found[name] = _tensor(files, where[stored], stored, shape)
    if missing:
        several = len(missing) > 1
        listed = f"tensors {missing[0]} and {len(missing) - 1} more are" if several else f"tensor {missing[0]} is"
        raise FileError(f"the {listed} missing from {_listed(files)}")
    for source, copy in copies.items():
        stored = next((other for other in _stored_as(config, copy) if other in where), None)
        if stored is not None:
            head = _tensor(files, where[stored], stored, shapes[copy])
            _check_tied(source, found[source], copy, head)
    return found


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
