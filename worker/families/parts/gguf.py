"""How llama.cpp writes a family's checkpoints into GGUF files.

The keys are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names and shapes of tensors follow
llama.cpp's converter from Hugging Face's checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.config import short_json
from worker.families.parts.hub import UnsupportedConfigError

Rows = NDArray[np.intp] | None
Shapes = Mapping[str, tuple[int, ...]]

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)", re.ASCII)
_TABLE, _HEAD = "token_embd.weight", "output.weight"
#: Keys of any family that change nothing: the table has the size of the vocabulary.
_HARMLESS = {"vocab_size", "rope.scaling.finetuned", "tensor_data_layout"}


@dataclass(frozen=True)
class GgufSource:
    """Where a weight is in a file: the name of its tensor and, as in GgufWeight, how it lies there."""

    name: str
    rows: Rows = None
    transposed: bool = False
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class GgufFormat:
    """The GGUF files of a family.

    architecture  their `general.architecture`
    fields        the field of a `config.json` that each key means, after the architecture; llama.cpp requires all but
                  those in `defaults`
    defaults      (fields): what the fields of absent keys are
    modules       the name in a file of each module with weights, both without a suffix and with {layer}
    complete      (fields, keys): add the fields that several keys or tensors determine; keys that it uses are removed
    fixed         other keys that change the computation, each with its only supported value
    optional      the field that is true if a tensor is there, by its name
    transposed    modules whose weights are stored transposed
    rows          (configuration, module): the rows of the file that are the module's, None for the same
    offset        (module): what is added to the values of a file
    """

    architecture: str
    fields: Mapping[str, str]
    modules: Mapping[str, str]
    defaults: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda fields: {}
    complete: Callable[[dict[str, Any], dict[str, Any]], None] = lambda fields, keys: None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    transposed: Collection[str] = ()
    rows: Callable[[Any, str], Rows] = lambda config, module: None
    offset: Callable[[str], float] = lambda module: 0.0

    def hub_config(self, metadata: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        """Return the `config.json` of metadata and tensors, without model_type. Raises UnsupportedConfigError."""
        prefix = f"{self.architecture}."
        keys = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
        found = {name: self._single(key, keys.pop(key)) for key, name in self.fields.items() if key in keys}
        found = self.defaults(found) | found
        missing = [key for key, name in self.fields.items() if name not in found]
        if missing:
            raise UnsupportedConfigError(f"has no {prefix}{missing[0]}")
        if _TABLE not in shapes:
            raise UnsupportedConfigError(f"has no tensor {_TABLE}")
        found |= {"vocab_size": shapes[_TABLE][0], "tie_word_embeddings": _HEAD not in shapes}
        found |= {name: tensor in shapes for tensor, name in self.optional.items()}
        self.complete(found, keys)
        for key, value in keys.items():
            if value != self.fixed[key] if key in self.fixed else key not in _HARMLESS and value not in (0, False, ""):
                shown = "a list" if isinstance(value, list | tuple) else short_json(value)
                wanted = f"only {short_json(self.fixed[key])} is" if key in self.fixed else "that is not"
                raise UnsupportedConfigError(f"has {prefix}{key}: {shown}, and {wanted} supported")
        return found

    def _single(self, key: str, value: Any) -> Any:
        """Return a number that may be given for every layer. Raises UnsupportedConfigError if layers differ."""
        if not isinstance(value, list | tuple):
            return value
        if not isinstance(value, list) or not value or any(one != value[0] for one in value):
            raise UnsupportedConfigError(f"has {self.architecture}.{key} by layer, and only one for all is supported")
        return value[0]

    def source(self, config: Any, name: str) -> GgufSource:
        """Return where a weight of the catalogue is."""
        module, _, suffix = _LAYER.sub("{layer}", name, count=1).rpartition(".")
        layer = _LAYER.search(name)
        stored = f"{self.modules[module]}.{suffix}".replace("{layer}", layer[0] if layer else "")
        transposed = suffix == "weight" and module in self.transposed
        return GgufSource(stored, self.rows(config, module), transposed, self.offset(module))


@lru_cache(maxsize=32)
def pairs_apart(heads: int, width: int) -> NDArray[np.intp]:
    """Return the rows of heads [H · A], whose rotated pairs are neighbours in the file, with halves paired."""
    return np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).ravel()


@lru_cache(maxsize=32)
def by_head(heads: int, width: int) -> NDArray[np.intp]:
    """Return the rows of fused queries, keys and values [3 · H · A], one after another in the file, head by head."""
    return np.arange(3 * heads * width).reshape(3, heads, width).swapaxes(0, 1).ravel()
