"""Layer norms and RMS norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.describe.blocks import Kind, Landmark, Spot, Tensor
from worker.describe.formula import Formula
from worker.describe.operations import Parameters
from worker.families.parts.notation import NORM, beside, kind, read, read_if, value, weight
from worker.families.parts.stream import Tensors

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine


def layer_norm_weights(name: str, dims: str = "C") -> tuple[Tensor, ...]:
    """Return the weights of a layer norm."""
    return weight(f"{name}.weight", dims, "layer_norm"), weight(f"{name}.bias", dims, "layer_norm")


def layer_norm_values(name: str, landmark: Landmark | None = None) -> tuple[Tensor, ...]:
    """Return the values of a layer norm, of which the last has this role in every family."""
    return *norm_statistics(name), value(f"{name}.out", "B T C", landmark=landmark)


def norm_statistics(name: str) -> tuple[Tensor, ...]:
    """Return the mean and scale of a layer norm."""
    return tuple(value(f"{name}.{part}", "B T 1", "statistic") for part in ("mean", "scale"))


def layer_norm_kinds(
    id: str, source: str, weights: str | None, epsilon: float, shelf: str, spot: Spot = NORM, tensor: str = ""
) -> tuple[Kind, ...]:
    """Return the blocks of a layer norm of the block `source`; for `layer_norm_shelves`.

    `weights`: None for a norm without gain and shift. `tensor` holds the result (default: the value of the norm).
    """
    mean = Formula("mean", (read(source, "i s k"),), "C")
    deviations = (read(source, "i s k"), read(f"{id}.mean", "i 0 k"))
    scale = Formula("norm_scale", deviations, "C", Parameters(epsilon=epsilon))
    normed = (read(source, "i j k"), read(f"{id}.mean", "i 0 k"), read(f"{id}.scale", "i 0 k"))
    affine = *read_if(weights, f"{id}.weight", "0 j 0"), *read_if(weights, f"{id}.bias", "0 j 0")
    at, gain, bias = f"{shelf}_out", beside(f"{id}.out"), beside(f"{id}.weight")
    gains = (
        kind(f"{id}.weight", "γ", "weight", "1 C 1", f"{weights}.weight: j", gain, at, minor=True),
        kind(f"{id}.bias", "β", "weight", "1 C 1", f"{weights}.bias: j", bias, at, minor=True),
    )
    return (
        kind(f"{id}.mean", "LN Agg: μ, σ", "statistic", "T 1 B", f"{id}.mean: k i 0", spot, f"{shelf}_mean", mean,
             minor=True),
        kind(f"{id}.scale", "", "statistic", "T 1 B", f"{id}.scale: k i 0", spot, f"{shelf}_scale", scale,
             minor=True),
        *(gains if weights else ()),
        kind(f"{id}.out", "Layer Norm", "activation", "T C B", f"{tensor or f'{id}.out'}: k i j", spot, at,
             Formula("layer_norm", normed + affine), part="norm"),
    )  # fmt: skip


def layer_norm_shelves(shelf: str, top: str) -> dict[str, str]:
    """Return the shelves of a layer norm: mean, scale, and the rest below."""
    return {f"{shelf}_mean": top, f"{shelf}_scale": f"{shelf}_mean + s", f"{shelf}_out": f"{shelf}_mean + (2*s + m)"}


def layer_norm(
    engine: Engine, x: NDArray[Any], weights: str | None, epsilon: float, new: Tensors, name: str
) -> NDArray[Any]:
    """Compute the layer norm of x [B, n, C] and its statistics into `new`; return it."""
    mean, scale, out = (new[f"{name}.{part}"] for part in ("mean", "scale", "out"))
    engine.layer_norm(x, weights, epsilon, mean, scale, out)
    return out


def rms_norm_values(name: str) -> tuple[Tensor, ...]:
    """Return the values of an RMS norm."""
    return value(f"{name}.scale", "B T 1", "statistic"), value(f"{name}.out", "B T C")


def rms_norm_kinds(
    id: str, source: str, weights: str, epsilon: float, shelf: str, offset: float | None = None
) -> tuple[Kind, ...]:
    """Return the blocks of an RMS norm of the block `source`, with the gain offset + γ; for `rms_norm_shelves`."""
    scale = Formula("rms_scale", (read(source, "i s k"),), "C", Parameters(epsilon=epsilon))
    normed = (read(source, "i j k"), read(f"{id}.scale", "i 0 k"), read(f"{id}.weight", "0 j 0"))
    at = f"{shelf}_out"
    return (
        kind(f"{id}.scale", "RMS", "statistic", "T 1 B", f"{id}.scale: k i 0", NORM, f"{shelf}_scale", scale,
             minor=True),
        kind(f"{id}.weight", "γ", "weight", "1 C 1", f"{weights}.weight: j", beside(f"{id}.out"), at, minor=True),
        kind(f"{id}.out", "RMS Norm", "activation", "T C B", f"{id}.out: k i j", NORM, at,
             Formula("rms_norm", normed, parameters=Parameters(offset=offset)), part="norm"),
    )  # fmt: skip


def rms_norm_shelves(shelf: str, top: str) -> dict[str, str]:
    """Return the shelves of an RMS norm: the scale, and the rest below."""
    return {f"{shelf}_scale": top, f"{shelf}_out": f"{shelf}_scale + s + m"}


def rms_norm(
    engine: Engine, x: NDArray[Any], weights: str, epsilon: float, new: Tensors, name: str, offset: float | None = None
) -> NDArray[Any]:
    """Compute the RMS norm of x [B, n, C], or [B, n, H, A], and its scale into `new`; return it."""
    scale, out = (new[f"{name}.{part}"] for part in ("scale", "out"))
    engine.rms_norm(x, weights, epsilon, scale, out, offset)
    return out
