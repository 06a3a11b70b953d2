"""What of a request decides its result: two that say the same in different words are one.

What no model can do is refused here; what takes too much, in bounds.py.
"""

from __future__ import annotations

from typing import Any

import worker.describe.architecture as architecture
import worker.models.models as models
from service.errors import Invalid
from service.jobs.broker import broker
from worker.layout.geometry import Plan
from worker.models.models import Model
from worker.models.tokens import TextError
from worker.trace.arena import captured
from worker.trace.sampling import Sampling, positions


def trace(wanted: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
    """The model, and what of a request decides the trace. Raises Invalid, saying what is allowed."""
    seed = wanted["weights"]["synthetic"] if "weights" in wanted else None
    model = models.resolve(wanted["model"], broker().settings.models_dir, synthetic_seed=seed)
    asked = model.canonical() | {
        "tokens": _tokens(model, wanted),
        "generate": wanted["generate"],
        "capture": [architecture.value_name(pattern) for pattern in wanted["capture"]],
        "dtype": wanted["dtype"],
    }
    _check_length(model, asked)
    _check_capture(model, asked)
    return model, asked


def layout(wanted: dict[str, Any]) -> dict[str, Any]:
    """What of a request decides the layout. Raises Invalid."""
    config = models.sizes(wanted["model"], broker().settings.models_dir)
    tokens = wanted["tokens"] or config.n_positions
    if tokens > config.n_positions:
        raise Invalid({"tokens": [f"{tokens:,} are too many: this model has {config.n_positions:,} positions."]})
    plan = Plan(config, tokens, wanted["batch"], wanted["style"])
    return {"config": config.to_mapping(), "tokens": plan.tokens, "batch": plan.batch, "style": plan.style}


def _tokens(model: Model, wanted: dict[str, Any]) -> list[int]:
    bounds = broker().settings
    if "text" in wanted:
        nbytes = len(wanted["text"].encode())
        if nbytes > bounds.max_prompt_bytes:
            most = f"at most {bounds.max_prompt_bytes:,} are read here (MAX_PROMPT_BYTES)"
            raise Invalid({"text": [f"It has {nbytes:,} bytes, and {most}."]})
        try:
            found = model.vocabulary.encode(wanted["text"])
        except TextError as error:
            raise Invalid({"text": [str(error)]}) from None
    else:
        found = wanted["tokens"]
    field = "text" if "text" in wanted else "tokens"
    if not found:
        raise Invalid({field: ["It is empty: a model needs at least one token."]})
    if len(found) > bounds.max_prompt_tokens:
        most = f"at most {bounds.max_prompt_tokens:,} are read here (MAX_PROMPT_TOKENS)"
        raise Invalid({field: [f"It has {len(found):,} tokens, and {most}."]})
    outside = next((token for token in found if token >= model.config.vocab_size), None)
    if outside is not None:
        raise Invalid({field: [f"{outside} is no token: this model's go from 0 to {model.config.vocab_size - 1}."]})
    return found


def _check_length(model: Model, asked: dict[str, Any]) -> None:
    prompt, sampling = len(asked["tokens"]), _sampling(asked)
    length, most = positions(prompt, sampling), model.config.n_positions
    if prompt > most:
        raise Invalid({"tokens": [f"The prompt has {prompt:,} tokens: this model reads at most {most:,}."]})
    if length > most:
        room = most - prompt + 1
        raise Invalid(
            {
                "generate.max_new_tokens": [
                    f"{prompt:,} tokens and {sampling.max_new_tokens:,} new ones, of which the last is not fed, "
                    f"take {length:,} positions: this model has {most:,}, so at most {room:,} new ones."
                ]
            }
        )


def _check_capture(model: Model, asked: dict[str, Any]) -> None:
    if asked["capture"] == ["*"]:
        return
    names = [name for name, _ in architecture.expand(architecture.VALUES, model.config.n_layer)]
    for pattern in asked["capture"]:
        if not any(captured(names, [pattern])):
            some = ", ".join([*names[:5], *names[-2:]])
            raise Invalid({"capture": [f"{pattern!r} matches no tensor: the names are {some} and so on."]})


def _sampling(asked: dict[str, Any]) -> Sampling:
    return Sampling(**(asked["generate"] or {}))
