"""GPT-2's byte pairs: tokens of any text, and the bytes of each."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker.models.byte_pairs as byte_pairs
from worker.models.tokens import Gpt2

GPT2 = Gpt2()


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


def test_the_last_id_is_the_end_of_text_the_only_special_token() -> None:
    assert GPT2.piece(50256) == b"<|endoftext|>"
    assert [id for id in range(50257) if GPT2.is_special(id)] == [50256]


@settings(max_examples=150)
@given(st.text())
def test_the_pieces_of_a_text_concatenate_to_it(text: str) -> None:
    assert b"".join(map(GPT2.piece, GPT2.encode(text))).decode() == text


@given(st.text(st.sampled_from(" \n\t\r\u00a0\u3000\x1c\x1f\x85\u200ba7!'s")))
def test_cutting_long_white_space_changes_no_token(text: str) -> None:
    whole = byte_pairs.encoding().encode(text, disallowed_special=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_pairs, "_LONG_RUN", 1)
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
    monkeypatch.setattr(byte_pairs, "_ENCODER_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="not GPT-2's vocabulary"):
        byte_pairs.encoding.__wrapped__()
