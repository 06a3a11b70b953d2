"""JSON files of weights and values for the LLM Visualization page (bbycroft/llm-viz).

A file is {"config": minGPT's configuration, name: {shape, dtype, data}, …}, as Python's json writes it with an indent
of 4; data is base64 of little-endian float32 in C order. Weights have minGPT's names and orientation (linear ones are
(out, in)) and include its causal masks (`attn.bias`), so that minGPT's `model.load_state_dict` accepts them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from worker.families.gpt2 import GPT2Config
from worker.models.sources import catalogue
from worker.weights.base import Weights

CELLS = 3 << 20  # values in memory at a time

Chunks = Iterator[bytes]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file. `chunks` yields its values as little-endian float32 in C order."""

    name: str
    shape: tuple[int, ...]
    chunks: Callable[[], Chunks]

    @property
    def nbytes(self) -> int:
        return 4 * prod(self.shape)


# ------------------------------------------------------------------------------------------------------ the file


def size(config: dict[str, Any], tensors: Iterable[Tensor]) -> int:
    """Return the size of the file in bytes."""
    frames = [(*_frame(tensor), tensor.nbytes) for tensor in tensors]
    return len(_head(config)) + len(_TAIL) + sum(len(a) + len(b) + 4 * -(-nbytes // 3) for a, b, nbytes in frames)


def file(config: dict[str, Any], tensors: Iterable[Tensor]) -> Chunks:
    """Yield the file in pieces."""
    yield _head(config)
    for tensor in tensors:
        before, after = _frame(tensor)
        yield before
        yield from _base64(tensor.chunks())
        yield after
    yield _TAIL


_TAIL = b"\n}"


def _head(config: dict[str, Any]) -> bytes:
    return json.dumps({"config": config}, indent=4).encode().removesuffix(_TAIL)


def _frame(tensor: Tensor) -> tuple[bytes, bytes]:
    """Return the JSON before and after the data of a tensor."""
    entry = {tensor.name: {"shape": tensor.shape, "dtype": "torch.float32", "data": ""}}
    text = json.dumps(entry, indent=4).encode().removesuffix(_TAIL).removeprefix(b"{")
    before, quotes, after = text.rpartition(b'""')
    return b"," + before + quotes[:1], quotes[1:] + after


def _base64(chunks: Chunks) -> Chunks:
    rest = b""
    for chunk in chunks:
        rest += chunk
        whole = len(rest) // 3 * 3
        yield base64.b64encode(rest[:whole])
        rest = rest[whole:]
    yield base64.b64encode(rest)


# -------------------------------------------------------------------------------------------------------- models


def config(model: str, sizes: GPT2Config, **more: int) -> dict[str, Any]:
    """Return minGPT's configuration of a model. The dropouts are minGPT's defaults; inference does not use them."""
    return {
        "model_type": "gpt-nano" if model == "nano-gpt" else "gpt" if "=" in model else model,
        "n_layer": sizes.n_layer,
        "n_head": sizes.n_head,
        "n_embd": sizes.n_embd,
        "vocab_size": sizes.vocab_size,
        "block_size": sizes.n_positions,
        **dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), 0.1),
        **more,
    }


def unsupported(sizes: GPT2Config) -> str:
    """Return which sizes minGPT's configuration cannot represent, and what they must be; "" if there are none."""
    required = {
        "d_head": (sizes.d_head * sizes.n_head, sizes.n_embd, "n_embd / n_head"),
        "n_inner": (sizes.n_inner, 4 * sizes.n_embd, "4 · n_embd"),
        "layer_norm_epsilon": (sizes.layer_norm_epsilon, 1e-5, "1e-5"),
        "activation_function": (sizes.activation_function, "gelu_new", "gelu_new"),
    }
    wrong = [f"{name} must be {text}" for name, (actual, expected, text) in required.items() if actual != expected]
    return ", ".join(wrong)


def model_tensors(sizes: GPT2Config, source: Weights) -> Iterator[Tensor]:
    """Yield the weights in minGPT's form; their values are read when they are written."""
    for name, shape in catalogue(sizes).items():
        transposed = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        own = name if name == "lm_head.weight" else f"transformer.{name}"
        shape = shape[::-1] if transposed else shape
        if name.endswith("attn.c_attn.weight"):
            yield _mask(own.removesuffix("c_attn.weight") + "bias", sizes.n_positions)
        yield Tensor(own, shape, _Rows(source, name, shape, transposed))


@dataclass(frozen=True)
class _Rows:
    """Yields a weight some rows at a time."""

    source: Weights
    name: str
    shape: tuple[int, ...]
    transposed: bool  # relative to how it is stored

    def __call__(self) -> Chunks:
        for rows in _row_slices(self.shape):
            if self.transposed:
                whole = rows == slice(0, self.shape[0])  # () is faster than a slice of all columns
                values = self.source.read(self.name, () if whole else (slice(None), rows)).T
            else:
                values = self.source.read(self.name, (rows,))
            yield np.ascontiguousarray(values, "<f4").tobytes()


def _mask(name: str, n: int) -> Tensor:
    """Return the causal mask: 1 where a position attends to another, else 0."""

    def chunks() -> Chunks:
        for rows in _row_slices((n, n)):
            yield np.tri(len(range(*rows.indices(n))), n, rows.start, "<f4").tobytes()

    return Tensor(name, (1, 1, n, n), chunks)


def _row_slices(shape: Sequence[int]) -> Iterator[slice]:
    """Yield slices of rows that have at most CELLS values each, but at least one row."""
    step = max(1, CELLS // prod(shape[1:]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


# -------------------------------------------------------------------------------------------------------- traces

#: The values before the layers and in the first layer, by the page's names.
_FIRST = {"idx": "tokens", "tok_emb": "embed", "pos_emb": "pos_embed", "x": "blocks.0.resid_pre"} | {
    name: f"blocks.0.{value}"
    for name, value in {
        "ln1": "ln1.out", "q": "attn.q", "k": "attn.k", "v": "attn.v", "att": "attn.scores", "attSm": "attn.pattern",
        "y": "attn.z", "yProj": "attn_out", "attnResid": "resid_mid", "ln2": "ln2.out", "fc": "mlp.pre",
        "gelu": "mlp.post", "mlp": "mlp_out", "mlpResid": "resid_post",
    }.items()
}  # fmt: skip
_LAST = {"ln_f": "ln_final.out", "lm_head": "logits", "probs": "probs"}


def trace_values(n_layer: int) -> dict[str, str]:
    """Return the values in the file of a trace, by the page's names: of layers after the first, only their outputs."""
    return _FIRST | {f"block{n}": f"blocks.{n}.resid_post" for n in range(n_layer)} | _LAST


def trace_tensors(n_layer: int, slots: Mapping[str, Any], read: Callable[[int, int], bytes]) -> Iterator[Tensor]:
    """Yield the values of a trace, from the `slots` of its manifest and its bytes `read(start, stop)`."""
    for name, value in trace_values(n_layer).items():
        batch, *shape = slots[value]["shape"]
        if name in ("q", "k", "v"):  # [B, T, H, A] -> [B, H, T, A]
            shape[:2] = shape[1::-1]
        if name == "y":  # [B, T, H, A] -> [B, T, C]
            shape[1:] = [prod(shape[1:])]
        yield Tensor(name, (batch, *shape), _Value(slots[value], read, by_head=name in ("q", "k", "v")))


@dataclass(frozen=True)
class _Value:
    """Yields a value of a trace some cells at a time; all cells at once if the axes of heads and positions swap."""

    slot: Mapping[str, Any]
    read: Callable[[int, int], bytes]
    by_head: bool

    def __call__(self) -> Chunks:
        shape, dtype, offset = self.slot["shape"], np.dtype(self.slot["dtype"]), self.slot["offset"]
        count = prod(shape)
        step = count if self.by_head else CELLS
        for start in range(0, count, step):
            stop = min(start + step, count)
            values = np.frombuffer(self.read(offset + start * dtype.itemsize, offset + stop * dtype.itemsize), dtype)
            if self.by_head:
                values = values.reshape(shape).swapaxes(1, 2)
            yield np.ascontiguousarray(values, "<f4").tobytes()
