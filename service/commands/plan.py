"""Choose the files to download for a checkpoint."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.commands.hub import SMALL, FetchError, File, Hub
from service.commands.receive import receive
from worker.models.tokenizer import FILES as TOKENIZER

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

OPTIONAL = (*TOKENIZER, "generation_config.json")  # downloaded if the repository has them

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")


@dataclass(frozen=True)
class Plan:
    """The contents of a model's folder: small files, already downloaded, and the weights still to download."""

    commit: str
    small: dict[str, bytes]
    weights: Sequence[File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.weights)

    def part(self, file: File) -> str:
        """Return the name of an incomplete download, which is unique to the file's content."""
        return f"{file.name}.{file.sha256 or self.commit}"


def make_plan(hub: Hub) -> Plan:
    """Choose the files. Raises FetchError if the repository is not a safetensors checkpoint of a known family."""
    commit, names = hub.snapshot()
    if CONFIG not in names:
        raise FetchError(f"{hub.repo} is not a checkpoint: it has no {CONFIG}.")
    if not names & {WEIGHTS, INDEX}:
        raise FetchError(f"{hub.repo} has no {WEIGHTS}; other formats are not supported.")
    small = {CONFIG: _read_small(hub, commit, CONFIG)}
    from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES  # imports NumPy, which other commands do not need

    kind = _json(hub, CONFIG, small[CONFIG]).get("model_type", DEFAULT_MODEL_TYPE)
    if kind not in FAMILIES:
        raise FetchError(f"{hub.repo} has model_type {kind!r}, which must be one of {', '.join(FAMILIES)}.")
    weights = [WEIGHTS]
    if WEIGHTS not in names:
        small[INDEX] = _read_small(hub, commit, INDEX)
        weight_map = _json(hub, INDEX, small[INDEX]).get("weight_map")
        weights = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
        invalid = [name for name in weights if name not in names or not _SHARD.fullmatch(name)]
        if invalid or not weights:
            why = f"names {invalid[0]!r}, which is not a file of it" if invalid else "names no file"
            raise FetchError(f"{hub.repo} is incomplete: {INDEX} {why}.")
    small |= {name: _read_small(hub, commit, name) for name in OPTIONAL if name in names}
    return Plan(commit, small, [hub.describe(commit, name) for name in weights])


def _read_small(hub: Hub, commit: str, name: str) -> bytes:
    content, file = io.BytesIO(), hub.describe(commit, name)
    if file.size > SMALL:
        raise FetchError(f"{name} must be at most {SMALL:,} bytes, not {file.size:,}.")
    receive(hub, commit, file, content)
    return content.getvalue()


def _json(hub: Hub, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{hub.repo} is not a checkpoint: its {name} is not a JSON object.")
    return value
