"""Steps of the tour that several families share."""

from __future__ import annotations

from dataclasses import replace

from worker.describe.blocks import Step
from worker.families.parts.notation import HEAD, KV_HEAD, LAYER, ids

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

_LN = "y = (x − μ) / √(σ² + ε) · γ + β"
LOOKUP = Step("lookup", "Embedding", "Each token is replaced by a vector from a table. Where it stands is not added "
              "here: that comes in with the rotation of queries and keys.", "x = E[token]", ("embedding",))  # fmt: skip
NORM = Step("norm", "Layer norm", "Every position's vector is brought to the same scale.", _LN,
            ids(f"{LAYER}.ln1", "out", "mean", "scale"))  # fmt: skip
QKV = Step("qkv", "Queries, keys, values", "Three matrices make three short vectors for each position and head.",
           "q = W_q·y + b_q\nk = W_k·y + b_k\nv = W_v·y + b_v", ids(HEAD, "q", "k", "v"))  # fmt: skip
PLAIN_QKV = Step(
    "plain_qkv", "Queries, keys, values", "Three matrices make three short vectors for each position and head. Nothing "
    "is added to them: attention has no biases here.", "q = W_q·y\nk = W_k·y\nv = W_v·y", ids(HEAD, "q", "k", "v"),
)  # fmt: skip
FUSED_QKV = Step(
    "fused_qkv", "Queries, keys, values", "Three short vectors are made for each position and head. Their matrices are "
    "stored as one, head by head, so that one product makes them all.",
    "q = W_q·y + b_q\nk = W_k·y + b_k\nv = W_v·y + b_v", ids(HEAD, "q", "k", "v"),
)  # fmt: skip
PROJECT = Step("project", "Projection", "One more matrix brings the results of all heads together.",
               "a = W_o·[z_0, z_1, …] + b_o", ids(LAYER, "attn_out"))  # fmt: skip
MLP = (
    Step("mlp", "MLP: wide", "After another norm, a matrix makes each vector wider.", "h = W_1·norm(x) + b_1",
         ids(LAYER, "mlp.pre")),
    Step("activation", "Activation", "Each number goes through a curve.", "h ← {activation}(h)",
         ids(LAYER, "mlp.post")),
    Step("back", "MLP: narrow", "A second matrix brings it back to the width of the stream, and it is added.",
         "x ← x + W_2·h + b_2", ids(LAYER, "mlp_out", "resid_post")),
)  # fmt: skip
LAST = Step("last", "Final layer norm", "Each vector is brought to the same scale once more.", _LN,
            ids("ln_final", "out", "mean", "scale"))  # fmt: skip

#: Where tokens have vectors narrower than the stream, and norms come after the sums.
EMBEDDED = Step(
    "embedding", "Embedding", "Each token becomes a vector, and its position is added.",
    "x = E[token] + P[position + 2]", ("embedding",),
)  # fmt: skip
WIDENED = Step(
    "projected_embedding", "Embedding", "Each token becomes a vector that is narrower than the stream, and a matrix "
    "widens it. Then its position is added.", "x = W_in·E[token] + P[position + 2]", ("embed", "embedding"),
)  # fmt: skip
NORM_AFTER = replace(
    NORM, id="norm_after", text="Only after the sum is each vector brought to the same scale. So the stream itself "
    "is normed, and not only what attention and MLP read of it.",
)  # fmt: skip
NORM_AFTER_MLP = replace(
    NORM, id="norm_after_mlp", kinds=ids(f"{LAYER}.ln2", "out", "mean", "scale"),
    text="Once more, the sum is brought to the same scale. That is what the next layer reads.",
)  # fmt: skip
NARROWED = Step(
    "project_out", "Narrow", "A matrix brings each vector to the width of the tokens' vectors. There it is compared "
    "with them.", "y ← W_out·y", ("projected",),
)  # fmt: skip


def rotate_part(shared: bool = False) -> Step:
    """Return the step of a rotation of only some channels; `shared`: keys belong to several heads."""
    return Step(
        "rotate_part", "Rotation", "Pairs of the first channels of each query and key are turned by an angle that "
        "grows with the position; the other channels are left as they are. So part of a score depends on how far apart "
        "two positions are, and part only on what stands there.", "q ← q · cos(i·θ) + turned(q) · sin(i·θ)",
        (*ids(HEAD, "rot_q"), *ids(KV_HEAD if shared else HEAD, "rot_k")),
    )  # fmt: skip


def parallel_mlp(norm: str) -> tuple[Step, ...]:
    """Return the steps of an MLP beside attention; `norm` says what it reads, in words."""
    return (
        Step("parallel_mlp", "MLP, in parallel", f"The MLP does not wait for attention: it reads {norm}, and a matrix "
             "makes it wider. Both could be computed at the same time.", "h = W_1·norm(x) + b_1",
             ids(LAYER, "mlp.pre")),
        MLP[1],
        Step("parallel_sum", "Sum", "A second matrix brings it back to the width of the stream. Attention's result and "
             "the MLP's are added together to the vector that came in.", "x ← x + a + W_2·h + b_2",
             ids(LAYER, "mlp_out", "resid_post")),
    )  # fmt: skip


_RMS = "y = x / √(mean(x²) + ε) · γ"
_HEAD_NORM = Step(
    "head_norm", "Norm of queries and keys", "Each query and each key is brought to the same size before it is turned, "
    "so that no score grows too large.", _RMS,
    (*ids(HEAD, "q_norm.out", "q_norm.scale"), *ids(KV_HEAD, "k_norm.out", "k_norm.scale")),
)  # fmt: skip
_CAPPED_SCORES = (
    replace(ATTEND[0], kinds=ids(HEAD, "uncapped_scores")),
    Step("softcap", "Soft cap", "A curve that is nearly straight around 0 keeps every score within bounds.",
         "s ← c · tanh(s / c)", ids(HEAD, "scores")),
)  # fmt: skip
_POST_NORM = Step(
    "post_norm", "Norm of the result", "The result is brought to the same size before it is added.", _RMS,
    ids(f"{LAYER}.ln1_post", "out", "scale"),
)  # fmt: skip
_DOWN = Step("down", "MLP: down", "A third matrix brings it back to the width of the stream, and it is added.",
             "x ← x + W_d·h", ids(LAYER, "mlp_out", "resid_post"))  # fmt: skip
_DOWN_NORMED = Step(
    "down_normed", "MLP: down", "A third matrix brings it back to the width of the stream. The result is brought to "
    "the same size, and added.", "x ← x + norm(W_d·h)",
    ids(LAYER, "mlp_out", "ln2_post.out", "ln2_post.scale", "resid_post"),
)  # fmt: skip


def gated_decoder(*, head_norms: bool = False, post_norms: bool = False, capped: bool = False) -> tuple[Step, ...]:
    """Return the tour of a decoder with RMS norms, rotary positions, shared keys and values, and gated MLPs.

    `head_norms`: norms of queries and keys; `post_norms`: norms of what is added; `capped`: a soft cap of scores.
    """
    return (
        TOKENS,
        LOOKUP,
        Step("rms_norm", "RMS norm", "Every position's vector is brought to the same size: divided by the root of the "
             "mean of its squares, and multiplied by a learned gain. No mean is subtracted, and nothing is added.",
             _RMS, ids(f"{LAYER}.ln1", "out", "scale")),
        Step("grouped_qkv", "Queries, keys, values", "Each head has queries of its own; a key and a value are shared "
             "by several heads, which saves memory when text is generated.", "q = W_q·y\nk = W_k·y\nv = W_v·y",
             (*ids(HEAD, "q"), *ids(KV_HEAD, "k", "v"))),
        *((_HEAD_NORM,) if head_norms else ()),
        Step("rotate", "Rotation", "Pairs of channels of each query and key are turned by an angle that grows with the "
             "position, slowly in some pairs and fast in others. So a score depends on how far apart two positions "
             "are.",
             "q ← q · cos(i·θ) + turned(q) · sin(i·θ)", (*ids(HEAD, "rot_q"), *ids(KV_HEAD, "rot_k"))),
        *(_CAPPED_SCORES if capped else ATTEND[:1]),
        *ATTEND[1:],
        Step("project", "Projection", "One more matrix brings the results of all heads together.",
             "a = W_o·[z_0, z_1, …]", ids(LAYER, "attn_out")),
        *((_POST_NORM,) if post_norms else ()),
        RESIDUAL,
        Step("gate_up", "MLP: gate and up", "After another norm, two matrices make each vector wider: one result will "
             "be the gate of the other.", "g = W_g·norm(x)\nu = W_u·norm(x)", ids(LAYER, "mlp.pre", "mlp.pre_linear")),
        Step("gated", "Gate", "The gate goes through a curve, which brings negative numbers close to 0, and is "
             "multiplied with the other result, cell by cell.", "h = {activation}(g) · u", ids(LAYER, "mlp.post")),
        _DOWN_NORMED if post_norms else _DOWN,
        Step("last_rms_norm", "Final RMS norm", "Each vector is brought to the same size once more.", _RMS,
             ids("ln_final", "out", "scale")),
        *PREDICT,
    )  # fmt: skip
