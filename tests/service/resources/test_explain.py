"""Explanations over HTTP: values, operands and errors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from http import HTTPStatus
from math import inf, isinf
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from tests.checkpoints import SMALL, prefixed, values, write
from tests.conftest import Servers, running_worker
from tests.explanations import cell_value, operands, recompute, some_cells
from tests.nano import nano

Body = dict[str, Any]
OCTETS = {"Accept": "application/octet-stream"}
WAIT = {"Prefer": "wait=60"}


def explain(client: FlaskClient, trace: Body, block: str, cell: Any, **query: Any) -> TestResponse:
    at = cell if isinstance(cell, str) else ",".join(map(str, cell))
    return client.get(f"/v1/traces/{trace['id']}/explain", query_string={"block": block, "cell": at} | query)


def create(client: FlaskClient, body: Body) -> Body:
    answer = client.post("/v1/traces", json=body, headers=WAIT)
    assert (answer.status_code, answer.get_json()["status"]) == (HTTPStatus.OK, "done"), answer.text
    trace: Body = answer.get_json()
    return trace


def blocks_of(client: FlaskClient, trace: Body, **query: str) -> list[Body]:
    found: list[Body] = client.get(trace["layout"], query_string=query).get_json()["blocks"]
    return found


def number(value: float | None) -> float:
    return -inf if value is None else value


def check(block: Body, cell: Any, answer: Body, token: int) -> None:
    """Check that the operands are those of the layout and that they reproduce the value."""
    assert (answer["block"], answer["cell"]) == (block["id"], list(cell))
    given = answer["operands"]
    assert answer["total"] == len(given)
    assert {(operand["block"], tuple(operand["cell"])) for operand in given} == operands(block, cell, token)
    values = [number(operand["value"]) for operand in given]
    if not block["formula"] or block["formula"]["op"] == "input":
        return
    expected = recompute(block, cell, values)
    largest = max((abs(value) for value in (*values, expected) if not isinf(value)), default=0.0)
    assert number(answer["value"]) == pytest.approx(expected, rel=2e-6, abs=2e-6 * largest), (block["id"], cell)


def test_every_block_of_nano_gpt_is_explained(client: FlaskClient, sorted_letters: Body) -> None:
    @cache
    def tensor_of(name: str) -> Any:
        slot = sorted_letters["tensors"][name]
        content = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/{name}", headers=OCTETS).data
        return np.frombuffer(content, slot["dtype"]).reshape(slot["shape"])

    for n, block in enumerate(blocks_of(client, sorted_letters)):
        tensor = block["tensor"]["name"]
        tensors = nano() if block["role"] == "weight" else {tensor: tensor_of(tensor)}
        for cell in some_cells(block, n, 1):
            answer = explain(client, sorted_letters, block["id"], cell)
            assert answer.status_code == HTTPStatus.OK, answer.text
            check(
                block,
                cell,
                answer.get_json(),
                int(tensor_of("tokens")[0, cell[0]]) if block["id"] == "embedding" else 0,
            )
            assert number(answer.get_json()["value"]) == pytest.approx(cell_value(block, cell, tensors), rel=1e-7)


def test_blocks_of_gpt2_are_explained_with_their_weights(client: FlaskClient) -> None:
    trace = create(client, {"model": "gpt2", "tokens": [7, 50256, 11], "weights": {"synthetic": 3}})
    blocks = [block for block in blocks_of(client, trace, heads="11:12") if block["layer"] in (None, 0, 11)]
    for n, block in enumerate(blocks):
        cell = some_cells(block, n, 1)[-1]
        answer = explain(client, trace, block["id"], cell).get_json()
        check(block, cell, answer, [7, 50256, 11][cell[0]] if block["id"] == "embedding" else 0)


def test_an_explanation_has_the_documented_fields(client: FlaskClient, sorted_letters: Body) -> None:
    answer = explain(client, sorted_letters, "blocks.0.attn.heads.1.scores", "3,4,0", limit=4)
    body = answer.get_json()
    assert list(body) == ["block", "cell", "value", "formula", "operands", "total"]
    assert list(body["formula"]) == ["text", "latex"]
    assert [list(one) for one in body["operands"]] == [["block", "cell", "value"]] * 4
    assert [one["block"] for one in body["operands"]] == [f"blocks.0.attn.heads.1.{part}" for part in "qkqk"]
    assert body["total"] == 32
    assert (answer.headers["Cache-Control"], answer.headers["ETag"] != "") == (
        "public, max-age=31536000, immutable",
        True,
    )


def test_each_limit_and_cell_has_its_own_etag(client: FlaskClient, sorted_letters: Body) -> None:
    queries = [("3,4,0", {}), ("3,4,0", {"limit": 5}), ("3,4,0", {"limit": 6}), ("4,4,0", {})]
    tags = [explain(client, sorted_letters, "blocks.0.ln1.out", at, **query).headers["ETag"] for at, query in queries]
    assert len(set(tags)) == 4
    at = f"/v1/traces/{sorted_letters['id']}/explain?block=blocks.0.ln1.out&cell=3,4,0"
    assert client.get(at, headers={"If-None-Match": tags[0]}).status_code == HTTPStatus.NOT_MODIFIED


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("2,0,0", "Token 'B', given with the request: tokens[2] = 1"),
        ("8,0,0", "Token 'B', drawn from the probabilities at 7: tokens[8] = 1"),
    ],
)
def test_a_token_is_explained_as_given_or_drawn(client: FlaskClient, cell: str, text: str) -> None:
    trace = create(client, {"model": "nano-gpt", "text": "CABBAB", "generate": {"max_new_tokens": 6}})
    assert explain(client, trace, "tokens", cell).get_json()["formula"]["text"] == text


@pytest.mark.parametrize(
    ("body", "text"), [({"model": "nano-gpt", "text": "A"}, "A trained weight: "), (None, "A synthetic weight: ")]
)
def test_a_weight_is_explained_by_its_source(
    client: FlaskClient, request_body: Body, body: Body | None, text: str
) -> None:
    trace = create(client, body or request_body)
    answer = explain(client, trace, "blocks.1.mlp.in_weight", "3,4,0").get_json()
    assert answer["formula"]["text"].startswith(f"{text}h.1.mlp.c_fc.weight[4, 3] = ")
    assert (answer["operands"], answer["total"]) == ([], 0)


def test_half_precision_values_are_returned_as_stored(client: FlaskClient, request_body: Body) -> None:
    trace = create(client, request_body | {"dtype": "float16"})
    answer = explain(client, trace, "blocks.1.resid_mid", "1,2,0").get_json()
    halves = [one["value"] for one in (answer, *answer["operands"])]
    assert [float(np.float16(value)) for value in halves] == pytest.approx(halves, rel=1e-6)
    assert halves[0] == pytest.approx(halves[1] + halves[2], rel=2e-3, abs=1e-5)


def test_explanations_read_a_checkpoint_until_it_is_removed(idle_servers: Servers, tmp_path: Path) -> None:
    tensors = values(SMALL)
    write(tmp_path / "mine", prefixed(tensors))
    servers = replace(idle_servers, models_dir=str(tmp_path))
    client = create_app(servers.settings).test_client()
    with running_worker(servers):
        trace = create(client, {"model": "mine", "tokens": [3, 1, 4]})
    answer = explain(client, trace, "blocks.1.attn.heads.2.v", "2,5,0").get_json()
    weights = [one["value"] for one in answer["operands"][:-1:2]]
    assert weights == pytest.approx(tensors["h.1.attn.c_attn.weight"][:, 2 * 24 + 2 * 8 + 5].tolist(), rel=1e-7)
    block = next(one for one in blocks_of(client, trace) if one["id"] == answer["block"])
    check(block, (2, 5, 0), answer, 0)

    rmtree(tmp_path / "mine")
    gone = explain(client, trace, "blocks.1.attn.heads.2.v", "2,6,0")
    assert (gone.status_code, "no longer exist" in gone.get_json()["detail"]) == (HTTPStatus.CONFLICT, True)
    assert explain(client, trace, "blocks.1.resid_mid", "2,6,0").status_code == HTTPStatus.OK


# ------------------------------------------------------------------------------------------------------- errors


def test_values_that_were_not_captured_are_named(client: FlaskClient, request_body: Body) -> None:
    trace = create(client, request_body | {"capture": ["blocks.1.ln1.*", "blocks.0.attn.q"]})
    answer = explain(client, trace, "blocks.0.attn.heads.0.scores", "0,1,0")
    assert (answer.status_code, answer.content_type) == (HTTPStatus.CONFLICT, "application/problem+json")
    assert answer.get_json()["detail"] == (
        "Explaining a cell of blocks.0.attn.heads.0.scores needs values that this trace did not capture: "
        'add "blocks.0.attn.scores", "blocks.0.attn.k" to "capture".'
    )


def test_the_output_of_a_layer_is_read_as_the_input_of_the_next(client: FlaskClient, request_body: Body) -> None:
    trace = create(client, request_body | {"capture": ["blocks.1.*"]})
    answer = explain(client, trace, "blocks.1.ln1.mean", "1,0,0").get_json()
    assert answer["operands"][0]["block"] == "blocks.0.resid_post"
    assert answer["value"] == pytest.approx(np.mean([one["value"] for one in answer["operands"]]), abs=1e-7)


@pytest.mark.parametrize(
    ("block", "cell", "status", "detail"),
    [
        ("blocks.0.nothing", "0,0,0", 404, "There is no block 'blocks.0.nothing'. The trace's layout lists the blocks"),
        ("blocks.3.ln1.out", "0,0,0", 404, "layer must be from 0 to 2"),
        ("blocks.0.attn.heads.3.q", "0,0,0", 404, "head must be from 0 to 2"),
        ("embedding", "11,0,0", 422, "i from 0 to 10, j from 0 to 47, k from 0 to 0"),
        ("embedding", "0,0", 422, "three whole numbers i,j,k from 0, as in 3,4,0"),
        ("embedding", "0,-1,0", 422, "three whole numbers"),
        ("embedding", "0,0,1e3", 422, "three whole numbers"),
        ("embedding", "٣,0,0", 422, "three whole numbers"),
    ],
)
def test_an_unknown_block_or_cell_is_an_error_with_what_is_allowed(
    client: FlaskClient, sorted_letters: Body, block: str, cell: str, status: int, detail: str
) -> None:
    answer = explain(client, sorted_letters, block, cell)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert detail in answer.get_json()["detail"]
    assert ("errors" in answer.get_json()) == (status == HTTPStatus.UNPROCESSABLE_ENTITY)


@pytest.mark.parametrize(
    "query",
    [
        "block=embedding",
        "cell=0,0,0",
        "block=embedding&cell=0,0,0&limit=0",
        "block=embedding&cell=0,0,0&limit=x",
        "block=embedding&cell=0,0,0&more=1",
    ],
)
def test_an_invalid_query_names_its_field(client: FlaskClient, sorted_letters: Body, query: str) -> None:
    answer = client.get(f"/v1/traces/{sorted_letters['id']}/explain?{query}")
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert len(answer.get_json()["errors"]) == 1


def test_an_unfinished_trace_is_409_and_an_unknown_one_404(idle_client: FlaskClient, request_body: Body) -> None:
    trace = idle_client.post("/v1/traces", json=request_body).get_json()
    assert explain(idle_client, trace, "embedding", "0,0,0").status_code == HTTPStatus.CONFLICT
    assert explain(idle_client, {"id": "0" * 64}, "embedding", "0,0,0").status_code == HTTPStatus.NOT_FOUND
