"""Layouts: the position and content of every block of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
from flask import Response, request
from flask.views import MethodView
from werkzeug.exceptions import NotFound

import service.http.compression as compression
import service.http.event_stream as event_stream
import service.jobs.canonical as canonical
import worker.layout.describe as describe
import worker.models.lookup as models
import worker.store.stored_bytes as stored_bytes
from service.errors import Invalid
from service.http.auth import admit, client
from service.http.blueprint import PREFER, Blueprint, other_media_types
from service.http.large_reads import large_reads
from service.http.negotiation import representation
from service.http.responses import JSON, client_has, immutable, respond
from service.http.schemas.layouts import LayoutQuery, LayoutRequestSchema, LayoutSchema
from service.http.schemas.problems import ProblemSchema
from service.http.shared_bytes import shared_bytes
from service.jobs.broker import State, broker
from service.jobs.canonical import LayoutFields
from service.tensors.slices import parse_range
from worker.describe.outline import outline
from worker.layout.encode import COLUMNS, safetensors
from worker.layout.geometry import Geometry
from worker.layout.gltf import INSTANCE_BYTES, glb
from worker.layout.gltf import MEDIA_TYPE as GLB
from worker.requests import LayoutRequest
from worker.store.safetensors import MEDIA_TYPE as SAFETENSORS

MAX_JSON_BLOCKS = 20_000
MAX_FILE_BYTES = 512 << 20  # of a layout in one file; a larger one is read by layers
_MAX_LINKS = 10_000
_MAX_SMALL_JSON = 4_000  # blocks; more in JSON are a large read
_MAX_SMALL_FILE = 1 << 20  # bytes; a larger file is a large read
_BLOCK_BYTES = sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in COLUMNS.values())

blueprint = Blueprint("layouts", __name__, url_prefix="/v1/layouts", description="The position of every block")


@blueprint.post("")
@blueprint.arguments(LayoutRequestSchema)
@blueprint.example(body={"model": "nano-gpt", "tokens": 11}, headers={"Prefer": "wait=10"})
@blueprint.headers(PREFER)
@blueprint.response(202, LayoutSchema, description="Accepted; the layout is at the Location")
@blueprint.alt_response(200, schema=LayoutSchema, description="It has ended", success=True)
@blueprint.alt_response(404, schema=ProblemSchema)
def create(fields: LayoutFields) -> Response:
    """Create the layout of a model over a number of tokens. Equal requests are the same layout.

    Every block of the model gets a position; a cell is a cube with edges of 1.5. A model of any allowed size can be
    laid out, with or without weights.
    """
    settings = broker().settings
    state = broker().submit(canonical.layout(fields, settings), settings.layout_timeout, client=client())
    return respond(state, _represent, created=True)


@blueprint.route("/<layout_id>")
class Layout(MethodView):
    """One layout."""

    @blueprint.arguments(LayoutQuery, location="query")
    @blueprint.example(query={"layers": "0:1", "fields": "id,position,size"})
    @blueprint.headers(PREFER)
    @blueprint.doc(**other_media_types(SAFETENSORS, GLB))
    @blueprint.response(200, LayoutSchema)
    @blueprint.alt_response(304, description="The cached copy is current", success=True)
    @blueprint.alt_response(404, schema=ProblemSchema)
    @blueprint.alt_response(406, schema=ProblemSchema)
    def get(self, query: dict[str, Any], layout_id: str) -> Response:
        """Read a layout: JSON, by layers and fields; columns of numbers as safetensors; boxes as a GLB.

        `position` is the corner of a block with the smallest x (right), y (down) and z (toward the viewer);
        `tensor.index` locates each cell's value in a tensor of the trace; `formula` describes how it is computed.

        In the GLB (EXT_mesh_gpu_instancing) each layer is a node with its own origin. A block is the box from the
        node's translation + TRANSLATION to SCALE beyond that, in the same units and directions; the root turns y up.
        `_ID` is the block's row in the columns. Its id is made of `_KIND`, an index into `kinds` in the root's extras,
        `_HEAD` and the node's `layer`.
        """
        media_type = representation(JSON, SAFETENSORS, GLB)
        state = _find(layout_id)
        if state.status != "done" or media_type == JSON:
            return respond(state, lambda state: _represent(state, query))
        return _file(state, query, media_type)


@event_stream.route(blueprint, "/<layout_id>/events")
def watch(layout_id: str) -> Response:
    """Watch a layout as it is computed: queued, started, progress; then done, failed or cancelled, the last event.

    These are server-sent events, as EventSource reads them. A client that connects late gets all of them; one that
    sends `Last-Event-ID` gets those after that event.
    """
    return event_stream.stream(_find(layout_id))


def _find(layout_id: str) -> State[LayoutRequest]:
    state = broker().find(LayoutRequest, layout_id, admit=admit)
    if state is None:
        raise NotFound(f"There is no layout {layout_id!r}.")
    return state


def _represent(state: State[LayoutRequest], query: dict[str, Any] | None = None) -> dict[str, Any]:
    body = {"model": models.id_of(state.request.config)} | state.request.to_json()
    if state.status != "done":
        return body
    geometry = _geometry(state)
    layers, heads = _selected(geometry, query or {})
    fields = _fields(query or {})
    body |= {
        "cell": geometry.cell,
        "margin": geometry.margin,
        "count": geometry.count,
        "bounds": geometry.bounds._asdict(),
        "architecture": outline(geometry.architecture),
    }
    if geometry.count_in(layers, heads) > MAX_JSON_BLOCKS:
        links = list(islice(_links(state.id, geometry, layers, heads), _MAX_LINKS))
        return body | {"blocks": None, "groups": None, "links": links}
    with large_reads().take() if geometry.count_in(layers, heads) > _MAX_SMALL_JSON else nullcontext():
        blocks = list(describe.blocks(geometry, layers, heads, fields))
    return body | {"blocks": blocks, "groups": describe.groups(geometry, layers, heads)}


def _file(state: State[LayoutRequest], query: dict[str, Any], media_type: str) -> Response:
    geometry = _geometry(state)
    for name in ("heads", "fields_"):
        if name in query:
            raise Invalid({name.rstrip("_"): [f"Not allowed for {media_type}: only layers can be selected."]})
    layers, _ = _selected(geometry, query)
    nbytes = geometry.count_in(layers) * (INSTANCE_BYTES if media_type == GLB else _BLOCK_BYTES)
    if nbytes > MAX_FILE_BYTES:
        size = f"The file would take {nbytes:,} bytes; at most {MAX_FILE_BYTES:,} are allowed"
        raise Invalid({"layers": [f"{size}: select fewer layers."]})
    query_string, coding = request.query_string.decode(), request.environ.get("HTTP_ACCEPT_ENCODING") or "identity"
    if client_has(media_type, state.id, query_string):
        return immutable(Response(content_type=media_type), state, query_string)

    def content() -> bytes:
        with large_reads().take() if nbytes > _MAX_SMALL_FILE else nullcontext():
            chunks = glb(geometry, layers) if media_type == GLB else [safetensors(geometry, layers)]
            return compression.compress(b"".join(chunks), coding)

    key = (state.id, media_type, f"{layers.start}:{layers.stop}", coding)
    response = Response(shared_bytes().get(key, content), content_type=media_type)
    return compression.mark(immutable(response, state, query_string), coding)


def _geometry(state: State[LayoutRequest]) -> Geometry:
    """Return the geometry that the worker stored."""
    manifest = state.manifest
    content = stored_bytes.read(broker().bytes_of(state), 0, manifest["size"])
    arrays = {}
    for name, slot in manifest["arrays"].items():
        count = int(np.prod(slot["shape"]))
        arrays[name] = np.frombuffer(content, slot["dtype"], count, slot["offset"]).reshape(slot["shape"])
    return Geometry.from_arrays(arrays)


def _selected(geometry: Geometry, query: dict[str, Any]) -> tuple[range, range]:
    layers = parse_range("layers", query.get("layers", ":"), geometry.architecture.n_layer)
    return layers, parse_range("heads", query.get("heads", ":"), geometry.sizes["H"])


def _fields(query: dict[str, Any]) -> list[str] | None:
    if "fields_" not in query:
        return None
    fields = [field.strip() for field in query["fields_"].split(",")]
    unknown = [field for field in fields if field not in describe.FIELDS]
    if unknown:
        raise Invalid({"fields": [f"Unknown field {unknown[0]!r}: must be one of {', '.join(describe.FIELDS)}."]})
    return fields


def _links(id: str, geometry: Geometry, layers: range, heads: range) -> Iterator[str]:
    """Yield links to the parts of a large layout, each small enough for JSON: some layers, or some heads of one."""
    per_head = sum(run.length for run in geometry.runs if run.group is not None)
    others = len(geometry.kinds) - per_head  # at most: a layer's blocks outside its heads, and both ends of the model
    whole_layers = MAX_JSON_BLOCKS // (others + per_head * len(heads))
    n_layers, n_heads = (whole_layers, len(heads)) if whole_layers else (1, (MAX_JSON_BLOCKS - others) // per_head)
    for layer in layers[::n_layers]:
        for head in heads[::n_heads]:
            layer_stop, head_stop = min(layer + n_layers, layers.stop), min(head + n_heads, heads.stop)
            selection = "" if head_stop - head == geometry.sizes["H"] else f"&heads={head}:{head_stop}"
            yield f"/v1/layouts/{id}?layers={layer}:{layer_stop}{selection}"
