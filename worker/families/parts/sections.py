"""Sections before and after the layers that several families share."""

from __future__ import annotations

from collections.abc import Iterator

from worker.describe.architecture import RESIDUAL, Section
from worker.describe.blocks import Kind, Tensor
from worker.describe.formula import Formula
from worker.families.parts import norms, prediction, stream
from worker.families.parts.notation import ASIDE, NORM, STREAM, beside, kind, read, value, weight
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


def learned_embedding(table: str, positions: str, shift: int, projection: str | None) -> Section:
    """Return the embedding of tokens and of positions, whose rows begin at `shift`.

    With a `projection`, a weight [C, P], the token table has rows of P numbers; else of C.
    """
    width = "P" if projection else "C"
    return Section(
        "embedding",
        weights=(
            weight(table, f"V {width}", "embedding", table=True),
            weight(positions, f"N+{shift} C", "position", table=True),
            *((weight(projection, "C P", "embedding_projection", table=True),) if projection else ()),
        ),
        values=(stream.tokens_value(), value("embed", f"B T {width}"), value("pos_embed", "B T C")),
        kinds=(
            stream.tokens_kind(),
            stream.table_kind("embed_tokens", table, f"V {width} 1"),
            kind("embed_positions", "Position Embed", "weight", "T C 1", f"{positions}: i+{shift} j", ASIDE, "tables"),
            *(
                _widened(projection)
                if projection
                else [stream.embedding_kind(("embed_tokens", "s j 0"), ("embed_positions", "i j 0"))]
            ),
        ),
        shelves={"tokens": "top", "tables": "top + (s + m)"}
        | ({"stream": "tables + P*s + m"} if projection else {})
        | {"end": f"{'stream' if projection else 'tables'} + C*s + 3*m"},
    )


def _widened(projection: str) -> Iterator[Kind]:
    """Yield the blocks of token vectors, and of the stream that they are projected to."""
    lookup = Formula("embed", (read("tokens", "i 0 k"), read("embed_tokens", "s j 0")))
    widen = (read("project_in", "s j 0"), read("embed", "i s k"), read("embed_positions", "i j 0"))
    yield kind("embed", "Token Vectors", "activation", "T P B", "embed: k i j", STREAM, "tables", lookup)
    yield kind("project_in", "Projection In", "weight", "P C 1", f"{projection}: j i", beside("embedding"), "stream")
    yield kind("embedding", "Input Embed", "activation", "T C B", "blocks.0.resid_pre: k i j", STREAM, "stream",
               Formula("dot", widen, "P"), part="embedding")  # fmt: skip


def unembedding(
    norm: str | None, epsilon: float, head: str, *, tied_to: str | None, affine: bool = True, biased: bool = False,
    projection: str | None = None,
) -> Section:  # fmt: skip
    """Return the final layer norm `norm`, if any, and the predictions by the linear layer `head`.

    With a `projection`, a weight [P, C], predictions are computed from what it gives.
    """
    table, bias, width = f"{head}.weight", f"{head}.bias" if biased else None, "P" if projection else "C"
    source, shelf, height = RESIDUAL, "top + m", "0"  # what predictions are computed from, and where it is
    weights, values, kinds, shelves = list[Tensor](), list[Tensor](), list[Kind](), dict[str, str]()
    if norm:
        weights += norms.layer_norm_weights(norm) if affine else ()
        values += norms.layer_norm_values("ln_final")
        kinds += norms.layer_norm_kinds("ln_final", RESIDUAL, norm if affine else None, epsilon, "ln_final")
        shelves |= norms.layer_norm_shelves("ln_final", "top + 2*m")
        source, shelf, height = "ln_final.out", "ln_final_out", "C"
    if projection:
        narrow = Formula("dot", (read("project_out", "s j 0"), read(source, "i s k")), "C")
        weights.append(weight(projection, "P C", "embedding_projection", table=True))
        values.append(value("projected", "B T P"))
        kinds += [
            kind("project_out", "Projection Out", "weight", "C P 1", f"{projection}: j i", beside("projected"),
                 "projected"),
            kind("projected", "Projected", "activation", "T P B", "projected: k i j", NORM, "projected", narrow),
        ]  # fmt: skip
        shelves["projected"] = f"{shelf} + ({height}*s + m)"
        source, shelf, height = "projected", "projected", "P"
    weights.append(weight(table, f"V {width}", "unembedding", table=True, alias_of=tied_to))
    if bias:
        weights.append(weight(bias, "V", "biases", table=True))
    values += prediction.prediction_values()
    kinds += prediction.prediction_kinds(table, bias, source, width)
    shelves |= prediction.prediction_shelves(shelf, height)
    return Section("unembedding", tuple(weights), tuple(values), tuple(kinds), shelves)
