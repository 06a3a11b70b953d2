"""Checkpoints in one GGUF file, as llama.cpp writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.describe.config import Config, ConfigError, short_json
from worker.families.family import Family
from worker.families.parts.gguf import GgufFormat
from worker.families.parts.hub import UnsupportedConfigError
from worker.families.registry import FAMILIES
from worker.models.sources import catalogue
from worker.weights.folder import FileError, shortened
from worker.weights.quantized import GgufFile, GgufWeight

_ARCHITECTURE = "general.architecture"


def open_gguf(path: Path) -> tuple[Config, dict[str, GgufWeight]]:
    """Return the configuration and the weights of a file, none of which is read. Raises FileError and OSError."""
    try:
        file = GgufFile(path)
        family, format = _family(file.metadata)
        return _opened(file, family, format)
    except UnsupportedConfigError as error:
        raise FileError(f"{path.name} {error}") from None
    except ConfigError as error:
        raise FileError(f"{path.name} gives {str(error).removesuffix('.')}") from None
    except FileError as error:
        raise FileError(f"{path.name} {error}") from None


def _family(metadata: Mapping[str, Any]) -> tuple[Family, GgufFormat]:
    known = {family.gguf.architecture: (family, family.gguf) for family in FAMILIES.values() if family.gguf}
    name = metadata.get(_ARCHITECTURE)
    if not isinstance(name, str) or name not in known:
        shown = short_json(name) if name is None or isinstance(name, str | int | float) else "a list"
        raise FileError(f"has {_ARCHITECTURE}: {shown}, and only {', '.join(known)} are supported")
    if metadata.get("split.count", 1) not in (0, 1):
        raise FileError("is one of several parts, which are not supported: merge them with llama-gguf-split --merge")
    return known[name]


def _opened(file: GgufFile, family: Family, format: GgufFormat) -> tuple[Config, dict[str, GgufWeight]]:
    shapes = {name: entry.shape for name, entry in file.entries.items()}
    hub_config = {"model_type": family.name} | format.hub_config(file.metadata, shapes)
    config = family.Config.from_mapping(family.from_hub(hub_config))
    known, weights, used = catalogue(config), {}, set()
    for name, shape in known.items():
        source = format.source(config, known.source(name))
        if source.name not in shapes:
            raise FileError(f"has no tensor {source.name}, which is {name}")
        stored = shape[::-1] if source.transposed else shape
        if shapes[source.name] != stored:
            found, wanted = [*shapes[source.name]], [*stored]
            raise FileError(f"has the tensor {source.name} with the shape {found}, and its metadata require {wanted}")
        used.add(source.name)
        weights[name] = GgufWeight(
            file.tensor(source.name), shape, source.rows, transposed=source.transposed, offset=source.offset
        )
    others = [name for name in shapes if name not in used]
    if others:
        raise FileError(f"has the tensor {shortened(others[0])}, which {family.name} does not have")
    return config, weights
