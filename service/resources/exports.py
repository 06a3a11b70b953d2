"""Models and traces in the formats of other programs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from flask import Response
from werkzeug.exceptions import Conflict

import service.resources.traces as traces
import service.tensors.llm_viz as llm_viz
import worker.models.lookup as models
import worker.store.stored_bytes as stored_bytes
from service.errors import Invalid
from service.http.blueprint import PREFER, Blueprint
from service.http.responses import JSON, immutable, octets, revalidated
from service.http.schemas.models import WeightsQuery
from service.http.schemas.problems import ProblemSchema
from service.jobs.broker import broker
from service.tensors.llm_viz import Tensor
from worker.describe.config import Config
from worker.families.gpt2 import GPT2Config

blueprint = Blueprint("exports", __name__, url_prefix="/v1", description="In the formats of other programs")

_FILE = {
    "type": "object",
    "description": "`config`, and each tensor by its name",
    "properties": {
        "config": {
            "type": "object",
            "description": "minGPT's: block_size is n_positions; of a trace with B, its sequences",
            "properties": {name: {"type": "integer"} for name in ("n_layer", "n_head", "n_embd", "block_size")},
        }
    },
    "required": ["config"],
    "additionalProperties": {
        "type": "object",
        "properties": {
            "shape": {"type": "array", "items": {"type": "integer"}},
            "dtype": {"type": "string", "enum": ["torch.float32"]},
            "data": {"type": "string", "format": "byte", "description": "base64, little-endian, C order"},
        },
        "required": ["shape", "dtype", "data"],
    },
}


@blueprint.get("/models/<model_id>/llm-viz")
@blueprint.arguments(WeightsQuery, location="query")
@blueprint.example(path={"model_id": "nano-gpt"})
@blueprint.response(200, _FILE)
@blueprint.alt_response(304, description="What you have is still right", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def model(query: dict[str, Any], model_id: str) -> Response:
    """Read a model as the LLM Visualization page does: its weights under minGPT's names, linear ones (out, in).

    The page itself accepts the shape of nano-gpt alone. Values are base64 of little-endian float32.
    """
    found = models.resolve(model_id, broker().settings.models_dir, synthetic_seed=query.get("synthetic"))
    sizes = _expressible("model", found.config)
    response = _file("model", found.id, sizes, llm_viz.model_tensors(sizes, found.weights()))
    return revalidated(response, found.digest, str(found.config), "llm-viz")


@blueprint.get("/traces/<trace_id>/llm-viz")
@blueprint.headers(PREFER)
@blueprint.response(200, _FILE)
@blueprint.alt_response(304, description="What you have is still right", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(409, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def trace(trace_id: str) -> Response:
    """Read a finished trace as the LLM Visualization page does: the first layer's values, and what leaves each layer.

    The names are the page's own: idx, tok_emb, pos_emb, x, ln1, q, k, v, att, attSm, y, block0 and so on.
    """
    state = traces.done(trace_id)
    found, held = traces.recalled(state), state.manifest["tensors"]
    sizes = _expressible("trace", found.config)
    missing = [name for name in llm_viz.trace_values(sizes.n_layer).values() if name not in held]
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise Conflict(f"This trace did not capture {some}, which the page's file holds: ask for one that does.")
    read = partial(stored_bytes.read, broker().bytes_of(state))
    tensors = llm_viz.trace_tensors(sizes.n_layer, held, read)
    return immutable(_file("trace", found.id, sizes, tensors, B=1), state, "llm-viz")


def _expressible(what: str, config: Config) -> GPT2Config:
    """A configuration that the format has words for. 422 for any other."""
    if not isinstance(config, GPT2Config):
        only = f"{GPT2Config.model_type} alone, and this is {config.model_type}"
        raise Invalid({what: [f"This format is of {only}."]})
    unlike = llm_viz.unsupported(config)
    if unlike:
        raise Invalid({what: [f"This format has no words for its sizes: {unlike}."]})
    return config


def _file(what: str, model_id: str, sizes: GPT2Config, tensors: Iterable[Tensor], **more: Any) -> Response:
    config, all_of_them = llm_viz.config(model_id, sizes, **more), list(tensors)
    size, most = llm_viz.size(config, all_of_them), broker().settings.max_export_bytes
    if size > most:
        raise Invalid({what: [f"In this format it takes {size:,} bytes, and an export at most {most:,}."]})
    return octets(llm_viz.file(config, all_of_them), size, JSON)
