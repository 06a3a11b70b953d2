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
from worker.describe.hooks import value_patterns
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
class PromptFields:
    """A client's prompt: exactly one of `text`, `tokens` and `messages` is given."""

    text: str | None = None
    tokens: Sequence[int] | None = None
    messages: Sequence[Mapping[str, str]] | None = None  # each has a role and content
    add_special_tokens: bool | None = None  # None: what the tokenizer does with text; messages have the template's

    @property
    def given(self) -> str:
        """The name of the field that is given."""
        return "text" if self.text is not None else "messages" if self.messages is not None else "tokens"


@dataclass(frozen=True, kw_only=True)
class TraceFields(PromptFields):
    """A client's request for a trace, each field validated by itself."""

    model: ModelSpec
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
    model = model_of(fields, settings)
    return model, trace_of(model, fields, settings)


def model_of(fields: TraceFields, settings: Settings) -> Model:
    """Return the model of a request. Raises UnknownModelError, ConfigError and CheckpointError."""
    return models.resolve(fields.model, settings.models_dir, synthetic_seed=fields.weights)


def trace_of(model: Model, fields: TraceFields, settings: Settings) -> TraceRequest:
    """Return the canonical request of a model. Raises Invalid if the model cannot do what is requested."""
    tokens = tokenize(model, fields, settings)
    if not tokens:
        raise Invalid({fields.given: ["Must have at least 1 token."]})
    request = TraceRequest(
        model.reference,
        tuple(tokens),
        fields.generate,
        tuple(_capture(model, fields.capture)),
        fields.dtype,
    )
    _check_length(request)
    _check_capture(request)
    return request


def layout(fields: LayoutFields, settings: Settings) -> LayoutRequest:
    """Return the canonical request. Raises Invalid and ConfigError."""
    config = models.resolve_config(fields.model, settings.models_dir)
    most = describe(config).fixed_sizes["N"]
    tokens = fields.tokens or most
    if tokens > most:
        raise Invalid({"tokens": [f"Must be at most {most:,}, this model's number of positions."]})
    plan = Plan(config, tokens, fields.batch, fields.style)  # validates the rest
    return LayoutRequest(config, plan.tokens, plan.batch, plan.style)


def tokenize(model: Model, fields: PromptFields, settings: Settings) -> Sequence[int]:
    """Return the tokens of a prompt. Raises Invalid if its model has none for it, or if they are too many."""
    try:
        tokens = _encode(model, fields, settings)
    except TextError as error:
        raise Invalid({fields.given: [str(error)]}) from None
    if len(tokens) > settings.max_prompt_tokens:
        limit = f"Must have at most {settings.max_prompt_tokens:,} tokens (MAX_PROMPT_TOKENS)"
        raise Invalid({fields.given: [f"{limit}, but has {len(tokens):,}."]})
    size = model.architecture.fixed_sizes["V"]
    outside = next((token for token in tokens if token >= size), None)
    if outside is not None:
        raise Invalid({fields.given: [f"Token {outside} is out of range: this model's tokens are 0 to {size - 1}."]})
    return tokens


def _encode(model: Model, fields: PromptFields, settings: Settings) -> Sequence[int]:
    special, most = fields.add_special_tokens, settings.max_prompt_bytes
    if fields.messages is not None:
        return model.vocabulary.chat(fields.messages, add_special_tokens=special is True, max_bytes=most)
    if fields.text is None:
        return fields.tokens or ()
    nbytes = len(fields.text.encode())
    if nbytes > most:
        raise TextError(f"Must have at most {most:,} bytes (MAX_PROMPT_BYTES), but has {nbytes:,}.")
    return model.vocabulary.encode(fields.text, add_special_tokens=special is not False)


def _capture(model: Model, patterns: Sequence[str]) -> Sequence[str]:
    """Return the patterns with our names in place of TransformerLens's."""
    if not any("hook_" in pattern for pattern in patterns):
        return patterns
    names = [name for name, _ in model.architecture.all_values()]
    return list(dict.fromkeys(own for pattern in patterns for own in value_patterns(pattern, names)))


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
