"""Exports: models and traces in the formats of other programs."""

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
from service.http.large_reads import large_reads
from service.http.responses import JSON, immutable, octets, revalidated
from service.http.schemas.models import WeightsQuery
from service.http.schemas.problems import ProblemSchema
from service.jobs.broker import broker
from service.tensors.llm_viz import Tensor
from worker.describe.config import Config
from worker.families.gpt2 import GPT2Config

blueprint = Blueprint(
    "exports", __name__, url_prefix="/v1", description="Models and traces in the formats of other programs"
)

_FILE = {
    "type": "object",
    "description": "`config`, and every tensor under its name",
    "properties": {
        "config": {
            "type": "object",
            "description": "minGPT's: block_size is n_positions; for a trace, B is the number of sequences",
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
@blueprint.alt_response(304, description="The cached copy is current", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def model(query: dict[str, Any], model_id: str) -> Response:
    """Export a model for the LLM Visualization page: its weights under minGPT's names, linear ones as (out, in).

    The page accepts only the sizes of nano-gpt. Values are base64 of little-endian float32.
    """
    resolved = models.resolve(model_id, broker().settings.models_dir, synthetic_seed=query.get("synthetic"))
    config = _supported("model", resolved.config)

    def make() -> Response:
        response = _file("model", resolved.id, config, llm_viz.model_tensors(config, resolved.weights()))
        return revalidated(response, resolved.digest, str(resolved.config), "llm-viz")

    return large_reads().respond(make)


@blueprint.get("/traces/<trace_id>/llm-viz")
@blueprint.headers(PREFER)
@blueprint.response(200, _FILE)
@blueprint.alt_response(304, description="The cached copy is current", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(409, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def trace(trace_id: str) -> Response:
    """Export a finished trace for the LLM Visualization page: the first layer's values, and the output of each layer.

    The names are the page's own: idx, tok_emb, pos_emb, x, ln1, q, k, v, att, attSm, y, block0 and so on.
    """
    state = traces.done(trace_id)
    model, slots = traces.model_of(state), state.manifest["tensors"]
    config = _supported("trace", model.config)
    missing = [name for name in llm_viz.trace_values(config.n_layer).values() if name not in slots]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise Conflict(f"This trace did not capture {names}, which the export needs: capture them, too.")
    read = partial(stored_bytes.read, broker().bytes_of(state))
    tensors = llm_viz.trace_tensors(config.n_layer, slots, read)
    return large_reads().respond(lambda: immutable(_file("trace", model.id, config, tensors, B=1), state, "llm-viz"))


def _supported(field: str, config: Config) -> GPT2Config:
    """Return a configuration that the format can express. Raises Invalid (422) for any other."""
    if not isinstance(config, GPT2Config):
        raise Invalid({field: [f"This format supports only {GPT2Config.model_type}, not {config.model_type}."]})
    unlike = llm_viz.unsupported(config)
    if unlike:
        raise Invalid({field: [f"This format cannot express the sizes of this model: {unlike}."]})
    return config


def _file(field: str, model_id: str, config: GPT2Config, tensors: Iterable[Tensor], **extra: Any) -> Response:
    """Return the file. Raises Invalid (422) if it would be too large; the error is reported for `field`."""
    header, listed = llm_viz.config(model_id, config, **extra), list(tensors)
    size, limit = llm_viz.size(header, listed), broker().settings.max_export_bytes
    if size > limit:
        raise Invalid(
            {field: [f"The export would take {size:,} bytes; at most {limit:,} are allowed (MAX_EXPORT_BYTES)."]}
        )
    return octets(llm_viz.file(header, listed), size, JSON)
