"""The JSON files that the LLM Visualization page (bbycroft/llm-viz) fetches: a model's weights, a trace's values.

They are what Python's json makes, with an indent of 4, of {"config": minGPT's configuration, name: {shape, dtype,
data}, …}, data being base64 of float32, little-endian in C order. Weights have minGPT's names, and its orientation:
linear ones (out, in). So `model.load_state_dict` of minGPT takes them, its causal masks (`attn.bias`) included.
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

CELLS = 3 << 20  # values that are held at a time

Chunks = Iterator[bytes]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file: `chunks` gives its values, little-endian float32 in C order."""

    name: str
    shape: tuple[int, ...]
    chunks: Callable[[], Chunks]

    @property
    def nbytes(self) -> int:
        return 4 * prod(self.shape)


# ------------------------------------------------------------------------------------------------------ the file


def size(config: dict[str, Any], tensors: Iterable[Tensor]) -> int:
    """The length in bytes of the file of these tensors."""
    frames = [(*_frame(tensor), tensor.nbytes) for tensor in tensors]
    return len(_head(config)) + len(_TAIL) + sum(len(a) + len(b) + 4 * -(-nbytes // 3) for a, b, nbytes in frames)


def file(config: dict[str, Any], tensors: Iterable[Tensor]) -> Chunks:
    """The file, piece by piece."""
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
    """What stands before and after a tensor's data."""
    told = {tensor.name: {"shape": tensor.shape, "dtype": "torch.float32", "data": ""}}
    text = json.dumps(told, indent=4).encode().removesuffix(_TAIL).removeprefix(b"{")
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
    """minGPT's configuration of a model: its dropouts are the defaults there, and play no part in an inference."""
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


def inexpressible(sizes: GPT2Config) -> str:
    """Why minGPT's configuration has no words for these sizes; empty where it has."""
    fixed = {
        "d_head": (sizes.d_head * sizes.n_head, sizes.n_embd, "n_embd / n_head"),
        "n_inner": (sizes.n_inner, 4 * sizes.n_embd, "4 · n_embd"),
        "layer_norm_epsilon": (sizes.layer_norm_epsilon, 1e-5, "1e-5"),
        "activation_function": (sizes.activation_function, "gelu_new", "gelu_new"),
    }
    wrong = [f"{name} is {text} there" for name, (found, wanted, text) in fixed.items() if found != wanted]
    return ", ".join(wrong)


def of_model(sizes: GPT2Config, source: Weights) -> Iterator[Tensor]:
    """The weights as minGPT has them, read as they are needed."""
    for name, shape in catalogue(sizes).items():
        turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        own = name if name == "lm_head.weight" else f"transformer.{name}"
        shape = shape[::-1] if turned else shape
        if name.endswith("attn.c_attn.weight"):
            yield _mask(own.removesuffix("c_attn.weight") + "bias", sizes.n_positions)
        yield Tensor(own, shape, _Rows(source, name, shape, turned))


@dataclass(frozen=True)
class _Rows:
    """A weight, some rows at a time."""

    source: Weights
    name: str
    shape: tuple[int, ...]
    turned: bool  # it is stored the other way round

    def __call__(self) -> Chunks:
        for rows in _together(self.shape):
            if self.turned:
                whole = rows == slice(0, self.shape[0])  # which is read faster than all of its columns
                values = self.source.read(self.name, () if whole else (slice(None), rows)).T
            else:
                values = self.source.read(self.name, (rows,))
            yield np.ascontiguousarray(values, "<f4").tobytes()


def _mask(name: str, n: int) -> Tensor:
    """1 where a position sees another, 0 where it does not."""

    def chunks() -> Chunks:
        for rows in _together((n, n)):
            yield np.tri(len(range(*rows.indices(n))), n, rows.start, "<f4").tobytes()

    return Tensor(name, (1, 1, n, n), chunks)


def _together(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of an array, as many at a time as hold CELLS values, one at least."""
    step = max(1, CELLS // prod(shape[1:]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


# -------------------------------------------------------------------------------------------------------- traces

#: A trace's values before the layers and in the first of them, by the page's names.
_FIRST = {"idx": "tokens", "tok_emb": "embed", "pos_emb": "pos_embed", "x": "blocks.0.resid_pre"} | {
    name: f"blocks.0.{value}"
    for name, value in {
        "ln1": "ln1.out", "q": "attn.q", "k": "attn.k", "v": "attn.v", "att": "attn.scores", "attSm": "attn.pattern",
        "y": "attn.z", "yProj": "attn_out", "attnResid": "resid_mid", "ln2": "ln2.out", "fc": "mlp.pre",
        "gelu": "mlp.post", "mlp": "mlp_out", "mlpResid": "resid_post",
    }.items()
}  # fmt: skip
_LAST = {"ln_f": "ln_final.out", "lm_head": "logits", "probs": "probs"}


def values(n_layer: int) -> dict[str, str]:
    """The values of a trace in the page's file, by its names: of all layers but the first only what leaves them."""
    return _FIRST | {f"block{n}": f"blocks.{n}.resid_post" for n in range(n_layer)} | _LAST


def of_trace(n_layer: int, held: Mapping[str, Any], read: Callable[[int, int], bytes]) -> Iterator[Tensor]:
    """The values, of a trace whose manifest says that it holds them, from its bytes `read(start, stop)`."""
    for name, value in values(n_layer).items():
        batch, *shape = held[value]["shape"]
        if name in ("q", "k", "v"):  # [B, T, H, A]; there [B, H, T, A]
            shape[:2] = shape[1::-1]
        if name == "y":  # [B, T, H, A]; there [B, T, C]
            shape[1:] = [prod(shape[1:])]
        yield Tensor(name, (batch, *shape), _Value(held[value], read, by_head=name in ("q", "k", "v")))


@dataclass(frozen=True)
class _Value:
    """A value of a trace, some cells at a time; by heads all at once."""

    slot: Mapping[str, Any]
    read: Callable[[int, int], bytes]
    by_head: bool

    def __call__(self) -> Chunks:
        shape, dtype, offset = self.slot["shape"], np.dtype(self.slot["dtype"]), self.slot["offset"]
        count = prod(shape)
        step = count if self.by_head else CELLS
        for start in range(0, count, step):
            stop = min(start + step, count)
            found = np.frombuffer(self.read(offset + start * dtype.itemsize, offset + stop * dtype.itemsize), dtype)
            if self.by_head:
                found = found.reshape(shape).swapaxes(1, 2)
            yield np.ascontiguousarray(found, "<f4").tobytes()
