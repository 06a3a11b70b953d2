"""Explanations: how one cell of a trace was computed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from flask import Response
from marshmallow import Schema, fields, validate
from numpy.typing import NDArray
from werkzeug.exceptions import Conflict, NotFound

import service.resources.traces as traces
from service.errors import Invalid
from service.http.blueprint import PREFER, Blueprint
from service.http.responses import immutable, json
from service.http.schemas.fields import QueryInteger
from service.http.schemas.problems import ProblemSchema
from service.jobs.broker import State, broker
from service.tensors.slices import View
from worker.describe.architecture import UnknownBlockError
from worker.explain.cell import Cell, CellError, Place, Sources, read_cell
from worker.explain.words import explain_cell
from worker.models.lookup import MissingWeightsError, Model
from worker.requests import TraceRequest
from worker.store.arrays import StoredArray
from worker.weights.base import Key, Weights

MAX_OPERANDS = 65_536
_CELL = re.compile(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*", re.ASCII)

blueprint = Blueprint("explain", __name__, url_prefix="/v1/traces", description="How one cell was computed")


class ExplainQuery(Schema):
    block = fields.String(
        required=True,
        validate=validate.Length(1, 200),
        metadata={"description": "the id of a block of the trace's layout", "example": "blocks.0.attn.heads.1.q"},
    )
    cell = fields.String(
        required=True, validate=validate.Length(1, 100), metadata={"description": "its i,j,k", "example": "3,4,0"}
    )
    limit = QueryInteger(
        validate=validate.Range(1, MAX_OPERANDS),
        metadata={"description": "the maximum number of operands, largest contributions first; terms are not split"},
    )


class OperandSchema(Schema):
    """A cell that the explained cell was computed from; −inf, where attention is masked, is null."""

    block = fields.String(required=True)
    cell = fields.List(fields.Integer(), required=True)
    value = fields.Float(required=True, allow_none=True)


class WordsSchema(Schema):
    text = fields.String(required=True)
    latex = fields.String(required=True)


class ExplanationSchema(OperandSchema):
    """A cell, its formula with the numbers filled in, and its operands; `total` counts those beyond `limit`, too."""

    formula = fields.Nested(WordsSchema, required=True)
    operands = fields.List(fields.Nested(OperandSchema), required=True)
    total = fields.Integer(required=True)


@blueprint.get("/<trace_id>/explain")
@blueprint.arguments(ExplainQuery, location="query")
@blueprint.example(query={"block": "blocks.0.attn.heads.1.q", "cell": "4,2,0", "limit": 3})
@blueprint.headers(PREFER)
@blueprint.response(200, ExplanationSchema)
@blueprint.alt_response(304, description="The cached copy is current", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(409, schema=ProblemSchema)
def explain(query: dict[str, Any], trace_id: str) -> Response:
    """Explain how one cell of a finished trace was computed: the formula, the numbers and the cells that they are from.

    Blocks and cells are those of the trace's layout. The operands reproduce the value to float32's rounding; `limit`
    shortens a long sum, keeping the largest contributions. Only the weights that the cell needs are read.
    """
    state, at = traces.done(trace_id), _parse_cell(query["cell"])
    model, limit = traces.model_of(state), query.get("limit")
    cell = _read_cell(state, model, query["block"], at)
    shown = MAX_OPERANDS if limit is None and cell.total > MAX_OPERANDS else limit
    formula = explain_cell(cell, _origin(cell, state, model))
    operands = [{"block": block, "cell": place, "value": value} for block, place, value in cell.operands(shown)]
    body = {"block": cell.block.id, "cell": at, "value": cell.value, "formula": formula._asdict()}
    response = json(body | {"operands": operands, "total": cell.total})
    return immutable(response, state, "explain", cell.block.id, str(at), str(limit))


def _parse_cell(text: str) -> Place:
    match = _CELL.fullmatch(text)
    if match is None:
        raise Invalid({"cell": [f"{text!r} is not a cell: must be three whole numbers i,j,k from 0, as in 3,4,0."]})
    i, j, k = map(int, match.groups())
    return i, j, k


def _read_cell(state: State[TraceRequest], model: Model, id: str, at: Place) -> Cell:
    """Return a cell with its operands.

    Raises NotFound (404) if there is no such block, Invalid (422) if the block has no such cell, and Conflict (409) if
    the trace did not capture the values or the weights are gone.
    """
    tensors, length = state.manifest["tensors"], state.request.positions
    try:
        block = model.architecture.find(id)
        missing = [name for name in block.values if _captured_name(model, tensors, name) is None]
        if missing:
            raise _not_captured(id, missing)
        return read_cell(model.config, length, id, at, Sources(_Weights(model), _Values(model, state)))
    except UnknownBlockError as error:
        raise NotFound(str(error)) from None
    except CellError as error:
        raise Invalid({"cell": [str(error)]}) from None
    except MissingWeightsError as error:
        raise Conflict(f"This cell cannot be explained now: {error}.") from None


def _not_captured(id: str, missing: list[str]) -> Conflict:
    names = ", ".join(f'"{name}"' for name in missing)
    return Conflict(
        f'Explaining a cell of {id} needs values that this trace did not capture: add {names} to "capture".'
    )


class _Values:
    """Reads slices of a trace's tensors; float16 is widened to float32."""

    def __init__(self, model: Model, state: State[TraceRequest]) -> None:
        self.model = model
        self.run, self.tensors = broker().bytes_of(state), state.manifest["tensors"]

    def __call__(self, name: str, key: Key) -> NDArray[Any]:
        slot = self.tensors[_captured_name(self.model, self.tensors, name)]
        array = StoredArray(self.run, tuple(slot["shape"]), np.dtype(slot["dtype"]), slot["offset"])
        values = np.concatenate([part.ravel() for _, part in View(array, key).parts()])
        return values.astype(np.float32) if values.dtype == np.float16 else values


class _Weights:
    """Reads slices of a model's weights, opened on the first read. Raises MissingWeightsError if they are gone."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.opened: Weights | None = None

    def __call__(self, name: str, key: Key) -> NDArray[Any]:
        if self.opened is None:
            self.opened = self.model.weights()
        return self.opened.read(name, key)


def _captured_name(model: Model, tensors: dict[str, Any], name: str) -> str | None:
    """Return the name under which a trace has a value, as a layer's output is the input of the next; None without."""
    return next((same for same in model.architecture.same_values(name) if same in tensors), None)


def _origin(cell: Cell, state: State[TraceRequest], model: Model) -> str:
    """Describe where a value that was not computed comes from; empty for a computed one."""
    if cell.block.kind.role == "weight":
        return f"A {'weight of a checkpoint' if model.source == 'checkpoint' else f'{model.source} weight'}"
    if cell.formula is None or cell.formula.op != "input":
        return ""
    position, prompt = cell.at[0], len(state.request.tokens)
    text = model.vocabulary.piece(int(cell.value)).decode(errors="replace")
    origin = "given with the request" if position < prompt else f"drawn from the probabilities at {position - 1}"
    return f"Token {text!r}, {origin}" if text else f"A token {origin}"
