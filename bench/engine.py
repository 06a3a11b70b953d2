"""Speed and memory of the engine, against PyTorch and the machine's limits.

The engine captures every intermediate value; the peer, Hugging Face transformers in PyTorch, returns only hidden
states, attention patterns and logits.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess  # nosec B404
import sys

import numpy as np

import worker.families.registry as registry
import worker.models.lookup as models
from bench.limits import Limits, measure
from bench.peer import INSTALL, Peer, available
from bench.timing import interleaved, seconds
from worker import compute
from worker.engine.compiled import engine
from worker.requests import TraceRequest
from worker.settings import Settings
from worker.trace.arena import Arena, plan
from worker.trace.generate import generate
from worker.trace.sampling import Sampling, positions

#: By model and number of tokens: time of the peer divided by ours.
GOALS = {
    "gpt2": {8: 2.0, 64: 1.3, 256: 1.2, 1024: 1.4},
    "smollm2-135m": {8: 2.5, 64: 1.8, 256: 1.5, 1024: 1.8},
}
GENERATION_GOALS = {"smollm2-135m": 1.6}
ROUNDS = {8: 40, 64: 25, 256: 12, 1024: 6}
PAUSE = 0.05  # seconds for the threads of the other one to go to sleep: they spin for a while after a matrix product
PROMPT, NEW = 16, 32
NANO_TOKENS = 11


class Ours:
    """A model with cached weights, and an arena that every pass overwrites."""

    def __init__(self, model: models.Model, tokens: int) -> None:
        self.config = model.config
        self.vocab_size = registry.describe(model.config).sizes()["V"]
        self._forward = registry.family_of(model.config).forward
        self.engine = engine(model.weights(), cache_weights=True)
        self.resize(tokens)

    def resize(self, tokens: int) -> None:
        """Draw random tokens and plan an arena for them."""
        self.tokens = np.random.default_rng(tokens).integers(self.vocab_size, size=tokens).tolist()
        self.arena = Arena(plan(self.config, tokens))
        self.arena["tokens"][0] = self.tokens

    def forward(self) -> None:
        """Run one pass over all tokens."""
        self._forward(self.config, self.engine, self.arena, slice(0, len(self.tokens)), lambda: None)


def run() -> None:
    """Print time, memory and the fraction of the limits of each model, then nano-gpt and synthetic weights."""
    sizes = [(name, tokens) for name, goals in GOALS.items() for tokens in goals]
    memory = {size: _memory(*size) for size in sizes}  # first: a child counts its parent's memory at the fork
    limits = measure()
    if not available():
        print(f"PyTorch is not installed; to compare with it, run: {INSTALL}")
    for name, goals in GOALS.items():
        model = models.find(name)
        ours = Ours(model, 1)
        peer = Peer(ours.config, model.weights()) if available() else None
        print(f"{name}, one pass, everything captured, on {os.cpu_count()} cores ({limits})")
        for tokens, goal in goals.items():
            ours.resize(tokens)
            _passes(ours, peer, limits, goal)
            print(f"               peak memory of a process: {memory[name, tokens]}")
        _generation(name, ours, peer, GENERATION_GOALS.get(name))
    _nano()
    _synthetic()


def _passes(ours: Ours, peer: Peer | None, limits: Limits, goal: float) -> None:
    count = len(ours.tokens)
    if peer:
        expected = peer.forward(ours.tokens)
        ours.forward()
        error = np.abs(ours.arena["logits"][0] - expected).max() / np.abs(expected).max()
        assert error < 1e-3, f"the logits differ from the peer's by {error:.1e}"
    times = interleaved([ours.forward, *([lambda: peer.forward(ours.tokens)] if peer else [])], ROUNDS[count], PAUSE)
    medians = [statistics.median(samples) for samples in times]
    share = limits.pass_seconds(ours.config, count) / medians[0]
    line = f"  {count:4} tokens: {medians[0] * 1e3:7.1f} ms, {share:4.0%} of the roofline"
    if peer:
        line += f"   PyTorch {medians[1] * 1e3:7.1f} ms   ratio {medians[1] / medians[0]:.2f} (goal {goal})"
    print(line)


def _generation(name: str, ours: Ours, peer: Peer | None, goal: float | None) -> None:
    sampling = Sampling(max_new_tokens=NEW)
    prompt, config = np.random.default_rng(0).integers(ours.vocab_size, size=PROMPT).tolist(), ours.config
    arena = Arena(plan(config, positions(PROMPT, sampling)))
    runs = [lambda: generate(config, ours.engine, arena, prompt, sampling)]
    if peer:
        runs.append(lambda: peer.generate(prompt, NEW))
        assert runs[0]() == runs[1](), "the peer generates different tokens"
    rates = [NEW / statistics.median(times) for times in interleaved(runs, 5, PAUSE)]
    line = f"{name}, {NEW} new tokens after {PROMPT}, everything captured: {rates[0]:.1f} tokens/s"
    if peer:
        line += f"   PyTorch, nothing captured: {rates[1]:.1f}   ratio {rates[0] / rates[1]:.2f}"
        line += f" (goal {goal})" if goal else ""
    print(line)


def _nano() -> None:
    nano = Ours(models.find("nano-gpt"), 1)
    nano.resize(NANO_TOKENS)
    times = seconds(nano.forward, 3000)
    title = f"nano-gpt, one pass over {NANO_TOKENS} tokens, everything captured, in a hot loop:"
    print(f"{title} median {statistics.median(times) * 1e6:.0f} µs (goal 250)")


def _synthetic() -> None:
    tiles = models.find("gpt3-175b").weights().tiles("h.0.mlp.c_fc.weight")
    sizes: list[int] = []
    times = seconds(lambda: sizes.append(next(tiles)[1].size), 64)
    rate = statistics.median(size / time for size, time in zip(sizes, times, strict=True))
    print(f"Synthetic weights, tile by tile: {rate:.2e} values/s (goal 1e9)")


def _memory(model: str, tokens: int) -> str:
    """Return the peak memory of our engine, as a job (layer by layer) and of the peer, each in its own process."""
    results = []
    for name in ("ours", "ours as a job", *(["PyTorch"] if available() else [])):
        command = [sys.executable, "-m", "bench.engine", name, model, str(tokens)]
        size = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # nosec B603
        results.append(f"{name} {size / 1e6:.0f} MB")
    return ", ".join(results)


def _child(name: str, id: str, tokens: int) -> None:
    """Create a model, run one pass, and print the peak memory of this process in bytes."""
    model = models.find(id)
    if name == "ours":
        Ours(model, tokens).forward()
    elif name == "ours as a job":
        compute.trace(
            TraceRequest(model.reference, (0,) * tokens),
            Settings(),
            lambda _: lambda piece: None,
            lambda *progress: None,
        )
    else:
        Peer(Ours(model, 1).config).forward(list(range(tokens)))
    unit = 1 if sys.platform == "darwin" else 1024
    print(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
