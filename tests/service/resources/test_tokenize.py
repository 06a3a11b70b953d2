"""POST /v1/models/{id}/tokenize: the tokens of a text or of messages, for every kind of vocabulary."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import worker.models.tokenizer as tokenizer
from service.app import create_app
from service.settings import Settings
from tests.checkpoints import values, write
from tests.tokenizers import write_tokenizer
from worker.families.gpt2 import GPT2Config as Config

CONFIG = Config(n_layer=1, n_head=2, n_embd=8, n_positions=9, vocab_size=420)
HI = [{"role": "user", "content": "the cat"}]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A models folder with a checkpoint, whose tokenizer has a chat template, and one with a smaller vocabulary."""
    write(tmp_path / "mine", values(CONFIG), CONFIG)
    made = write_tokenizer(tmp_path / "mine", "byte_level", chat_template="{{ messages[0].content }}<|im_end|>")
    small = Config(**(CONFIG.to_mapping() | {"vocab_size": made.get_vocab()["<|begin_of_text|>"] + 1}))
    write(tmp_path / "small", values(small), small)
    write_tokenizer(tmp_path / "small", "byte_level")
    return tmp_path


@pytest.fixture
def client(models_dir: Path) -> FlaskClient:
    """A client of a service with that folder, without Redis and workers."""
    nowhere = "unix:///nowhere/redis.sock"
    settings = Settings(queue_url=nowhere, cache_url=nowhere, models_dir=str(models_dir), max_prompt_bytes=2000)
    return create_app(replace(settings, max_prompt_tokens=50)).test_client()


def tokenize(client: FlaskClient, id: str, **body: Any) -> TestResponse:
    return client.post(f"/v1/models/{id}/tokenize", json=body)


def pieces(response: TestResponse) -> list[tuple[int, str, bool]]:
    assert response.status_code == HTTPStatus.OK, response.text
    body = response.get_json()
    assert body["tokens"] == [piece["token"] for piece in body["pieces"]]
    return [(piece["token"], piece["text"], piece["special"]) for piece in body["pieces"]]


@pytest.mark.parametrize(
    ("id", "text", "expected"),
    [
        ("nano-gpt", "CBA", [(2, "C", False), (1, "B", False), (0, "A", False)]),
        ("gpt2", "Hello world", [(15496, "Hello", False), (995, " world", False)]),
        ("n_layer=1,n_head=2,n_embd=8", "!", [(0, "!", False)]),
        ("nano-gpt", "", []),
    ],
)
def test_text_is_tokenized_with_letters_and_byte_pairs(
    client: FlaskClient, id: str, text: str, expected: list[tuple[int, str, bool]]
) -> None:
    assert pieces(tokenize(client, id, text=text)) == expected


def test_text_and_messages_are_tokenized_with_a_checkpoints_tokenizer(client: FlaskClient) -> None:
    begin, *words = pieces(tokenize(client, "mine", text="the cat"))
    assert begin[1:] == ("<|begin_of_text|>", True)
    assert [text for _, text, special in words if not special] == ["the", " cat"]
    assert pieces(tokenize(client, "mine", text="the cat", add_special_tokens=False)) == words
    *same, end = pieces(tokenize(client, "mine", messages=HI))
    assert (same, end[1:]) == (words, ("<|im_end|>", True))
    assert pieces(tokenize(client, "mine", messages=HI, add_special_tokens=True)) == [begin, *same, end]


def test_a_piece_of_a_character_has_its_bytes(client: FlaskClient) -> None:
    body = tokenize(client, "gpt2", text="\U00010348").get_json()
    assert b"".join(bytes(piece["bytes"]) for piece in body["pieces"]).decode() == "\U00010348"
    assert {piece["text"] for piece in body["pieces"]} == {"\ufffd"}


@pytest.mark.parametrize(
    ("id", "body", "field", "message"),
    [
        ("mine", {}, "text", 'Exactly one of "text" and "messages" is required.'),
        ("mine", {"text": "a", "messages": HI}, "text", "Exactly one of"),
        ("mine", {"text": "a", "tokens": [1]}, "tokens", "Unknown field"),
        ("mine", {"text": "x" * 2001}, "text", "at most 2,000 bytes (MAX_PROMPT_BYTES), but has 2,001."),
        ("mine", {"text": "7" * 300}, "text", "at most 50 tokens (MAX_PROMPT_TOKENS), but has"),
        ("mine", {"messages": [HI[0] | {"content": "x" * 2001}]}, "messages", "makes more than 2,000 bytes of them"),
        ("small", {"text": "<tool>"}, "text", "is out of range: this model's tokens are 0 to"),
        ("gpt2", {"messages": HI}, "messages", "This model has no chat template"),
        ("nano-gpt", {"text": "D"}, "text", "'D' is not allowed: must be one of A, B, C."),
        ("n_layer=1,n_head=2,n_embd=8,vocab_size=9", {"text": "a"}, "text", 'no text vocabulary: send "tokens"'),
        ("n_layer=1,n_head=2,n_embd=8,vocab_size=9", {"messages": HI}, "messages", "no text vocabulary"),
    ],
)
def test_what_has_no_tokens_is_rejected(
    client: FlaskClient, id: str, body: dict[str, Any], field: str, message: str
) -> None:
    response = tokenize(client, id, **body)
    assert response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert message in response.get_json()["errors"][field][0]


def test_an_unknown_model_is_not_found(client: FlaskClient) -> None:
    assert tokenize(client, "nobody", text="a").status_code == HTTPStatus.NOT_FOUND


def test_a_tokenizer_that_others_occupy_is_unavailable(
    client: FlaskClient, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pieces(tokenize(client, "mine", text="the cat"))
    monkeypatch.setattr(tokenizer, "_SECONDS", 0.01)
    source = tokenizer.Source.find(models_dir / "mine")
    assert source is not None
    with tokenizer._process(source)._lock:
        response = tokenize(client, "mine", text="the cat")
    assert (response.status_code, response.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "5")
