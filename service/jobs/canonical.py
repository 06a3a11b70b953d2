"""From a client's fields to a canonical request: equal requests in different words become equal.

What no model can do is refused here; what takes too much, in limits.py.
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
    """A client's request for a trace, each field checked by itself; exactly one of `text` and `tokens` is given."""

    model: ModelSpec
    text: str | None = None
    tokens: Sequence[int] | None = None
    generate: Sampling | None = None
    capture: Sequence[str] = ("*",)
    dtype: str = "float32"
    weights: int | None = None  # the seed of synthetic weights; the model's own weights without one
    priority: Priority | None = None


@dataclass(frozen=True, kw_only=True)
class LayoutFields:
    """A client's request for a layout, each field checked by itself; `tokens` defaults to all the model can read."""

    model: ModelSpec
    tokens: int | None = None
    batch: int = 1
    style: Style = "columns"


def trace(fields: TraceFields, settings: Settings) -> tuple[Model, TraceRequest]:
    """The model and the canonical request. Raises Invalid, saying what is allowed."""
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
    """The canonical request. Raises Invalid and ConfigError."""
    config = models.resolve_config(fields.model, settings.models_dir)
    most = describe(config).fixed_sizes["N"]
    tokens = fields.tokens or most
    if tokens > most:
        raise Invalid({"tokens": [f"{tokens:,} are too many: this model has {most:,} positions."]})
    plan = Plan(config, tokens, fields.batch, fields.style)  # which checks the rest
    return LayoutRequest(config, plan.tokens, plan.batch, plan.style)


def _tokens(model: Model, fields: TraceFields, settings: Settings) -> Sequence[int]:
    if fields.text is not None:
        field, found = "text", _encoded(model, fields.text, settings)
    else:
        field, found = "tokens", fields.tokens or ()
    if not found:
        raise Invalid({field: ["It is empty: a model needs at least one token."]})
    if len(found) > settings.max_prompt_tokens:
        most = f"at most {settings.max_prompt_tokens:,} are read here (MAX_PROMPT_TOKENS)"
        raise Invalid({field: [f"It has {len(found):,} tokens, and {most}."]})
    size = model.architecture.fixed_sizes["V"]
    outside = next((token for token in found if token >= size), None)
    if outside is not None:
        raise Invalid({field: [f"{outside} is no token: this model's go from 0 to {size - 1}."]})
    return found


def _encoded(model: Model, text: str, settings: Settings) -> Sequence[int]:
    nbytes = len(text.encode())
    if nbytes > settings.max_prompt_bytes:
        most = f"at most {settings.max_prompt_bytes:,} are read here (MAX_PROMPT_BYTES)"
        raise Invalid({"text": [f"It has {nbytes:,} bytes, and {most}."]})
    try:
        return model.vocabulary.encode(text)
    except TextError as error:
        raise Invalid({"text": [str(error)]}) from None


def _check_length(request: TraceRequest) -> None:
    prompt, length, most = len(request.tokens), request.positions, describe(request.config).fixed_sizes["N"]
    if prompt > most:
        raise Invalid({"tokens": [f"The prompt has {prompt:,} tokens: this model reads at most {most:,}."]})
    if length > most:
        new, room = request.sampling.max_new_tokens, most - prompt + 1
        taken = f"{prompt:,} tokens and {new:,} new ones, of which the last is not fed, take {length:,} positions"
        why = f"{taken}: this model has {most:,}, so at most {room:,} new ones."
        raise Invalid({"generate.max_new_tokens": [why]})


def _check_capture(request: TraceRequest) -> None:
    if request.capture == ("*",):
        return
    names = [name for name, _ in describe(request.config).all_values()]
    for pattern in request.capture:
        if not any(captured(names, [pattern])):
            some = ", ".join([*names[:5], *names[-2:]])
            raise Invalid({"capture": [f"{pattern!r} matches no tensor: the names are {some} and so on."]})
