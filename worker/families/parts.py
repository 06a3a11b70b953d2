"""Parts shared by the families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from worker.describe.blocks import Kind, Landmark, Role, Spot, Step, Tensor
from worker.describe.config import Config, short_json
from worker.describe.formula import Formula, Input
from worker.describe.functions import SYNONYMS
from worker.describe.index import Index
from worker.describe.operations import Parameters
from worker.families.family import Tensors, UnsupportedConfigError

if TYPE_CHECKING:
    from worker.engine.numpy_engine import Engine

LAYER = "blocks.{layer}"
HEAD = f"{LAYER}.attn.heads.{{head}}"
KV_HEAD = f"{LAYER}.attn.kv_heads.{{kv_head}}"

STREAM = Spot()
NORM = Spot("norm", "right")
ATTENTION = Spot("attention", "right")


def weight(name: str, dims: str, *parts: str, table: bool = False, alias_of: str | None = None) -> Tensor:
    """Return a weight; `parts` are the parameter parts it is counted under, in equal shares."""
    return Tensor(name, tuple(dims.split()), "weight", parts, is_table=table, alias_of=alias_of)


def value(name: str, dims: str, role: Role = "activation", landmark: Landmark | None = None, **more: Any) -> Tensor:
    """Return a value of a trace."""
    return Tensor(name, tuple(dims.split()), role, landmark=landmark, **more)


def read(block: str, index: str, *, each: str | None = None, member: str | None = None) -> Input:
    """Return an input of a formula."""
    return Input(block, Index(index), each, member)


def beside(kind: str, margins: int = 1) -> Spot:
    """Return the spot to the left of another kind."""
    return Spot(anchor="right", beside=kind, margins=margins)


def kind(
    id: str, name: str, role: Role, cells: str, at: str, spot: Spot, shelf: str, formula: Formula | None = None,
    **more: Any,
) -> Kind:  # fmt: skip
    """Return a kind of block; `at` is "tensor: index"."""
    tensor, _, index = at.partition(": ")
    i, j, k = cells.split()
    return Kind(id, name, role, (i, j, k), tensor, Index(index), formula, spot, shelf, **more)


def ids(prefix: str, *names: str) -> tuple[str, ...]:
    """Return the ids of several kinds with the same prefix."""
    return tuple(f"{prefix}.{name}" for name in names)


# ----------------------------------------------------------------------------------------------------------- norms


def layer_norm_values(name: str) -> tuple[Tensor, ...]:
    """Return the values of a layer norm."""
    statistics = (value(f"{name}.{part}", "B T 1", "statistic") for part in ("mean", "scale"))
    return (*statistics, value(f"{name}.out", "B T C"))


def layer_norm_kinds(id: str, source: str, weights: str, epsilon: float, shelf: str) -> tuple[Kind, ...]:
    """Return the blocks of a layer norm of the block `source`; for `layer_norm_shelves`."""
    mean = Formula("mean", (read(source, "i s k"),), "C")
    deviations = (read(source, "i s k"), read(f"{id}.mean", "i 0 k"))
    scale = Formula("norm_scale", deviations, "C", Parameters(epsilon=epsilon))
    out = Formula(
        "layer_norm",
        (read(source, "i j k"), read(f"{id}.mean", "i 0 k"), read(f"{id}.scale", "i 0 k"),
         read(f"{id}.weight", "0 j 0"), read(f"{id}.bias", "0 j 0")),
    )  # fmt: skip
    at, gain = f"{shelf}_out", beside(f"{id}.out")
    bias = beside(f"{id}.weight")
    return (
        kind(f"{id}.mean", "LN Agg: μ, σ", "statistic", "T 1 B", f"{id}.mean: k i 0", NORM, f"{shelf}_mean", mean,
             minor=True),
        kind(f"{id}.scale", "", "statistic", "T 1 B", f"{id}.scale: k i 0", NORM, f"{shelf}_scale", scale,
             minor=True),
        kind(f"{id}.weight", "γ", "weight", "1 C 1", f"{weights}.weight: j", gain, at, minor=True),
        kind(f"{id}.bias", "β", "weight", "1 C 1", f"{weights}.bias: j", bias, at, minor=True),
        kind(f"{id}.out", "Layer Norm", "activation", "T C B", f"{id}.out: k i j", NORM, at, out, part="norm"),
    )  # fmt: skip


def layer_norm_shelves(shelf: str, top: str) -> dict[str, str]:
    """Return the shelves of a layer norm: mean, scale, and the rest below."""
    return {f"{shelf}_mean": top, f"{shelf}_scale": f"{shelf}_mean + s", f"{shelf}_out": f"{shelf}_mean + (2*s + m)"}


def layer_norm(engine: Engine, x: NDArray[Any], weights: str, epsilon: float, new: Tensors, name: str) -> NDArray[Any]:
    """Compute the layer norm of x [B, n, C] and its statistics into `new`; return it."""
    mean, scale, out = (new[f"{name}.{part}"] for part in ("mean", "scale", "out"))
    engine.layer_norm(x, weights, epsilon, mean, scale, out)
    return out


def rms_norm_values(name: str) -> tuple[Tensor, ...]:
    """Return the values of an RMS norm."""
    return value(f"{name}.scale", "B T 1", "statistic"), value(f"{name}.out", "B T C")


def rms_norm_kinds(id: str, source: str, weights: str, epsilon: float, shelf: str) -> tuple[Kind, ...]:
    """Return the blocks of an RMS norm of the block `source`; for `rms_norm_shelves`."""
    scale = Formula("rms_scale", (read(source, "i s k"),), "C", Parameters(epsilon=epsilon))
    normed = (read(source, "i j k"), read(f"{id}.scale", "i 0 k"), read(f"{id}.weight", "0 j 0"))
    at = f"{shelf}_out"
    return (
        kind(f"{id}.scale", "RMS", "statistic", "T 1 B", f"{id}.scale: k i 0", NORM, f"{shelf}_scale", scale,
             minor=True),
        kind(f"{id}.weight", "γ", "weight", "1 C 1", f"{weights}.weight: j", beside(f"{id}.out"), at, minor=True),
        kind(f"{id}.out", "RMS Norm", "activation", "T C B", f"{id}.out: k i j", NORM, at, Formula("rms_norm", normed),
             part="norm"),
    )  # fmt: skip


def rms_norm_shelves(shelf: str, top: str) -> dict[str, str]:
    """Return the shelves of an RMS norm: the scale, and the rest below."""
    return {f"{shelf}_scale": top, f"{shelf}_out": f"{shelf}_scale + s + m"}


def rms_norm(engine: Engine, x: NDArray[Any], weights: str, epsilon: float, new: Tensors, name: str) -> NDArray[Any]:
    """Compute the RMS norm of x [B, n, C] and its scale into `new`; return it."""
    scale, out = (new[f"{name}.{part}"] for part in ("scale", "out"))
    engine.rms_norm(x, weights, epsilon, scale, out)
    return out


# ------------------------------------------------------------------------------------------------------- attention


def attention_values() -> tuple[Tensor, ...]:
    """Return the values of attention, from scores to z."""
    at = f"{LAYER}.attn"
    return (
        value(f"{at}.scores", "B H T T", landmark="scores", is_masked=True),
        value(f"{at}.scores_max", "B H T", "statistic"),
        value(f"{at}.scores_sum", "B H T", "statistic"),
        value(f"{at}.pattern", "B H T T", landmark="pattern"),
        value(f"{at}.z", "B T H A"),
    )


def attention_kinds(query: Input, key: Input, v: Input, scale: float) -> Iterator[Kind]:
    """Yield the blocks of a head, from scores to z; `query`, `key` and `v` are its inputs."""
    scores = Formula("dot", (query, key), "A", Parameters(scale=scale, mask="causal"))
    total = Formula("sum_exp", (read(f"{HEAD}.scores", "s j k"), read(f"{HEAD}.scores_max", "0 j k")), "T")
    largest = Formula("max", (read(f"{HEAD}.scores", "s j k"),), "T")
    pattern = Formula(
        "softmax",
        (read(f"{HEAD}.scores", "i j k"), read(f"{HEAD}.scores_max", "0 j k"), read(f"{HEAD}.scores_sum", "0 j k")),
    )
    z = Formula("dot", (read(f"{HEAD}.pattern", "s i k"), v), "T")
    at = f"{LAYER}.attn"
    yield kind(f"{HEAD}.scores", "Attention Matrix", "activation", "T T B", f"{at}.scores: k h j i", ATTENTION,
               "scores", scores, part="scores")  # fmt: skip
    yield kind(f"{HEAD}.scores_sum", "", "statistic", "1 T B", f"{at}.scores_sum: k h j",
               beside(f"{HEAD}.scores_max", 0), "scores", total, minor=True)  # fmt: skip
    yield kind(f"{HEAD}.scores_max", "", "statistic", "1 T B", f"{at}.scores_max: k h j", beside(f"{HEAD}.scores"),
               "scores", largest, minor=True)  # fmt: skip
    yield kind(f"{HEAD}.pattern", "Attn Matrix Softmax", "activation", "T T B", f"{at}.pattern: k h j i",
               Spot("attention", "right", "T+2", 2), "scores", pattern, part="pattern")  # fmt: skip
    yield kind(f"{HEAD}.z", "V Output", "activation", "T A B", f"{at}.z: k i h j", ATTENTION, "z", z, part="mixed")


# ------------------------------------------------------------------------------------------------------ predictions


def prediction_values() -> tuple[Tensor, ...]:
    """Return logits and probabilities. These stay float32: most would be subnormal in float16."""
    return (
        value("logits", "B T V", landmark="logits"),
        value("logits_max", "B T", "statistic"),
        value("logits_sum", "B T", "statistic"),
        value("probs", "B T V", landmark="probs", is_exact=True),
    )


def prediction_kinds(table: str) -> Iterator[Kind]:
    """Yield the blocks of the unembedding, with weights `table` [V, C], and of the softmax."""
    dot = Formula("dot", (read("lm_head", "s j 0"), read("ln_final.out", "i s k")), "C")
    total = Formula("sum_exp", (read("logits", "i s k"), read("logits_max", "i 0 k")), "V")
    largest = Formula("max", (read("logits", "i s k"),), "V")
    softmax = (read("logits", "i j k"), read("logits_max", "i 0 k"), read("logits_sum", "i 0 k"))
    yield kind("lm_head", "LM Head Weights", "weight", "C V 1", f"{table}: j i", beside("logits"), "logits")
    yield kind("logits", "Logits", "activation", "T V B", "logits: k i j", NORM, "logits", dot, part="logits")
    yield kind("logits_sum", "", "statistic", "T 1 B", "logits_sum: k i", NORM, "logits_sum", total)
    yield kind("logits_max", "SM Agg", "statistic", "T 1 B", "logits_max: k i", NORM, "logits_max", largest)
    yield kind("probs", "Logits Softmax", "activation", "T V B", "probs: k i j", NORM, "probs",
               Formula("softmax", softmax), part="probs")  # fmt: skip


def prediction_shelves(after: str) -> dict[str, str]:
    """Return the shelves of the predictions, below the shelf `after` of the final norm."""
    return {
        "logits": f"{after} + (C*s + m)",
        "logits_max": "logits + (V*s + m)",
        "logits_sum": "logits_max + s",
        "probs": "logits_max + (2*s + m)",
        "end": "probs + V*s",
    }


# ------------------------------------------------------------------------------------------------------ forward pass


class Positions:
    """An arena's tensors, restricted to the positions `rows`."""

    def __init__(self, a: Tensors, rows: slice) -> None:
        self._all, self._rows = a, rows

    def __getitem__(self, name: str, /) -> NDArray[Any]:
        return self._all[name][:, self._rows]


def run_layers(
    layers: int, block: Callable[[int], None], new: Tensors, after_layer: Callable[[], None]
) -> NDArray[Any]:
    """Run `block` on each layer, passing on the residual stream; return the output of the last."""
    for layer in range(layers):
        if layer:
            new[f"blocks.{layer}.resid_pre"][:] = new[f"blocks.{layer - 1}.resid_post"]
        block(layer)
        after_layer()
    return new[f"blocks.{layers - 1}.resid_post"]


def unembed(engine: Engine, normed: NDArray[Any], new: Tensors) -> None:
    """Compute logits and probabilities from the final norm [B, n, C]."""
    engine.unembed(normed, "lm_head.weight", new["logits"])
    engine.softmax(*(new[name] for name in ("logits", "logits_max", "logits_sum", "probs")))


def merge_heads(x: NDArray[Any]) -> NDArray[Any]:
    """[B, n, H, A] -> [B, n, HA], a view."""
    return x.reshape(*x.shape[:2], -1)


# --------------------------------------------------------------------------------------- steps of every decoder

TOKENS = Step("tokens", "Tokens", "The text is cut into tokens, each with a number.", "", ("tokens",))
ATTEND = (
    Step("scores", "Attention scores", "Each position's query is compared with the keys of those up to it.",
         "s(i, j) = q(i) · k(j) / √d", ids(HEAD, "scores")),
    Step("softmax", "Softmax", "Scores become shares.", "p(i, j) = exp s(i, j) / Σ_j exp s(i, j)",
         ids(HEAD, "pattern", "scores_max", "scores_sum")),
    Step("mix", "Mixing the values", "Each position takes its share of the values of the others.",
         "z(i) = Σ_j p(i, j) · v(j)", ids(HEAD, "z")),
)  # fmt: skip
RESIDUAL = Step(
    "residual", "Residual", "The result is added to the vector that came in.", "x ← x + a", ids(LAYER, "resid_mid")
)
PREDICT = (
    Step("logits", "Logits", "Each vector is compared with every token.", "logits = W_lm·y", ("logits",)),
    Step("probs", "Probabilities", "Softmax again, over all tokens.", "p(v) = exp logits(v) / Σ exp logits",
         ("probs", "logits_max", "logits_sum")),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------- checkpoints


def hub_fields(
    config: type[Config],
    hub_config: Mapping[str, Any],
    fixed: Mapping[str, Any],
    renamed: Mapping[str, str],
    function: str,
) -> dict[str, Any]:
    """Return the fields of a configuration from a `config.json`.

    `fixed` are other settings that change the computation, each with its only supported value; `renamed` maps aliases
    to fields; `function` is the field of the activation function. Raises UnsupportedConfigError.
    """
    for name, supported in fixed.items():
        if hub_config.get(name, supported) != supported:
            found, wanted = (short_json(value) for value in (hub_config[name], supported))
            raise UnsupportedConfigError(f"has {name}: {found}, and only {wanted} is supported")
    hub_config = {renamed.get(name, name): value for name, value in hub_config.items()}
    values = {name: hub_config[name] for name in config.rules() if name in hub_config}
    if isinstance(values.get(function), str):
        values[function] = SYNONYMS.get(values[function], values[function])
    return values
