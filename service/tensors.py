"""A tensor as an answer: which slice of it, and in which representation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from flask import Response
from numpy.typing import NDArray
from werkzeug.exceptions import NotFound

from service.answers import JSON, json, octets, representation
from service.problems import Invalid, not_acceptable
from worker.gpt.weights import Key

OCTETS = "application/octet-stream"
MAX_JSON_CELLS = 65_536
_NUMBER = r"-?\d{1,18}"
_AXIS = re.compile(
    rf"\s*(?:(?P<at>{_NUMBER})|(?P<start>{_NUMBER})?:(?P<stop>{_NUMBER})?(?::(?P<step>{_NUMBER})?)?)\s*", re.ASCII
)

Read = Callable[[int, int], Iterable[bytes]]


def parse_slice(text: str, shape: tuple[int, ...]) -> Key:
    """Basic NumPy slicing as text ("0,:,5", "...,::2") of an array of `shape`. 422 with the reason where it is none."""
    axes = text.split(",") if text.strip() else []
    if [axis.strip() for axis in axes].count("...") > 1 or len([a for a in axes if a.strip() != "..."]) > len(shape):
        raise _bad(text, shape, f"the tensor has {len(shape)} axes")
    if "..." in (stripped := [axis.strip() for axis in axes]):
        at = stripped.index("...")
        axes[at : at + 1] = [":"] * (len(shape) - len(axes) + 1)
    return tuple(_axis(axis, size, text, shape) for axis, size in zip(axes, shape, strict=False))


def _axis(axis: str, size: int, text: str, shape: tuple[int, ...]) -> int | slice:
    match = _AXIS.fullmatch(axis)
    if match is None:
        raise _bad(text, shape, f"{axis.strip()!r} is neither a number nor start:stop:step nor ...")
    if match["at"] is not None:
        at = int(match["at"])
        if not -size <= at < size:
            raise _bad(text, shape, f"{at} is outside an axis of {size}")
        return at
    start, stop, step = (None if match[part] is None else int(match[part]) for part in ("start", "stop", "step"))
    if step == 0:
        raise _bad(text, shape, "a step of 0 goes nowhere")
    return slice(start, stop, step)


def _bad(text: str, shape: tuple[int, ...], why: str) -> Invalid:
    return Invalid({"slice": [f"{text!r}: {why}. Basic NumPy slicing of shape {list(shape)} is allowed, as in 0,:,5."]})


def sliced_shape(shape: tuple[int, ...], key: Key) -> tuple[int, ...]:
    """The shape of `array[key]`."""
    rest = shape[len(key) :]
    return tuple(len(range(*k.indices(n))) for n, k in zip(shape, key, strict=False) if isinstance(k, slice)) + rest


def span(shape: tuple[int, ...], key: Key) -> tuple[int, int]:
    """The cells, in C order, from the first to the last that `array[key]` takes: only those need to be read."""
    first = last = 0
    for n, size in enumerate(shape):
        k = key[n] if n < len(key) else slice(None)
        taken = range(*k.indices(size)) if isinstance(k, slice) else range(k % size, k % size + 1)
        if not taken:
            return 0, 0
        first, last = first * size + min(taken[0], taken[-1]), last * size + max(taken[0], taken[-1])
    return first, last + 1


def stored(read: Read, slot: dict[str, Any], key: Key) -> Iterable[bytes]:
    """The bytes of a slice of a stored tensor; as they are stored where the slice is one run of them."""
    shape, dtype = tuple(slot["shape"]), np.dtype(slot["dtype"])
    first, last = span(shape, key)
    run = read(slot["offset"] + first * dtype.itemsize, slot["offset"] + last * dtype.itemsize)
    backward = any(isinstance(k, slice) and (k.step or 1) < 0 for k in key)
    if last - first == prod(sliced_shape(shape, key)) and not backward:
        return run
    return [_gather(b"".join(run), shape, dtype, key, first).tobytes()]


def _gather(run: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], key: Key, first: int) -> NDArray[Any]:
    """`array[key]` from the run of cells that begins at cell `first` of the array."""
    cells = np.frombuffer(run, dtype=dtype)
    offset, strides, picked = -first, [], []
    pitch = prod(shape)
    for n, size in enumerate(shape):
        pitch //= size
        k = key[n] if n < len(key) else slice(None)
        if isinstance(k, slice):
            taken = range(*k.indices(size))
            offset += (taken[0] if taken else 0) * pitch
            strides.append(taken.step * pitch * dtype.itemsize)
            picked.append(len(taken))
        else:
            offset += k % size * pitch
    if not prod(picked):
        return np.empty(picked, dtype=dtype)
    return np.lib.stride_tricks.as_strided(cells[offset:], picked, strides, writeable=False)


def answer(name: str, dtype: str, shape: tuple[int, ...], content: Callable[[], Iterable[bytes]]) -> Response:
    """A tensor in the representation that the client asks for; `content` gives its bytes, little-endian in C order."""
    chosen = representation(JSON, OCTETS)
    if chosen == OCTETS:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        response = octets(_primed(content()), nbytes, OCTETS)
        response.headers["Tensor-Shape"] = ",".join(map(str, shape))
        response.headers["Tensor-Dtype"] = dtype
        return response
    if prod(shape) > MAX_JSON_CELLS:
        raise not_acceptable(
            [OCTETS], f"JSON holds up to {MAX_JSON_CELLS:,} cells and this is {prod(shape):,}; slice it"
        )
    values = np.frombuffer(b"".join(content()), dtype=dtype).reshape(shape)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return json({"name": name, "shape": shape, "dtype": dtype, "data": values if shape else values[()]})


def find(tensors: dict[str, Any], name: str, what: str) -> Any:
    """A tensor of a catalogue by name. 404 that says what there is."""
    if name not in tensors:
        some = ", ".join(list(tensors)[:4])
        raise NotFound(f"There is no tensor {name!r} in {what}: it has {len(tensors)}, such as {some}.")
    return tensors[name]


def _primed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same chunks, the first read at once: what goes wrong there can still be an honest error."""
    iterator = iter(chunks)
    first = next(iterator, b"")
    return chain([first], iterator)
