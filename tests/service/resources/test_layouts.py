"""Layouts over HTTP: JSON, parts, columns and boxes."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from redis import Redis
from safetensors.numpy import load
from werkzeug.test import TestResponse

from service.resources.layouts import MAX_JSON_BLOCKS
from tests.conftest import Servers
from tests.glb import Glb
from worker.layout.describe import FIELDS
from worker.store.connection import connect

Body = dict[str, Any]
WAIT = {"Prefer": "wait=60"}
COLUMNS = {"Accept": "application/x-safetensors"}
BOXES = {"Accept": "model/gltf-binary"}
NANO_BLOCKS = 4 + 3 * (5 + 3 * 14 + 17) + 10  # both ends of the model; per layer: first norm, 3 heads, the rest


def create(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post("/v1/layouts", json=body, headers=WAIT)


def done(client: FlaskClient, **body: Any) -> Body:
    """Create a layout, wait for it and return it, as a GET does."""
    created = create(client, **body)
    layout: Body = created.get_json()
    assert (created.status_code, layout["status"]) == (HTTPStatus.OK, "done"), created.text
    assert client.get(created.headers["Location"]).data == created.data
    return layout


def url(layout: Body, query: str = "") -> str:
    return f"/v1/layouts/{layout['id']}{query}"


def columns(answer: TestResponse) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arrays of a safetensors file, as read by the safetensors package, and its metadata."""
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert answer.content_type == "application/x-safetensors"
    header = json.loads(answer.data[8 : 8 + int.from_bytes(answer.data[:8], "little")])
    return load(answer.data), header["__metadata__"]


@pytest.fixture
def nano(client: FlaskClient) -> Body:
    return done(client, model="nano-gpt")


# ------------------------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize("style", ["columns", "llm-viz"])
@pytest.mark.parametrize("model", ["nano-gpt", "gpt2"])
def test_a_layout_has_every_block_once(client: FlaskClient, model: str, style: str) -> None:
    layout = done(client, model=model, style=style)
    config = layout["config"]
    ids = [block["id"] for block in layout["blocks"]]
    assert len(ids) == len(set(ids)) == layout["count"]
    assert (layout["model"], layout["style"], layout["tokens"]) == (model, style, config["n_positions"])
    assert {block["layer"] for block in layout["blocks"]} == {None, *range(config["n_layer"])}
    assert {block["head"] for block in layout["blocks"]} == {None, *range(config["n_head"])}
    assert all(set(block) == set(FIELDS) for block in layout["blocks"])


def test_the_size_of_a_block_is_its_cells_times_the_edge_of_a_cell(nano: Body) -> None:
    assert (nano["count"], nano["cell"], nano["margin"], nano["batch"]) == (NANO_BLOCKS, 1.5, 12.0, 1)
    for block in nano["blocks"]:
        assert block["size"] == [1.5 * cells for cells in block["cells"]]


def test_the_bounds_are_those_of_the_blocks(nano: Body) -> None:
    low = np.array([block["position"] for block in nano["blocks"]])
    high = low + [block["size"] for block in nano["blocks"]]
    np.testing.assert_allclose(low.min(0), nano["bounds"]["min"])
    np.testing.assert_allclose(high.max(0), nano["bounds"]["max"])


def test_formulas_and_groups_name_existing_blocks(nano: Body) -> None:
    ids = {block["id"] for block in nano["blocks"]}
    read = {given["block"] for block in nano["blocks"] if block["formula"] for given in block["formula"]["inputs"]}
    assert read <= ids
    assert {id for group in nano["groups"] for id in group["blocks"]} == ids


def test_the_layout_of_a_trace_matches_its_tensors(client: FlaskClient, sorted_letters: Body) -> None:
    layout = client.get(sorted_letters["layout"]).get_json()
    assert (layout["status"], layout["tokens"], layout["model"]) == ("done", 11, "nano-gpt")
    for block in layout["blocks"]:
        if block["role"] == "weight":
            continue
        shape = sorted_letters["tensors"][block["tensor"]["name"]]["shape"]
        corner = [size - 1 for size in block["cells"]]
        last = [np.dot(row[:3], corner) + row[3] for row in block["tensor"]["index"]]
        assert len(last) == len(shape)
        assert all(at < size for at, size in zip(last, shape, strict=True)), block["id"]


def test_the_layout_of_a_short_trace_has_only_its_tokens(client: FlaskClient, request_body: Body) -> None:
    trace = client.post("/v1/traces", json=request_body, headers=WAIT).get_json()
    assert client.get(trace["layout"]).get_json()["tokens"] == 3
    same = create(client, model=request_body["model"], tokens=3)
    assert same.headers["Location"] == trace["layout"]


def test_tokens_default_to_all_positions(client: FlaskClient, nano: Body) -> None:
    for same in ({"tokens": None}, {"tokens": 11}, {"batch": 1, "style": "columns"}):
        assert create(client, model="nano-gpt", **same).get_json()["id"] == nano["id"]
    assert create(client, model="nano-gpt", tokens=10).get_json()["id"] != nano["id"]


def test_a_layout_is_created_without_waiting(idle_client: FlaskClient) -> None:
    answer = idle_client.post("/v1/layouts", json={"model": "gpt2"})
    assert (answer.status_code, answer.get_json()["status"]) == (HTTPStatus.ACCEPTED, "queued")
    assert "blocks" not in answer.get_json()
    for headers in ({}, COLUMNS, BOXES):
        unfinished = idle_client.get(answer.headers["Location"], headers=headers)
        assert (unfinished.status_code, unfinished.get_json()["status"]) == (HTTPStatus.OK, "queued")
        assert unfinished.headers["Cache-Control"] == "no-store"


# ------------------------------------------------------------------------------------------------------- parts


def test_the_first_and_last_layers_include_the_ends_of_the_model(client: FlaskClient, nano: Body) -> None:
    parts = [client.get(url(nano, f"?layers={n}:{n + 1}")).get_json()["blocks"] for n in range(3)]
    assert [block for part in parts for block in part] == nano["blocks"]
    assert parts[0][0]["id"] == "tokens"
    assert parts[2][-1]["id"] == "probs"
    assert client.get(url(nano, "?layers=1:")).get_json()["blocks"] == parts[1] + parts[2]
    assert client.get(url(nano, "?layers=:1")).get_json()["blocks"] == parts[0]


def test_heads_exclude_only_other_heads(client: FlaskClient, nano: Body) -> None:
    expected = [block for block in nano["blocks"] if block["head"] in (None, 1, 2)]
    assert client.get(url(nano, "?heads=1:3")).get_json()["blocks"] == expected
    assert client.get(url(nano, "?heads=:")).get_json()["blocks"] == nano["blocks"]


def test_fields_select_keys_of_the_blocks(client: FlaskClient, nano: Body) -> None:
    blocks = client.get(url(nano, "?fields=id, position,size")).get_json()["blocks"]
    assert blocks == [{key: block[key] for key in ("id", "position", "size")} for block in nano["blocks"]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *((f"layers={bad}", "layers") for bad in ("3:4", "0:4", "1:1", "2:1", "-1:", "0", "a:b", "0:1:1", "", "1 :2")),
        *((f"heads={bad}", "heads") for bad in ("3:4", "0:4", "1:1", "x", "0:9999999999")),
        *((f"fields={bad}", "fields") for bad in ("colour", "id,,size", "")),
        ("layer=1", "layer"),
    ],
)
def test_an_invalid_selection_is_422_naming_the_parameter(
    client: FlaskClient, nano: Body, query: str, field: str
) -> None:
    answer = client.get(url(nano, f"?{query}"))
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    assert list(answer.get_json()["errors"]) == [field]


def test_a_layout_too_large_for_json_links_to_its_parts(client: FlaskClient) -> None:
    layout = done(client, model="gpt3-175b")
    assert layout["count"] > MAX_JSON_BLOCKS
    assert (layout["blocks"], layout["groups"]) == (None, None)
    ids: list[str] = []
    for link in layout["links"]:
        part = client.get(f"{link}&fields=id").get_json()["blocks"]
        assert len(part) <= MAX_JSON_BLOCKS
        ids += [block["id"] for block in part]
    assert len(ids) == len(set(ids)) == layout["count"]


def test_a_layer_too_large_for_json_is_linked_by_heads(client: FlaskClient) -> None:
    config = {"n_layer": 2, "n_head": 3000, "n_embd": 3000, "n_positions": 8}
    layout = done(client, model=config)
    ids: list[str] = []
    for link in layout["links"]:
        assert "&heads=" in link
        part = client.get(f"{link}&fields=id,head").get_json()["blocks"]
        assert len(part) <= MAX_JSON_BLOCKS
        ids += [block["id"] for block in part if block["head"] is not None or "heads=0:" in link]
    assert len(ids) == len(set(ids)) == layout["count"]


# ----------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize("style", ["columns", "llm-viz"])
@pytest.mark.parametrize("model", ["nano-gpt", "gpt2-medium"])
def test_columns_have_the_blocks_of_the_json(client: FlaskClient, model: str, style: str) -> None:
    layout = done(client, model=model, style=style)
    answer = client.get(url(layout), headers=COLUMNS)
    table, metadata = columns(answer)
    blocks = layout["blocks"]
    types = {"position": "<f8", "size": "<f8", "cells": "<i4"}
    for name, dtype in types.items():
        np.testing.assert_array_equal(table[name], [block[name] for block in blocks])
        assert table[name].dtype == dtype
    for name in ("layer", "head"):
        assert table[name].tolist() == [-1 if block[name] is None else block[name] for block in blocks]
    roles, kinds = json.loads(metadata["roles"]), json.loads(metadata["kinds"])
    assert [roles[n] for n in table["role"]] == [block["role"] for block in blocks]
    assert [
        kinds[kind]["id"].replace("{layer}", str(layer)).replace("{head}", str(head))
        for kind, layer, head in zip(table["kind"], table["layer"], table["head"], strict=True)
    ] == [block["id"] for block in blocks]
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    unchanged = client.get(url(layout), headers=COLUMNS | {"If-None-Match": answer.headers["ETag"]})
    assert unchanged.status_code == HTTPStatus.NOT_MODIFIED


def test_columns_can_be_read_by_layers(client: FlaskClient, nano: Body) -> None:
    table, _ = columns(client.get(url(nano, "?layers=1:2"), headers=COLUMNS))
    expected = [block["position"] for block in nano["blocks"] if block["layer"] == 1]
    assert table["position"].tolist() == expected


def test_the_columns_of_the_largest_preset_are_complete(client: FlaskClient) -> None:
    layout = done(client, model="gpt3-175b")
    table, _ = columns(client.get(url(layout), headers=COLUMNS))
    assert len(table["position"]) == layout["count"]
    np.testing.assert_allclose(table["position"].min(0), layout["bounds"]["min"])
    np.testing.assert_allclose((table["position"] + table["size"]).max(0), layout["bounds"]["max"])


@pytest.mark.parametrize(("query", "field"), [("heads=0:1", "heads"), ("fields=id", "fields"), ("layers=9:", "layers")])
def test_files_do_not_accept_heads_or_fields(client: FlaskClient, nano: Body, query: str, field: str) -> None:
    for headers in (COLUMNS, BOXES):
        answer = client.get(url(nano, f"?{query}"), headers=headers)
        assert (answer.status_code, list(answer.get_json()["errors"])) == (HTTPStatus.UNPROCESSABLE_ENTITY, [field])


def test_a_file_too_large_is_422_and_can_be_read_by_layers(client: FlaskClient) -> None:
    layout = done(client, model={"n_layer": 10_000, "n_head": 100, "n_embd": 100, "n_positions": 4})
    for headers in (COLUMNS, BOXES):
        whole = client.get(url(layout), headers=headers)
        assert (whole.status_code, list(whole.get_json()["errors"])) == (HTTPStatus.UNPROCESSABLE_ENTITY, ["layers"])
    table, _ = columns(client.get(url(layout, "?layers=9999:"), headers=COLUMNS))
    assert table["layer"].max() == 9999


def test_another_media_type_is_406_listing_the_available_ones(client: FlaskClient, nano: Body) -> None:
    answer = client.get(url(nano), headers={"Accept": "image/png"})
    assert answer.status_code == HTTPStatus.NOT_ACCEPTABLE
    assert "application/json or application/x-safetensors or model/gltf-binary" in answer.get_json()["detail"]


# ------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("query", ["", "?layers=0:1", "?layers=1:"])
@pytest.mark.parametrize("style", ["columns", "llm-viz"])
@pytest.mark.parametrize("model", ["nano-gpt", "gpt2-medium"])
def test_boxes_have_the_blocks_of_the_json(client: FlaskClient, model: str, style: str, query: str) -> None:
    layout = done(client, model=model, style=style)
    blocks = client.get(url(layout, query)).get_json()["blocks"]
    answer = client.get(url(layout, query), headers=BOXES)
    assert (answer.status_code, answer.content_type) == (HTTPStatus.OK, "model/gltf-binary"), answer.text
    file = Glb(answer.data)
    assert file.ids() == [block["id"] for block in blocks]
    position = np.concatenate([np.array(node["translation"]) + found["TRANSLATION"] for node, found in file.parts])
    size = np.concatenate([found["SCALE"] for _, found in file.parts])
    far = np.abs([corner for node, _ in file.parts for corner in node["translation"]]).max()
    np.testing.assert_allclose(position, [block["position"] for block in blocks], rtol=0, atol=far * 2.0**-23)
    np.testing.assert_array_equal(size, np.array([block["size"] for block in blocks], np.float32))


def test_boxes_are_cached_forever(client: FlaskClient, nano: Body) -> None:
    answer = client.get(url(nano), headers=BOXES)
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    unchanged = client.get(url(nano), headers=BOXES | {"If-None-Match": answer.headers["ETag"]})
    assert (unchanged.status_code, unchanged.data) == (HTTPStatus.NOT_MODIFIED, b"")
    others = [client.get(url(nano, query), headers=headers) for query, headers in (("?layers=:", BOXES), ("", COLUMNS))]
    assert answer.headers["ETag"] not in {other.headers["ETag"] for other in others}


# ------------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    "body",
    [
        {"model": {"n_layer": 10_000, "n_head": 1, "n_embd": 64}, "tokens": 1},
        {"model": {"n_embd": 1_000_000, "n_head": 1}, "tokens": 1_000},
        {"model": {"n_positions": 1_000_000}},
        {"model": "gpt2", "batch": 64},
        {
            "model": {"n_layer": 10_000, "n_head": 1_000, "n_embd": 1_000_000, "n_positions": 1_000_000},
            "batch": 64,
            "style": "llm-viz",
        },
    ],
)
def test_the_largest_models_are_laid_out(client: FlaskClient, body: Body) -> None:
    layout = done(client, **body)
    assert layout["count"] > 0
    assert all(low < high for low, high in zip(layout["bounds"]["min"], layout["bounds"]["max"], strict=True))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tokens": 12}, "tokens"),
        ({"tokens": 0}, "tokens"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"tokens": "11"}, "tokens"),
        ({"tokens": 2**70}, "tokens"),
        ({"batch": 0}, "batch"),
        ({"batch": 65}, "batch"),
        ({"batch": None}, "batch"),
        ({"style": "rows"}, "style"),
        ({"style": 1}, "style"),
        ({"colour": "red"}, "colour"),
        ({"model": {"n_layer": 10_001}}, "model.n_layer"),
        ({"model": {"n_embd": 1_000_001, "n_head": 1}}, "model.n_embd"),
        ({"model": {"n_positions": 1_000_001}}, "model.n_positions"),
        ({"model": {"n_head": 1_000_000, "d_head": 1_000_000}}, "model.d_head"),
        ({"model": None}, "model"),
    ],
)
def test_an_invalid_request_is_422_naming_the_field(client: FlaskClient, changes: Body, field: str) -> None:
    content = json.dumps({"model": "nano-gpt"} | changes)
    answer = client.post("/v1/layouts", data=content, content_type="application/json")
    assert (answer.status_code, answer.content_type) == (HTTPStatus.UNPROCESSABLE_ENTITY, "application/problem+json")
    assert list(answer.get_json()["errors"]) == [field]


@pytest.mark.parametrize("id", ["0" * 64, "nano-gpt", "0"])
def test_an_unknown_layout_is_404(client: FlaskClient, sorted_letters: Body, id: str) -> None:
    for headers in ({}, COLUMNS):
        for unknown in (id, sorted_letters["id"]):
            answer = client.get(f"/v1/layouts/{unknown}", headers=headers)
            assert (answer.status_code, answer.content_type) == (HTTPStatus.NOT_FOUND, "application/problem+json")


@pytest.mark.parametrize(
    ("lost", "tokens"), [("result:{id}", 7), ("result:{id}:0", 8)]
)  # tokens differ so that the layouts do
def test_a_layout_that_the_cache_lost_is_computed_again(
    client: FlaskClient, servers: Servers, request_body: Body, lost: str, tokens: int
) -> None:
    layout = done(client, model=request_body["model"], tokens=tokens)
    cache: Redis = connect(servers.cache_url)
    assert cache.delete(lost.format(id=layout["id"])) == 1
    again = client.get(url(layout)).get_json()
    assert again["status"] in ("queued", "running", "done")
    again = client.get(url(layout), headers=WAIT).get_json()
    assert again["blocks"] == layout["blocks"]
