"""Activation functions: NumPy implementations and formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi, sqrt
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.describe.notation import Notation

Array = NDArray[Any]


def _gelu_new(x: Array, out: Array) -> None:
    np.multiply(x, x, out=out)
    out *= 0.044715
    out += 1
    out *= x
    out *= sqrt(2 / pi)
    np.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5


def _gelu(x: Array, out: Array) -> None:
    """Approximates erf to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    magnitude = np.abs(x) * sqrt(0.5)
    t = 1 / (1 + 0.3275911 * magnitude)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-magnitude * magnitude), x)
    np.multiply(0.5 * x, 1 + erf, out=out)


def _relu(x: Array, out: Array) -> None:
    np.maximum(x, 0, out=out)


def _silu(x: Array, out: Array) -> None:
    """Computes the logistic function with tanh, which cannot overflow."""
    np.multiply(0.5 * x, 1 + np.tanh(0.5 * x), out=out)


def _gelu_new_text(n: Notation, x: str) -> str:
    cubic = f"{x} + {n.times('0.044715', n.power(x, 3))}"
    tanh = n.call("tanh", n.times(n.root(n.fraction("2", n.pi)), n.grouped(cubic)))
    return n.times(n.times("0.5", x), n.grouped(f"1 + {tanh}"))


@dataclass(frozen=True)
class Function:
    """An activation function: `apply(x, out)` computes it elementwise, `text` is its formula in x."""

    apply: Callable[[Array, Array], None]
    text: Callable[[Notation, str], str]


#: By their names in Hugging Face. gelu_new: Hendrycks and Gimpel 2016 (arXiv:1606.08415), gelu: x·Φ(x), silu: x·σ(x).
FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        "gelu_new": Function(_gelu_new, _gelu_new_text),
        "gelu": Function(_gelu, lambda n, x: n.times(x, n.call("Φ", x))),
        "relu": Function(_relu, lambda n, x: n.call("max", f"{x}, 0")),
        "silu": Function(_silu, lambda n, x: n.times(x, n.call("σ", x))),
    }
)
#: Aliases of these names.
SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("gelu_accurate", "gelu_fast", "gelu_python_tanh", "gelu_pytorch_tanh"), "gelu_new"),
        "gelu_python": "gelu",
        "swish": "silu",
    }
)
