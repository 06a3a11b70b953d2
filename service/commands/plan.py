"""What a model's folder will hold, as a Hugging Face hub tells: the checkpoint's files, of its commit."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.commands.hub import SMALL, FetchError, File, Hub
from service.commands.receive import receive

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")


@dataclass(frozen=True)
class Plan:
    """What a model's folder will hold: the small files, which are here already, and the weights, which are to come."""

    commit: str
    small: dict[str, bytes]
    weights: Sequence[File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.weights)

    def part(self, file: File) -> str:
        """What one of the weights is called until it is whole: not the same for another content."""
        return f"{file.name}.{file.sha256 or self.commit}"


def make_plan(hub: Hub) -> Plan:
    """What there is to fetch. Raises FetchError where it is no checkpoint of a known family in safetensors."""
    commit, names = hub.snapshot()
    if CONFIG not in names:
        raise FetchError(f"{hub.repo} is no checkpoint: it has no {CONFIG}.")
    if not names & {WEIGHTS, INDEX}:
        raise FetchError(f"{hub.repo} has no {WEIGHTS}; other formats are not read.")
    small = {CONFIG: _small(hub, commit, CONFIG)}
    from worker.families.registry import DEFAULT_MODEL_TYPE, FAMILIES  # with NumPy, which no other command needs

    kind = _json(hub, CONFIG, small[CONFIG]).get("model_type", DEFAULT_MODEL_TYPE)
    if kind not in FAMILIES:
        raise FetchError(f"{hub.repo} is of the type {kind!r}: those that are read are {', '.join(FAMILIES)}.")
    weights = [WEIGHTS]
    if WEIGHTS not in names:
        small[INDEX] = _small(hub, commit, INDEX)
        placed = _json(hub, INDEX, small[INDEX]).get("weight_map")
        weights = sorted(set(map(str, placed.values()))) if isinstance(placed, dict) else []
        absent = [name for name in weights if name not in names or not _SHARD.fullmatch(name)]
        if absent or not weights:
            raise FetchError(f"{hub.repo} is not whole: {INDEX} names {repr(absent[0]) if absent else 'no file'}.")
    return Plan(commit, small, [hub.describe(commit, name) for name in weights])


def _small(hub: Hub, commit: str, name: str) -> bytes:
    content, file = io.BytesIO(), hub.describe(commit, name)
    if file.size > SMALL:
        raise FetchError(f"{name} has {file.size:,} bytes: at most {SMALL:,} are read of it.")
    receive(hub, commit, file, content)
    return content.getvalue()


def _json(hub: Hub, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{hub.repo} is no checkpoint: its {name} holds no JSON object.")
    return value
