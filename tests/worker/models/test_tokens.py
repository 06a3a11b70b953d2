"""Vocabularies: GPT-2's byte pairs, nano-gpt's letters, and ids without text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker.models.tokens as tokens
from tests.gpt2 import CONFIGS
from worker.families.gpt2 import GPT2Config as Config
from worker.models.tokens import Gpt2, Ids, Letters, TextError

GPT2 = Gpt2()


NANO_LETTERS = Letters("ABC")


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("Hello, world!", [15496, 11, 995, 0]),
        (" gazed", [50255]),  # the last merge
        ("", []),
        ("!", [0]),
        ("\n\n", [628]),
    ],
)
def test_text_has_gpt2s_tokens(text: str, ids: list[int]) -> None:
    assert GPT2.encode(text) == ids


def test_a_special_token_in_a_text_is_plain_text() -> None:
    ids = GPT2.encode("<|endoftext|>")
    assert 50256 not in ids
    assert b"".join(map(GPT2.piece, ids)) == b"<|endoftext|>"


def test_the_last_id_is_the_end_of_text() -> None:
    assert GPT2.piece(50256) == b"<|endoftext|>"


@settings(max_examples=150)
@given(st.text())
def test_the_pieces_of_a_text_concatenate_to_it(text: str) -> None:
    assert b"".join(map(GPT2.piece, GPT2.encode(text))).decode() == text


@given(st.text(st.sampled_from(" \n\t\r\u00a0\u3000\x1c\x1f\x85\u200ba7!'s")))
def test_cutting_long_white_space_changes_no_token(text: str) -> None:
    whole = tokens._gpt2().encode(text, disallowed_special=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_LONG_RUN", 1)
        assert Gpt2().encode(text) == whole


@pytest.mark.parametrize("character", [" ", "\n", "\u00a0", "a", "7", "!", "'", "漢"])
@pytest.mark.parametrize("end", ["", "b", "\n b"])
def test_a_million_times_one_character_has_tokens(character: str, end: str) -> None:
    text = character * 300_000 * (3 if character.isspace() else 1) + end
    assert b"".join(map(Gpt2().piece, Gpt2().encode(text))).decode() == text


def test_every_id_has_different_bytes() -> None:
    pieces = {GPT2.piece(id) for id in range(50257)}
    assert len(pieces) == 50257
    assert b"" not in pieces


def test_the_first_256_ids_are_the_single_bytes() -> None:
    assert {GPT2.piece(id) for id in range(256)} == {bytes([byte]) for byte in range(256)}


def test_344_ids_are_not_valid_utf8_alone() -> None:
    assert sum(not is_utf8(GPT2.piece(id)) for id in range(50257)) == 344


def test_an_id_outside_the_vocabulary_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        GPT2.piece(50257)


def test_a_modified_vocabulary_file_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_ENCODER_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="not GPT-2's vocabulary"):
        tokens._gpt2.__wrapped__()


# ----------------------------------------------------------------------------------------- letters and mere ids


def test_letters_are_numbered_from_0() -> None:
    assert NANO_LETTERS.encode("CBABBC") == [2, 1, 0, 1, 1, 2]


@given(st.text("ABC"))
def test_letters_round_trip(text: str) -> None:
    assert b"".join(map(NANO_LETTERS.piece, NANO_LETTERS.encode(text))).decode() == text


@pytest.mark.parametrize("text", ["D", "AbC", "A B", "ABCÄ"])
def test_the_error_for_another_letter_lists_the_letters(text: str) -> None:
    wrong = next(letter for letter in text if letter not in "ABC")
    with pytest.raises(TextError, match=f"^{wrong!r} is not allowed: must be one of A, B, C"):
        NANO_LETTERS.encode(text)


def test_an_ids_vocabulary_has_no_text() -> None:
    assert Ids(100).piece(7) == b""
    with pytest.raises(TextError, match='send "tokens"'):
        Ids(100).encode("text")


@pytest.mark.parametrize(
    ("config", "sorts", "kind", "size"),
    [
        (CONFIGS["nano-gpt"], True, Letters, 3),
        (CONFIGS["gpt3-175b"], False, Gpt2, 50257),
        (Config(n_layer=1), False, Gpt2, 50257),
        (Config(vocab_size=50304), False, Gpt2, 50304),
        (Config(vocab_size=50258), False, Ids, 50258),
        (Config(vocab_size=3), False, Ids, 3),
    ],
    ids=["nano-gpt", "gpt3-175b", "GPT-2's size", "padded", "one more", "three"],
)
def test_the_vocabulary_depends_on_the_configuration(config: Config, sorts: bool, kind: type, size: int) -> None:
    found = tokens.of(config, "ABC" if sorts else "")
    assert type(found) is kind
    assert found.size == size


def tokenizer(folder: Path, vocab: dict[str, int], **fields: Any) -> Path:
    content = {"model": {"type": "BPE", "vocab": vocab}, "pre_tokenizer": {"type": "ByteLevel"}} | fields
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("size", [50257, 50258, 50304])
def test_a_checkpoint_with_gpt2s_tokenizer_takes_text_even_if_padded(tmp_path: Path, size: int) -> None:
    gpt2s = json.loads(tokens._encoder_file())
    found = tokens.of_checkpoint(Config(vocab_size=size), tokenizer(tmp_path, gpt2s))
    assert (found.kind, found.size, found.encode("Hello world")) == ("gpt2", size, [15496, 995])
    assert [found.piece(id) for id in range(50257, size)] == [b""] * (size - 50257)


@pytest.mark.parametrize(
    "fields", [{}, {"normalizer": {"type": "NFC"}}, {"pre_tokenizer": None}, {"model": 1}], ids=str
)
def test_a_checkpoint_with_another_tokenizer_takes_no_text(tmp_path: Path, fields: dict[str, Any]) -> None:
    vocab = json.loads(tokens._encoder_file())
    if not fields:
        vocab["!"], vocab['"'] = vocab['"'], vocab["!"]
    found = tokens.of_checkpoint(Config(), tokenizer(tmp_path, vocab, **fields))
    assert (found.kind, found.size, found.piece(5)) == ("ids", 50257, b"")
    with pytest.raises(TextError, match=r"its tokenizer.json is not GPT-2's: send"):
        found.encode("Hello")


def test_a_checkpoint_without_a_tokenizer_has_its_familys_vocabulary(tmp_path: Path) -> None:
    assert tokens.of_checkpoint(Config(), tmp_path).kind == "gpt2"
    assert tokens.of_checkpoint(Config(vocab_size=17), tmp_path).kind == "ids"
