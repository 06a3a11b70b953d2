"""Time and memory of the largest layouts, placed and encoded."""

from __future__ import annotations

import statistics
import tracemalloc

from bench.timing import seconds
from tests.gpt2 import CONFIGS
from worker.describe import counts
from worker.families.gpt2 import GPT2Config as Config
from worker.families.registry import describe
from worker.layout.encode import safetensors
from worker.layout.gltf import glb
from worker.layout.place import place

LIMIT = "limit: 60 ms and 100 MB on one core (the original's generator: 230 ms, 163 MB for 94,286 blocks)"
FIVE_TRILLION = Config(n_layer=128, n_embd=57_344, n_head=448, n_positions=256_000)


def run() -> None:
    """Print them for GPT-3 175B with 2,048 tokens, and for a model of 5·10¹² parameters with 256,000 tokens."""
    print("Layouts, placed and encoded as columns")
    _measure("gpt3-175b, 2,048 tokens", CONFIGS["gpt3-175b"], 2048, LIMIT)
    _boxes("gpt3-175b", CONFIGS["gpt3-175b"], 2048, "limit: 300 ms from the finished layout")
    name = f"{counts.total(describe(FIVE_TRILLION)):.2e} parameters, 256,000 tokens"
    _measure(name, FIVE_TRILLION, 256_000, "no limit")


def _measure(name: str, config: Config, tokens: int, limit: str) -> None:
    times = seconds(lambda: safetensors(place(config, tokens)), 20)
    tracemalloc.start()
    size = len(safetensors(place(config, tokens)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    blocks = place(config, tokens).count
    print(f"  {name}: {blocks:,} blocks, {size / 1e6:.1f} MB")
    first, median = times[0] * 1e3, statistics.median(times) * 1e3
    print(f"    first {first:.1f} ms, median {median:.1f} ms, peak {peak / 1e6:.1f} MB")
    print(f"    {limit}")


def _boxes(name: str, config: Config, tokens: int, limit: str) -> None:
    geometry = place(config, tokens)
    times = seconds(lambda: glb(geometry), 20)
    size = sum(map(len, glb(geometry)))
    print(f"  {name} as a GLB: {size / 1e6:.1f} MB")
    print(f"    first {times[0] * 1e3:.1f} ms, median {statistics.median(times) * 1e3:.1f} ms")
    print(f"    {limit}")
