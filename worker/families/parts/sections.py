"""Sections before and after the layers that several families share."""

from __future__ import annotations

from worker.describe.architecture import RESIDUAL, Section
from worker.families.parts import norms, prediction, stream
from worker.families.parts.notation import value, weight
from worker.families.parts.rotary import Rotary, rotary_kinds, rotary_values


def rotary_embedding(table: str, id: str, rotary: Rotary) -> Section:
    """Return the embedding of tokens by the weight `table` [V, C], drawn as the block `id`; with rotary positions."""
    return Section(
        "embedding",
        weights=(weight(table, "V C", "embedding", table=True),),
        values=(stream.tokens_value(), value("embed", "B T C"), *rotary_values()),
        kinds=(
            stream.tokens_kind(),
            stream.table_kind(id, table),
            stream.embedding_kind((id, "s j 0")),
            *rotary_kinds(rotary, "tables", "sines"),
        ),
        shelves={
            "tokens": "top",
            "tables": "top + (s + m)",
            "sines": "tables + A*s + m",
            "end": "max(tables + C*s, sines + A*s) + 3*m",
        },
    )


def unembedding(norm: str, epsilon: float, head: str, *, tied_to: str | None, biased: bool = False) -> Section:
    """Return the final layer norm `norm` and the predictions by the linear layer `head`."""
    table, bias = f"{head}.weight", f"{head}.bias" if biased else None
    return Section(
        "unembedding",
        weights=(
            *norms.layer_norm_weights(norm),
            weight(table, "V C", "unembedding", table=True, alias_of=tied_to),
            *((weight(bias, "V", "biases", table=True),) if bias else ()),
        ),
        values=(*norms.layer_norm_values("ln_final"), *prediction.prediction_values()),
        kinds=(
            *norms.layer_norm_kinds("ln_final", RESIDUAL, norm, epsilon, "ln_final"),
            *prediction.prediction_kinds(table, bias),
        ),
        shelves=norms.layer_norm_shelves("ln_final", "top + 2*m") | prediction.prediction_shelves("ln_final_out"),
    )
