"""Where the blocks of a GPT stand: the block layout of LLM Visualization (bbycroft/llm-viz, MIT), and ours.

"llm-viz" is that layout to the last bit of float64, so sums here are taken in its order, left to right. In models of
more than twelve layers it has defects: its residual blocks stay in the first column, its columns may run into each
other, and it draws a head's Q, K and V as one box. "columns", the same up to twelve layers, mends them.
"""

from __future__ import annotations

import numpy as np

from worker.describe.architecture import Kind, Sizes
from worker.families.config import Config
from worker.layout.geometry import CELL, COLUMN, Floats, Geometry, Plan, Style

LEFT, MIDDLE, RIGHT = 0.0, 0.5, 1.0  # which of its points is at the x that a block is given


def place(config: Config, tokens: int, batch: int = 1, style: Style = "columns") -> Geometry:
    """The geometry of every block, for `tokens` positions of `batch` sequences.

    Raises ConfigError for what a Plan refuses.
    """
    plan = Plan(config, tokens, batch, style)
    return Geometry(config, tokens, batch, style, _place_x(plan), _place_y(plan), _place_z(plan))


def _short(kind: Kind) -> str:
    return kind.id.removeprefix("blocks.{layer}.").removeprefix("attn.heads.{head}.")


# --------------------------------------------------------------------------------------------------------- x


def _place_x(plan: Plan) -> Floats:  # [K, G]
    n, m = plan.sizes, plan.margin
    middle = 0.0
    left = -n["T"] * CELL / 2 - m
    attention = left - (n["T"] + 2) * CELL - 3 * m
    pitch = n["C"] * 14 * CELL + m * 2
    if plan.style == "columns":
        first = _x(plan, *np.array([[middle], [left], [attention]]))
        layers_on = slice(plan.sections.before_heads.start, None)
        width = n["T"] * CELL / 2 - float(first[layers_on].min())
        pitch = max(pitch, width + m)

    columns = -(-plan.config.n_layer // COLUMN)
    steps = np.full((3, columns), pitch)
    steps[:, 0] = middle, left, attention
    middles, lefts, attentions = np.add.accumulate(steps, 1)  # one step after the other, as the original does
    if plan.style == "llm-viz":
        middles = np.zeros(columns)
    x = _x(plan, middles, lefts, attentions)
    x[plan.sections.embedding] = x[plan.sections.embedding, :1]
    x[plan.sections.unembedding] = x[plan.sections.unembedding, -1:]
    return x


def _x(plan: Plan, middle: Floats, left: Floats, attention: Floats) -> Floats:
    """[K, G]: left edges in columns whose residual stream, layer norms and attention are there, [G] each."""
    n, m, s = plan.sizes, plan.margin, CELL
    norm = left - n["T"] * s - m
    weights = attention - n["T"] * s - m
    biases = weights - n["C"] * s - m
    at: dict[str, tuple[float, float | Floats]] = {
        "tokens": (MIDDLE, 0.0),
        "wte": (RIGHT, left),
        "wpe": (LEFT, n["T"] * s / 2 + m),
        "embedding": (MIDDLE, 0.0),
        "scores_sum": (RIGHT, attention - n["T"] * s - m - s),
        "scores_max": (RIGHT, attention - n["T"] * s - m),
        "pattern": (RIGHT, attention - (n["T"] + 2) * s - 2 * m),
        "attn.out_bias": (RIGHT, weights - n["HA"] * s - m),
        "resid_mid": (MIDDLE, middle),
        "mlp.out_bias": (RIGHT, attention - n["F"] * s - m),
        "mlp_out": (LEFT, attention + m),
        "resid_post": (MIDDLE, middle),
        "lm_head": (RIGHT, left - n["T"] * s - m),
    }
    for name in ("ln1", "ln2", "ln_final"):
        at |= {f"{name}.mean": (RIGHT, left), f"{name}.scale": (RIGHT, left), f"{name}.out": (RIGHT, left)}
        at |= {f"{name}.weight": (RIGHT, norm), f"{name}.bias": (RIGHT, norm - s - m)}
    at |= dict.fromkeys(("q_weight", "k_weight", "v_weight", "qkv_weight", "attn.out_weight"), (RIGHT, weights))
    at |= dict.fromkeys(("q_bias", "k_bias", "v_bias"), (RIGHT, biases))
    at |= dict.fromkeys(("q", "k", "v", "qkv", "scores", "z", "attn_out"), (RIGHT, attention))
    at |= dict.fromkeys(("mlp.in_weight", "mlp.in_bias", "mlp.pre", "mlp.post", "mlp.out_weight"), (RIGHT, attention))
    at |= dict.fromkeys(("logits", "logits_sum", "logits_max", "probs"), (RIGHT, left))

    x = np.empty((len(plan.kinds), len(left)))
    for k, kind in enumerate(plan.kinds):
        anchor, where = at[_short(kind)]
        x[k] = where - plan.size[k, 0] * anchor
    return x


# --------------------------------------------------------------------------------------------------------- y


def _place_y(plan: Plan) -> Floats:  # [K, R]
    n, m, s = plan.sizes, plan.margin, CELL
    top = s + m
    embedding = {"tokens": 0.0, "wte": top, "wpe": top, "embedding": top}
    y = top + (n["C"] * s + m)
    y = y + 2 * m

    rows, ends = [], []
    for _ in range(min(plan.config.n_layer, COLUMN)):  # every column begins at the same height: one stands for all
        layer, y = _layer_y(n, m, plan.large, y + 2 * m)
        y = y + 2 * m
        rows.append(layer)
        ends.append(y)
    unembedding = _unembedding_y(n, m, ends[(plan.config.n_layer - 1) % COLUMN] + 2 * m)
    rows = [embedding | row | unembedding for row in rows]
    return np.array([[row[_short(kind)] for row in rows] for kind in plan.kinds])


def _norm_y(name: str, m: float, y: float) -> tuple[dict[str, float], float]:
    """The tops in a layer norm that begins at y, and the top of its result."""
    top = y + (2 * CELL + m)
    of = {"mean": y, "scale": y + CELL, "weight": top, "bias": top, "out": top}
    return {f"{name}.{part}": at for part, at in of.items()}, top


def _layer_y(n: Sizes, m: float, large: bool, y: float) -> tuple[dict[str, float], float]:
    """The tops in a layer that begins at y, and where it ends."""
    s, a = CELL, n["A"] * CELL
    at, y = _norm_y("ln1", m, y)

    at |= dict.fromkeys(("q_bias", "k_bias", "v_bias", "qkv_weight", "qkv"), y)
    q, k, v = (y, y + a, y + a + a) if large else (y, y, y)
    at |= {"q_weight": q, "k_weight": k, "v_weight": v, "q": q, "k": k, "v": v}
    scores = y + a + m + (2 * n["A"] * s if large else 0)
    at |= dict.fromkeys(("scores", "scores_sum", "scores_max", "pattern"), scores)
    at["z"] = scores + n["T"] * s + m

    y = max(at["z"] + a + 2 * m, y + n["C"] * s + m)
    at |= dict.fromkeys(("attn.out_weight", "attn.out_bias", "attn_out", "resid_mid"), y)
    norm, y = _norm_y("ln2", m, y + n["C"] * s + m)

    at |= norm | {"mlp.in_weight": y, "mlp.in_bias": y - s - m}
    at["mlp.pre"] = y = y + (n["C"] * s + m)
    at["mlp.post"] = y = y + (n["T"] * s + m)
    y = y + (n["T"] * s + m)
    at |= dict.fromkeys(("mlp.out_weight", "mlp.out_bias", "mlp_out", "resid_post"), y)
    return at, y + (n["C"] * s - m)


def _unembedding_y(n: Sizes, m: float, y: float) -> dict[str, float]:
    at, y = _norm_y("ln_final", m, y)
    at["lm_head"] = at["logits"] = y = y + (n["C"] * CELL + m)
    at["logits_max"] = y = y + (n["V"] * CELL + m)
    at["logits_sum"] = y + CELL
    at["probs"] = y + (2 * CELL + m)
    return at


# --------------------------------------------------------------------------------------------------------- z


def _place_z(plan: Plan) -> Floats:  # [3, H]
    m, share = plan.margin, plan.config.n_embd * CELL / 16
    gap = m + share
    depth = 3 * plan.batch * CELL + gap * 2 + (0 if plan.large else 3 * m + share)
    middle = depth * np.arange(plan.config.n_head) - (plan.config.n_head - 1) * depth / 2
    return np.stack([middle + plan.batch * CELL + gap, middle, middle - plan.batch * CELL - gap])
