"""Models: configurations, parameter counts and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any
from urllib.parse import quote

import numpy as np
from flask import Response
from flask.views import MethodView
from numpy.typing import NDArray

import service.http.tensor_responses as tensor_responses
import service.jobs.canonical as canonical
import service.tensors.weight_list as weight_list
import worker.describe.counts as counts
import worker.models.lookup as models
from service.errors import Invalid
from service.http.blueprint import Blueprint, other_media_types
from service.http.large_reads import large_reads
from service.http.responses import JSON, revalidated
from service.http.schemas.models import ModelSchema, ModelsSchema, WeightQuery, WeightsQuery
from service.http.schemas.problems import ProblemSchema
from service.http.schemas.tensors import TensorsSchema, TensorValuesSchema
from service.http.schemas.tokens import TokenizeRequestSchema, TokensSchema
from service.jobs.broker import broker
from service.jobs.canonical import PromptFields
from service.tensors.encode import BINARY
from service.tensors.slices import View, parse_slice
from worker.models.checkpoints import BeingReadError, CheckpointError
from worker.models.lookup import Model, UnknownModelError
from worker.models.sources import catalogue
from worker.models.tokens import Vocabulary
from worker.store.arrays import Axes
from worker.weights.base import Weights

#: Of a slice of a weight, so that no request takes hours; every weight of every preset is smaller.
MAX_CELLS = 1 << 30
_MAX_SMALL_READ = 1 << 22  # values of a slice; a larger one is a large read
_MAX_SMALL_LIST = 10_000  # weights of a model; a longer list is a large read

blueprint = Blueprint("models", __name__, url_prefix="/v1/models", description="Models and their weights")


def describe(model: Model) -> dict[str, Any]:
    """Return a model as JSON. Raises CheckpointError."""
    preset, vocabulary = model.preset, model.vocabulary
    described: dict[str, Any] = {"kind": vocabulary.kind, "size": vocabulary.size}
    if vocabulary.kind == "letters":
        described["tokens"] = [vocabulary.piece(token).decode() for token in range(vocabulary.size)]
    return {
        "id": model.id,
        "name": preset.name if preset else model.id,
        "family": preset.series if preset else model.config.model_type,
        "model_type": model.config.model_type,
        "note": preset.note if preset else "",
        "config": model.config.to_mapping(),
        "parameters": counts.parameters(model.architecture),
        "weights": weights_of(model),
        "vocabulary": described,
    }


def weights_of(model: Model) -> dict[str, Any]:
    """Return the source, the digest and the link of a model's weights. Raises CheckpointError."""
    seed = f"?synthetic={model.seed}" if model.source == "synthetic" else ""
    link = None if model.lost else f"/v1/models/{quote(model.id, safe=',=')}/tensors{seed}"
    found: dict[str, Any] = {"source": model.source, "digest": model.digest, "note": model.note, "tensors": link}
    if model.checkpoint:
        found |= {"format": model.checkpoint.format, "dtypes": model.checkpoint.dtypes}
    return found


@blueprint.get("")
@blueprint.response(200, ModelsSchema)
def index() -> dict[str, Any]:
    """List the models: presets from small to large, then other checkpoints.

    `reading` has new checkpoints whose files are still being read, `problems` those that cannot be used. One of which
    only the tokenizer cannot be used is also a model, which takes tokens.

    Weights are `trained` (by this project), from a `checkpoint`, or `synthetic`: made from a seed, so that only their
    shapes are real.
    """
    listed, reading, problems = [], [], []
    for id in models.ids(_models_dir()):
        try:
            model = models.find(id, _models_dir())
            listed.append(describe(model))
            if model.vocabulary.problem:
                problems.append({"id": id, "detail": model.vocabulary.problem})
        except CheckpointError as error:
            problems.append({"id": id, "detail": str(error)})
        except BeingReadError as error:
            progress = {"done": error.done, "total": error.total, "unit": "bytes"}
            reading.append({"id": id, "detail": str(error), "progress": progress})
        except UnknownModelError:  # its folder was removed meanwhile
            continue
    return {"models": listed, "reading": reading, "problems": problems}


@blueprint.get("/<model_id>")
@blueprint.arguments(WeightsQuery, location="query")
@blueprint.example(path={"model_id": "nano-gpt"})
@blueprint.response(200, ModelSchema)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def get(query: dict[str, Any], model_id: str) -> dict[str, Any]:
    """Read a model: its sizes, its parameters by part and the source of its weights.

    The sizes are named as in the family's Hugging Face configuration class. Models with equal `digest` and sizes have
    equal weights. A configuration can take the place of the id: /v1/models/n_layer=3,n_head=3,n_embd=48.
    """
    return describe(_find(model_id, query))


@blueprint.get("/<model_id>/tensors")
@blueprint.arguments(WeightsQuery, location="query")
@blueprint.example(path={"model_id": "nano-gpt"})
@blueprint.response(200, TensorsSchema)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def list_tensors(query: dict[str, Any], model_id: str) -> Response:
    """List a model's weights, named and oriented as in the checkpoints of transformers.

    GPT-2's are those of GPT2Model, without the prefix `transformer.` of the language model.
    """
    model = _find(model_id, query)
    weights = catalogue(model.config)
    pieces = weight_list.pieces(weights.architecture, model.checkpoint.dtype if model.checkpoint else None)
    if len(weights) <= _MAX_SMALL_LIST:
        return Response(b"".join(pieces), content_type=JSON)
    return large_reads().respond(lambda: Response(pieces, content_type=JSON))


@blueprint.route("/<model_id>/tensors/<name>")
class Weight(MethodView):
    """One weight."""

    @blueprint.arguments(WeightQuery, location="query")
    @blueprint.example(path={"model_id": "gpt3-175b", "name": "h.95.mlp.c_fc.weight"}, query={"slice": "12287,49148:"})
    @blueprint.doc(**other_media_types(*BINARY))
    @blueprint.response(200, TensorValuesSchema)
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    def get(self, query: dict[str, Any], model_id: str, name: str) -> Response:
        """Read a weight, a slice of it or a smaller version, as for the tensors of a trace.

        Only what the slice needs is generated or read: a row of a matrix of GPT-3 costs no more than one of a small
        model.
        """
        model = _find(model_id, query)
        source = _Source(model.weights(), name, tensor_responses.find(catalogue(model.config), name, model.id))
        cells = prod(View(source, parse_slice(query["slice"], source.shape)).shape)
        if cells > MAX_CELLS:
            raise Invalid({"slice": [f"The slice has {cells:,} values; at most {MAX_CELLS:,} are allowed."]})
        identity = (model.digest, str(model.config), name, str(query))
        with large_reads().take() if cells > _MAX_SMALL_READ else nullcontext():
            response = tensor_responses.respond(name, source, query, *identity)  # reduced here, or streamed later
        return revalidated(response, *identity)


@blueprint.post("/<model_id>/tokenize")
@blueprint.arguments(TokenizeRequestSchema)
@blueprint.example(path={"model_id": "nano-gpt"}, body={"text": "CBA"})
@blueprint.response(200, TokensSchema)
@blueprint.alt_response(404, schema=ProblemSchema)
@blueprint.alt_response(422, schema=ProblemSchema)
def tokenize(fields: PromptFields, model_id: str) -> dict[str, Any]:
    """Tokenize a text or messages as a trace of the model does, without computing anything.

    `pieces` has every token, also those that the tokenizer or the chat template adds; these are `special`. Joined, the
    bytes of the others are the text. A token that holds only a part of a character has U+FFFD in its `text`.
    """
    model = models.resolve(model_id, _models_dir())
    return tokenized(canonical.tokenize(model, fields, broker().settings), model.vocabulary)


def tokenized(tokens: Sequence[int], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return tokens and their pieces as JSON."""
    pieces = [
        {
            "token": token,
            "text": piece.decode(errors="replace"),
            "bytes": list(piece),
            "special": vocabulary.is_special(token),
        }
        for token, piece in zip(tokens, vocabulary.pieces(tokens), strict=True)
    ]
    return {"tokens": tokens, "pieces": pieces}


def _find(model_id: str, query: dict[str, Any]) -> Model:
    return models.resolve(model_id, _models_dir(), synthetic_seed=query.get("synthetic"))


def _models_dir() -> str:
    return broker().settings.models_dir


@dataclass(frozen=True)
class _Source:
    """A weight as a source of slices; only the parts that are read are generated."""

    weights: Weights
    name: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float32, as which every weight is read."""
        return np.dtype("<f4")

    def cost(self, axes: Axes) -> int:
        """Return the number of bytes of a part."""
        return prod(map(len, axes)) * self.dtype.itemsize

    def parts(self, many: Iterable[Axes]) -> Iterator[NDArray[Any]]:
        """Yield one part after another."""
        for axes in many:
            key = [slice(axis.start, axis.stop, axis.step) for axis in axes]
            while key and axes[len(key) - 1] == range(self.shape[len(key) - 1]):
                key.pop()  # whole rows are generated faster
            yield self.weights.read(self.name, tuple(key)).astype(self.dtype, copy=False)
