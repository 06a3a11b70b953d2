"""Train nano-gpt, a small model that sorts six letters.

    pip install torch==2.13.0 safetensors numpy
    python tools/train_nano.py

The model reads six letters out of A, B, C and then appends the same letters in order, one at a time, greedily:
CBABBC -> ABBBCC. It is a GPT-2 in miniature (85,728 parameters), and the weights are written under the names, and in
the orientation, that GPT-2's have at Hugging Face: a linear layer's weight is stored (in, out).

Training takes about a minute on one CPU core. The result is reproducible: with a fixed seed and one thread, a second
run on the same machine writes the same bytes. Another machine or version of torch may round differently and give
slightly different weights. The script checks all 729 inputs; if one of them is not sorted, it writes nothing and exits
with an error.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.numpy import save
from torch import Tensor
from torch.nn import functional

LETTERS = "ABC"
N_LETTERS = 6  # letters to sort
N_POSITIONS = 2 * N_LETTERS - 1  # the last sorted letter is predicted but never fed back
N_VOCAB = len(LETTERS)
N_LAYER, N_HEAD, N_EMBD = 3, 3, 48
N_INNER = 4 * N_EMBD
LAYER_NORM_EPS = 1e-5
N_PARAMETERS = 85_728

SEED = 729
N_STEPS, N_WARMUP = 1500, 100
BATCH_SIZE = 128
LEARNING_RATE, MIN_LEARNING_RATE = 1e-3, 1e-5
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.1  # of matrices including embeddings; biases and layer norms have none
GRAD_CLIP = 1.0

OUTPUT = Path(__file__).resolve().parent.parent / "worker" / "families" / "nano-gpt.safetensors"

Params = dict[str, Tensor]


def linear(p: Params, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def layer_norm(p: Params, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, (N_EMBD,), p[f"{name}.weight"], p[f"{name}.bias"], LAYER_NORM_EPS)


def attention(p: Params, name: str, x: Tensor) -> Tensor:
    """Causal self-attention. The columns of c_attn are Q of all heads, K of all heads, V of all heads."""
    batch, length, _ = x.shape
    q, k, v = (
        part.view(batch, length, N_HEAD, -1).transpose(1, 2)  # (batch, head, length, d_head)
        for part in linear(p, f"{name}.c_attn", x).chunk(3, dim=2)
    )
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = functional.softmax(scores.masked_fill(future, -math.inf), dim=3)
    heads = (weights @ v).transpose(1, 2).reshape(batch, length, N_EMBD)
    return linear(p, f"{name}.c_proj", heads)


def mlp(p: Params, name: str, x: Tensor) -> Tensor:
    return linear(p, f"{name}.c_proj", functional.gelu(linear(p, f"{name}.c_fc", x), approximate="tanh"))


def block(p: Params, name: str, x: Tensor) -> Tensor:
    x = x + attention(p, f"{name}.attn", layer_norm(p, f"{name}.ln_1", x))
    return x + mlp(p, f"{name}.mlp", layer_norm(p, f"{name}.ln_2", x))


def gpt(p: Params, tokens: Tensor) -> Tensor:
    """Return logits (batch, length, vocabulary) for tokens (batch, length)."""
    x = functional.embedding(tokens, p["wte.weight"]) + p["wpe.weight"][: tokens.shape[1]]
    for layer in range(N_LAYER):
        x = block(p, f"h.{layer}", x)
    return layer_norm(p, "ln_f", x) @ p["lm_head.weight"].T


def init_params(generator: torch.Generator) -> Params:
    """Initialize as GPT-2: N(0, 0.02), and a smaller deviation where a layer writes to the residual stream."""
    shapes: dict[str, tuple[int, int]] = {"wte": (N_VOCAB, N_EMBD), "wpe": (N_POSITIONS, N_EMBD)}
    for layer in range(N_LAYER):
        h = f"h.{layer}"
        shapes |= {f"{h}.attn.c_attn": (N_EMBD, 3 * N_EMBD), f"{h}.attn.c_proj": (N_EMBD, N_EMBD)}
        shapes |= {f"{h}.mlp.c_fc": (N_EMBD, N_INNER), f"{h}.mlp.c_proj": (N_INNER, N_EMBD)}
    shapes["lm_head"] = (N_VOCAB, N_EMBD)
    p: Params = {}
    for name, shape in shapes.items():
        std = 0.02 / math.sqrt(2 * N_LAYER) if name.endswith("c_proj") else 0.02
        p[f"{name}.weight"] = torch.randn(shape, generator=generator) * std
        if name.startswith("h."):
            p[f"{name}.bias"] = torch.zeros(shape[1])
    for name in ["ln_f", *(f"h.{layer}.ln_{i}" for layer in range(N_LAYER) for i in (1, 2))]:
        p[f"{name}.weight"] = torch.ones(N_EMBD)
        p[f"{name}.bias"] = torch.zeros(N_EMBD)
    assert sum(t.numel() for t in p.values()) == N_PARAMETERS
    return p


def learning_rate(step: int) -> float:
    """Return the learning rate: linear warm-up, then cosine decay to the minimum."""
    if step < N_WARMUP:
        return LEARNING_RATE * (step + 1) / N_WARMUP
    progress = (step - N_WARMUP) / (N_STEPS - 1 - N_WARMUP)
    return MIN_LEARNING_RATE + (LEARNING_RATE - MIN_LEARNING_RATE) * (1 + math.cos(math.pi * progress)) / 2


def sorting_loss(p: Params, inputs: Tensor) -> Tensor:
    """Return the mean cross-entropy of the six sorted letters; predictions within the prompt are ignored."""
    answers = inputs.sort(dim=1).values
    logits = gpt(p, torch.cat((inputs, answers), dim=1)[:, :-1])[:, N_LETTERS - 1 :]
    return functional.cross_entropy(logits.reshape(-1, N_VOCAB), answers.reshape(-1))


def train(inputs: Tensor) -> Params:
    generator = torch.Generator().manual_seed(SEED)
    p = init_params(generator)
    for t in p.values():
        t.requires_grad_()
    matrices, vectors = ([t for t in p.values() if t.dim() == n] for n in (2, 1))
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)
    for step in range(N_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        loss = sorting_loss(p, inputs[torch.randint(len(inputs), (BATCH_SIZE,), generator=generator)])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(p.values(), GRAD_CLIP)
        optimizer.step()
        if step % 250 == 0 or step == N_STEPS - 1:
            print(f"step {step:5d}  loss {loss.item():.6f}", flush=True)
    return {name: t.detach() for name, t in p.items()}


def generate(p: Params, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return greedy continuations (batch, 6) and their distributions (batch, 6, vocabulary)."""
    tokens, steps = inputs, []
    for _ in range(N_LETTERS):
        steps.append(functional.softmax(gpt(p, tokens)[:, -1], dim=1))
        tokens = torch.cat((tokens, steps[-1].argmax(dim=1, keepdim=True)), dim=1)
    return tokens[:, N_LETTERS:], torch.stack(steps, dim=1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train nano-gpt, the model that sorts six letters.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="file to write (default: %(default)s)")
    output: Path = parser.parse_args().output
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    inputs = torch.tensor(list(itertools.product(range(N_VOCAB), repeat=N_LETTERS)))
    answers = inputs.sort(dim=1).values
    p = train(inputs)
    loss = sorting_loss(p, inputs).item()  # over all inputs
    continuations, probabilities = generate(p, inputs)
    right = (continuations == answers).all(dim=1)
    n_right, n_inputs = int(right.sum()), len(inputs)
    margin = probabilities.gather(2, answers.unsqueeze(2)).min().item()  # the lowest probability of a correct letter
    if n_right != n_inputs:
        example = "".join(LETTERS[int(i)] for i in inputs[~right][0])
        print(f"error: sorted {n_right}/{n_inputs}; {example} is not sorted; nothing written", file=sys.stderr)
        return 1
    facts = {
        "task": "sort six letters of A, B, C, greedily: CBABBC -> ABBBCC",
        "parameters": N_PARAMETERS,
        "seed": SEED,
        "steps": N_STEPS,
        "batch_size": BATCH_SIZE,
        "optimizer": f"AdamW, betas {BETAS}, weight decay {WEIGHT_DECAY}, gradient clip {GRAD_CLIP}",
        "learning_rate": f"{LEARNING_RATE} after {N_WARMUP} steps of warm-up, cosine to {MIN_LEARNING_RATE}",
        "final_loss": float(f"{loss:.3e}"),
        "sorted": f"{n_right}/{n_inputs}",
        "min_margin": round(margin, 6),
        "torch": str(torch.__version__),
    }
    # One entry, as the order of several entries is not deterministic.
    content = save({name: t.numpy() for name, t in p.items()}, metadata={"training": json.dumps(facts, sort_keys=True)})
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    print(json.dumps(facts, indent=2))
    print(f"{output}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
