"""Labels: the named groups of a decoder's blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from worker.describe.architecture import Section
from worker.describe.blocks import Kind, Label
from worker.families.parts.notation import HEAD, KV_HEAD, LAYER

_SCORES = ("scores", "scores_sum", "scores_max", "pattern")


def decoder_labels(embedding: Section, layers: Section, unembedding: Section) -> tuple[Label, ...]:
    """Return the labels of a decoder's sections: each is a part of the model, with its blocks in block order."""
    return (
        _label("embedding", "Embedding", embedding.kinds),
        *_layer_labels(layers.kinds),
        _label("unembedding", "Unembedding", unembedding.kinds),
    )


def _layer_labels(kinds: Sequence[Kind]) -> Iterator[Label]:
    first = next(n for n, kind in enumerate(kinds) if kind.short_name.startswith(("ln2.", "mlp.")))
    attention, mlp = kinds[:first], kinds[first:]
    projection = attention[[kind.short_name for kind in attention].index("attn.out_weight") :]
    yield _label(LAYER, "Transformer {layer}", kinds)
    yield _label(f"{LAYER}.proj", "Projection", projection)
    yield _label(f"{LAYER}.self_attention", "Self-attention", attention)
    yield _label(f"{LAYER}.mlp", "MLP", mlp)
    shared, own = _of(KV_HEAD, kinds), _of(HEAD, kinds)
    for n in "kv" if shared else "":
        yield _vector_label(KV_HEAD, n, shared)
    if shared:
        yield _label(KV_HEAD, "Head {kv_head} of keys and values", shared)
    for n in "q" if shared else "qkv":
        yield _vector_label(HEAD, n, own)
    yield _label(f"{HEAD}.matrix", "Attention Matrix", [kind for kind in own if kind.short_name in _SCORES])
    yield _label(f"{HEAD}.vector", "V Output", [kind for kind in own if kind.short_name == "z"])
    yield _label(HEAD, "Head {head}", own)


def _of(head: str, kinds: Sequence[Kind]) -> list[Kind]:
    return [kind for kind in kinds if kind.id.startswith(f"{head}.")]


def _vector_label(at: str, n: str, kinds: Sequence[Kind]) -> Label:
    """Return the label of a vector ("q", "k", "v"), with its weight, bias, and what is computed from it."""
    parts = (n, f"{n}_weight", f"{n}_bias", f"{n}_norm", f"rot_{n}")
    return _label(f"{at}.{n}", n.upper(), [kind for kind in kinds if kind.short_name.partition(".")[0] in parts])


def _label(id: str, name: str, kinds: Sequence[Kind]) -> Label:
    return Label(id, name, tuple(kind.id for kind in kinds))
