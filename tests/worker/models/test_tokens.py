"""Vocabularies of configurations: nano-gpt's letters, GPT-2's byte pairs, and ids without text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import worker.models.tokens as tokens
from tests.gpt2 import CONFIGS
from worker.families.gpt2 import GPT2Config as Config
from worker.models.tokens import Gpt2, Ids, Letters, TextError

NANO_LETTERS = Letters("ABC")


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


@pytest.mark.parametrize("vocabulary", [NANO_LETTERS, Gpt2()], ids=["letters", "gpt2"])
def test_letters_and_gpt2_add_no_special_tokens(vocabulary: Letters | Gpt2) -> None:
    for add in (True, False):
        ids = vocabulary.encode("ABC", add_special_tokens=add)
        assert b"".join(vocabulary.pieces(ids)) == b"ABC"
        assert not any(map(vocabulary.is_special, ids))


@pytest.mark.parametrize("vocabulary", [NANO_LETTERS, Gpt2()], ids=["letters", "gpt2"])
def test_models_without_a_checkpoint_have_no_chat_template(vocabulary: Letters | Gpt2) -> None:
    with pytest.raises(TextError, match=r"^This model has no chat template: send"):
        vocabulary.chat([{"role": "user", "content": "A"}], max_bytes=100)
