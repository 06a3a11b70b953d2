"""Tensors: which cells a slice takes, which bytes it reads, and each representation of them."""

from __future__ import annotations

from http import HTTPStatus
from types import EllipsisType
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices
from numpy.typing import NDArray

from service.problems import Invalid
from service.tensors import parse_slice, sliced_shape, span, stored

Body = dict[str, Any]
Index = int | slice | EllipsisType
OCTETS = {"Accept": "application/octet-stream"}
QUERIES = settings(max_examples=60, deadline=None)


def as_text(index: Index) -> str:
    if isinstance(index, slice):
        start, stop, step = ("" if part is None else str(part) for part in (index.start, index.stop, index.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
    return "..." if index is Ellipsis else str(index)


def keys(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[Index, ...]]:
    """What NumPy's basic indexing takes of a shape, but new axes."""
    found: st.SearchStrategy[Any] = basic_indices(shape, allow_ellipsis=True)
    return found.map(lambda key: key if isinstance(key, tuple) else (key,))


def texts(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[tuple[Index, ...], str]]:
    separators = st.sampled_from([",", ", ", " ,"])
    return st.tuples(keys(shape), separators).map(lambda drawn: (drawn[0], drawn[1].join(map(as_text, drawn[0]))))


shapes_and_texts = array_shapes(max_dims=4, max_side=6).flatmap(lambda shape: st.tuples(st.just(shape), texts(shape)))


def cells(shape: tuple[int, ...], dtype: str = "float32") -> NDArray[Any]:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


# ------------------------------------------------------------------------------------------------------ slices


@given(shapes_and_texts)
def test_a_slice_means_what_it_means_in_numpy(drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]]) -> None:
    shape, (key, text) = drawn
    array, parsed = cells(shape), parse_slice(text, shape)
    np.testing.assert_array_equal(array[parsed], array[key])
    assert sliced_shape(shape, parsed) == array[key].shape


@given(shapes_and_texts)
def test_a_span_is_from_the_first_cell_taken_to_the_last(
    drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]],
) -> None:
    shape, (key, text) = drawn
    taken = cells(shape, "int64")[key]
    expected = (taken.min(), taken.max() + 1) if taken.size else (0, 0)
    assert span(shape, parse_slice(text, shape)) == expected


@given(shapes_and_texts, st.sampled_from(["float32", "float16", "int32"]), st.integers(0, 3), st.integers(1, 7))
def test_a_stored_slice_is_the_bytes_of_its_cells_and_reads_no_others(
    drawn: tuple[tuple[int, ...], tuple[tuple[Index, ...], str]], dtype: str, before: int, piece: int
) -> None:
    shape, (key, text) = drawn
    array = cells(shape, dtype)
    offset, asked = before * 4, []
    content = bytes(offset) + array.tobytes() + b"what comes after"

    def read(start: int, stop: int) -> list[bytes]:
        asked.append((start, stop))
        return [content[n : min(n + piece, stop)] for n in range(start, stop, piece)]

    parsed = parse_slice(text, shape)
    slot = {"shape": list(shape), "dtype": dtype, "offset": offset}
    assert b"".join(stored(read, slot, parsed)) == np.ascontiguousarray(array[key]).tobytes()
    first, last = span(shape, parsed)
    assert asked == [(offset + first * array.itemsize, offset + last * array.itemsize)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,0,0", "the tensor has 2 axes"),
        ("...,0,...", "the tensor has 2 axes"),
        ("...,0,0,0", "the tensor has 2 axes"),
        ("3", "3 is outside an axis of 3"),
        ("-4", "-4 is outside an axis of 3"),
        ("0,999999999999999999", "999999999999999999 is outside an axis of 4"),
        ("::0", "a step of 0 goes nowhere"),
        ("a", "'a' is neither a number nor start:stop:step nor ..."),
        (",", "'' is neither"),
        ("0,", "'' is neither"),
        ("1.0", "'1.0' is neither"),
        ("+1", "'+1' is neither"),
        ("1:2:3:4", "'1:2:3:4' is neither"),
        ("None", "'None' is neither"),
        ("[0]", "'[0]' is neither"),
        ("٣", "'٣' is neither"),
        ("9" * 30, "is neither"),
        ("....", "'....' is neither"),
    ],
)
def test_what_is_no_slice_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_slice(text, (3, 4))
    [[message]] = refused.value.errors.values()
    assert message.startswith(f"{text!r}: ")
    assert why in message
    assert "Basic NumPy slicing of shape [3, 4] is allowed" in message


# -------------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="session")
def scores_url(sorted_letters: Body) -> str:
    """A tensor [B, H, T, T] = [1, 3, 11, 11] of which nearly half is −inf."""
    return f"/v1/traces/{sorted_letters['id']}/tensors/blocks.0.attn.scores"


@pytest.fixture(scope="session")
def scores(client: FlaskClient, scores_url: str) -> NDArray[np.float32]:
    answer = client.get(scores_url, headers=OCTETS)
    assert answer.headers["Tensor-Shape"] == "1,3,11,11"
    return np.frombuffer(answer.data, "<f4").reshape(1, 3, 11, 11)


@QUERIES
@given(drawn=texts((1, 3, 11, 11)))
def test_any_slice_is_answered_as_numpy_would(
    client: FlaskClient, scores: NDArray[np.float32], scores_url: str, drawn: tuple[tuple[Index, ...], str]
) -> None:
    key, text = drawn
    expected = scores[key]
    octets = client.get(scores_url, query_string={"slice": text}, headers=OCTETS)
    assert octets.status_code == HTTPStatus.OK
    assert octets.data == np.ascontiguousarray(expected).tobytes()
    assert octets.headers["Tensor-Shape"] == ",".join(map(str, expected.shape))
    assert octets.headers["Tensor-Dtype"] == "float32"
    assert octets.headers["Content-Length"] == str(expected.nbytes)
    assert octets.headers["Content-Type"] == "application/octet-stream"

    told = client.get(scores_url, query_string={"slice": text}).get_json()
    assert told["shape"] == list(expected.shape)
    values = np.array(told["data"], dtype=np.float64).reshape(expected.shape)  # null is read as NaN
    np.testing.assert_array_equal(np.where(np.isnan(values), -np.inf, values).astype(np.float32), expected)


def test_a_masked_cell_is_null(client: FlaskClient, scores_url: str, scores: NDArray[np.float32]) -> None:
    answer = client.get(f"{scores_url}?slice=0,0,1").get_json()
    seen, masked = answer.pop("data")[:2], client.get(f"{scores_url}?slice=0,0,1,2:").get_json()["data"]
    assert answer == {"name": "blocks.0.attn.scores", "shape": [11], "dtype": "float32"}
    assert np.array(seen, "<f4").tolist() == scores[0, 0, 1, :2].tolist()
    assert masked == [None] * 9
    assert client.get(f"{scores_url}?slice=0,0,0,10").get_json()["data"] is None


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("hook_embed", "embed"),
        ("hook_pos_embed", "pos_embed"),
        ("blocks.0.hook_resid_pre", "blocks.0.resid_pre"),
        ("blocks.1.ln1.hook_scale", "blocks.1.ln1.scale"),
        ("blocks.0.attn.hook_q", "blocks.0.attn.q"),
        ("blocks.2.attn.hook_attn_scores", "blocks.2.attn.scores"),
        ("blocks.2.attn.hook_pattern", "blocks.2.attn.pattern"),
        ("blocks.0.hook_attn_out", "blocks.0.attn_out"),
        ("blocks.0.mlp.hook_post", "blocks.0.mlp.post"),
        ("blocks.0.hook_mlp_out", "blocks.0.mlp_out"),
        ("ln_final.hook_scale", "ln_final.scale"),
    ],
)
def test_the_names_of_transformer_lens_are_known(
    client: FlaskClient, sorted_letters: Body, name: str, ours: str
) -> None:
    url = f"/v1/traces/{sorted_letters['id']}/tensors"
    theirs = client.get(f"{url}/{name}")
    assert (theirs.status_code, theirs.get_json()["name"]) == (HTTPStatus.OK, ours)
    assert theirs.get_json() == client.get(f"{url}/{ours}").get_json()


def test_tokens_are_whole_numbers(client: FlaskClient, sorted_letters: Body) -> None:
    answer = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/tokens").get_json()
    fed = [*sorted_letters["tokens"], *(step["token"] for step in sorted_letters["generated"][:-1])]
    assert (answer["dtype"], answer["data"]) == ("int32", [fed])


def test_half_precision_is_half_precision_in_bytes_and_the_same_numbers_in_json(
    client: FlaskClient, request_body: Body
) -> None:
    body = request_body | {"dtype": "float16", "capture": ["logits"]}
    id = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()["id"]
    octets = client.get(f"/v1/traces/{id}/tensors/logits?slice=0,::-2", headers=OCTETS)
    assert octets.headers["Tensor-Dtype"] == "float16"
    values = np.frombuffer(octets.data, "<f2").reshape(2, 20)
    told = client.get(f"/v1/traces/{id}/tensors/logits?slice=0,::-2").get_json()["data"]
    assert np.array(told, "<f2").tolist() == values.tolist()
    assert np.array(told, "<f4").tolist() == values.tolist()  # and no digit of them is lost


def test_json_holds_65536_cells_and_more_is_406_naming_what_holds_them(client: FlaskClient, request_body: Body) -> None:
    config = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 2, "vocab_size": 65_537}
    body = request_body | {"model": config, "tokens": [65_536], "capture": ["probs"]}
    id = client.post("/v1/traces", json=body, headers={"Prefer": "wait=30"}).get_json()["id"]
    url = f"/v1/traces/{id}/tensors/probs"
    assert client.get(f"{url}?slice=0,0,1:").get_json()["shape"] == [65_536]
    for headers in ({}, {"Accept": "application/json"}):
        answer = client.get(url, headers=headers)
        assert (answer.status_code, answer.content_type) == (HTTPStatus.NOT_ACCEPTABLE, "application/problem+json")
        assert answer.get_json()["detail"] == (
            "JSON holds up to 65,536 cells and this is 65,537; slice it: ask for application/octet-stream in Accept."
        )
    assert client.get(url, headers=OCTETS).headers["Content-Length"] == str(4 * 65_537)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/*", "application/json"),
        ("text/html, application/octet-stream;q=0.1", "application/octet-stream"),
        ("application/json;q=0.5, application/octet-stream", "application/octet-stream"),
    ],
)
def test_the_representation_is_the_one_that_the_client_likes_best(
    client: FlaskClient, scores_url: str, accept: str, content_type: str
) -> None:
    assert client.get(scores_url, headers={"Accept": accept}).content_type == content_type


def test_a_representation_that_there_is_not_is_406_listing_what_there_is(client: FlaskClient, scores_url: str) -> None:
    answer = client.get(scores_url, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.content_type) == (HTTPStatus.NOT_ACCEPTABLE, "application/problem+json")
    assert "ask for application/json or application/octet-stream in Accept" in answer.get_json()["detail"]


@pytest.mark.parametrize("text", ["0,3", "x", "0,0,0,0,0", ":" * 4, "1" * 201])
def test_a_bad_slice_is_422_naming_the_query(client: FlaskClient, scores_url: str, text: str) -> None:
    answer = client.get(scores_url, query_string={"slice": text})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (HTTPStatus.UNPROCESSABLE_ENTITY, ["slice"])


def test_an_unknown_tensor_is_404_telling_some_that_there_are(client: FlaskClient, sorted_letters: Body) -> None:
    answer = client.get(f"/v1/traces/{sorted_letters['id']}/tensors/blocks.3.attn.q")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.get_json()["detail"] == (
        f"There is no tensor 'blocks.3.attn.q' in this trace: it has {len(sorted_letters['tensors'])}, "
        "such as tokens, embed, pos_embed, blocks.0.resid_pre."
    )


@pytest.mark.parametrize("path", ["tensors", "tensors/probs"])
def test_an_unfinished_trace_has_no_tensors_yet(idle_client: FlaskClient, request_body: Body, path: str) -> None:
    id = idle_client.post("/v1/traces", json=request_body).get_json()["id"]
    answer = idle_client.get(f"/v1/traces/{id}/{path}")
    assert (answer.status_code, answer.content_type) == (HTTPStatus.CONFLICT, "application/problem+json")
    assert answer.get_json()["detail"] == "This trace has no tensors now: it is queued. Wait for it with Prefer: wait."
