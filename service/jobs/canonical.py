"""Canonical requests, made from the fields that a client sends.

Requests that mean the same become equal. What a model cannot do is rejected here, what takes too much in limits.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import worker.models.lookup as models
from service.errors import Invalid
from service.settings import Settings
from worker.describe.architecture import value_name
from worker.families.registry import describe
from worker.layout.geometry import Plan
from worker.models.lookup import Model
from worker.models.tokens import TextError
from worker.requests import LayoutRequest, Style, TraceRequest
from worker.store.queues import Priority
from worker.trace.arena import captured
from worker.trace.sampling import Sampling

ModelSpec = str | Mapping[str, Any]  # a model's id or its configuration, which may be partial


@dataclass(frozen=True, kw_only=True)
class TraceFields:
    """A client's request for a trace, each field validated by itself; exactly one of `text` and `tokens` is given."""

    model: ModelSpec
    text: str | None = None
    tokens: Sequence[int] | None = None
    generate: Sampling | None = None
    capture: Sequence[str] = ("*",)
    dtype: str = "float32"
    weights: int | None = None  # the seed of synthetic weights; None for the model's own
    priority: Priority | None = None


@dataclass(frozen=True, kw_only=True)
class LayoutFields:
    """A client's request for a layout, each field validated by itself; `tokens` defaults to the model's maximum."""

    model: ModelSpec
    tokens: int | None = None
    batch: int = 1
    style: Style = "columns"


def trace(fields: TraceFields, settings: Settings) -> tuple[Model, TraceRequest]:
    """Return the model and the canonical request. Raises Invalid if the model cannot do what is requested."""
    model = models.resolve(fields.model, settings.models_dir, synthetic_seed=fields.weights)
    request = TraceRequest(
        model.reference,
        tuple(_tokens(model, fields, settings)),
        fields.generate,
        tuple(value_name(pattern) for pattern in fields.capture),
        fields.dtype,
    )
    _check_length(request)
    _check_capture(request)
    return model, request


def layout(fields: LayoutFields, settings: Settings) -> LayoutRequest:
    """Return the canonical request. Raises Invalid and ConfigError."""
    config = models.resolve_config(fields.model, settings.models_dir)
    most = describe(config).fixed_sizes["N"]
    tokens = fields.tokens or most
    if tokens > most:
        raise Invalid({"tokens": [f"Must be at most {most:,}, this model's number of positions."]})
    plan = Plan(config, tokens, fields.batch, fields.style)  # validates the rest
    return LayoutRequest(config, plan.tokens, plan.batch, plan.style)


def _tokens(model: Model, fields: TraceFields, settings: Settings) -> Sequence[int]:
    if fields.text is not None:
        field, tokens = "text", _encode(model, fields.text, settings)
    else:
        field, tokens = "tokens", fields.tokens or ()
    if not tokens:
        raise Invalid({field: ["Must have at least 1 token."]})
    if len(tokens) > settings.max_prompt_tokens:
        limit = f"Must have at most {settings.max_prompt_tokens:,} tokens (MAX_PROMPT_TOKENS)"
        raise Invalid({field: [f"{limit}, but has {len(tokens):,}."]})
    size = model.architecture.fixed_sizes["V"]
    outside = next((token for token in tokens if token >= size), None)
    if outside is not None:
        raise Invalid({field: [f"Token {outside} is out of range: this model's tokens are 0 to {size - 1}."]})
    return tokens


def _encode(model: Model, text: str, settings: Settings) -> Sequence[int]:
    nbytes = len(text.encode())
    if nbytes > settings.max_prompt_bytes:
        limit = f"Must have at most {settings.max_prompt_bytes:,} bytes (MAX_PROMPT_BYTES)"
        raise Invalid({"text": [f"{limit}, but has {nbytes:,}."]})
    try:
        return model.vocabulary.encode(text)
    except TextError as error:
        raise Invalid({"text": [str(error)]}) from None


def _check_length(request: TraceRequest) -> None:
    prompt, length, most = len(request.tokens), request.positions, describe(request.config).fixed_sizes["N"]
    if prompt > most:
        raise Invalid({"tokens": [f"Must have at most {most:,} tokens for this model, but has {prompt:,}."]})
    if length > most:
        new, room = request.sampling.max_new_tokens, most - prompt + 1
        needed = f"{prompt:,} prompt tokens and {new:,} new tokens need {length:,} positions"
        why = f"{needed} (the last new token is not fed back), but this model has {most:,}"
        raise Invalid({"generate.max_new_tokens": [f"Must be at most {room:,}: {why}."]})


def _check_capture(request: TraceRequest) -> None:
    if request.capture == ("*",):
        return
    names = [name for name, _ in describe(request.config).all_values()]
    for pattern in request.capture:
        if not any(captured(names, [pattern])):
            some = ", ".join([*names[:5], *names[-2:]])
            raise Invalid({"capture": [f"{pattern!r} matches no tensor: the names are {some} and so on."]})
