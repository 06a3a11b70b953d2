"""Tokenizers of several kinds, compared with the tokenizers package and transformers on a thousand odd strings."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers

import worker.models.tokens as tokens
from tests.tokenizers import KINDS, odd_strings, write_tokenizer
from worker.families.gpt2 import GPT2Config as Config
from worker.models.tokens import Vocabulary

STRINGS = odd_strings()
SIZE = 1000  # of the models: more than any of these tokenizers has


@pytest.fixture(params=KINDS, scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tokenizer(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> Vocabulary:
    return tokens.of_checkpoint(Config(vocab_size=SIZE), folder)


@pytest.fixture(scope="module")
def library(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer in the package tokenizers, which neither truncates nor pads."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def text_of(vocabulary: Vocabulary, ids: list[int]) -> str:
    """Return the joined pieces of tokens, without special tokens."""
    pieces = zip(ids, vocabulary.pieces(ids), strict=True)
    return b"".join(piece for id, piece in pieces if not vocabulary.is_special(id)).decode(errors="replace")


def test_the_strings_are_a_thousand_and_odd() -> None:
    assert len(STRINGS) == len(set(STRINGS)) == 1000
    together = "".join(STRINGS)
    assert all(part in together for part in ("🙂", "\u0301", "漢", "ש", "\x00", " " * 300, "7", "</s>", "<0xE2>"))


def test_tokens_and_text_are_those_of_the_tokenizers_package(vocabulary: Vocabulary, library: Any) -> None:
    assert (vocabulary.kind, vocabulary.size) == ("tokenizer.json", SIZE)
    for text in STRINGS:
        for add in (True, False):
            ids = library.encode(text, add_special_tokens=add).ids
            assert vocabulary.encode(text, add_special_tokens=add) == ids, text
        assert text_of(vocabulary, ids) == library.decode(ids), text


def test_tokens_and_text_are_those_of_transformers(folder: Path, vocabulary: Vocabulary) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: make peer")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert {id for id in range(SIZE) if vocabulary.is_special(id)} >= set(theirs.all_special_ids)
    for add in (True, False):
        found = theirs(STRINGS, add_special_tokens=add)["input_ids"]
        decoded = theirs.batch_decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for text, ids, again in zip(STRINGS, found, decoded, strict=True):
            assert vocabulary.encode(text, add_special_tokens=add) == ids, text
            assert text_of(vocabulary, ids) == again, text


def test_text_of_any_tokens_is_that_of_the_tokenizers_package(vocabulary: Vocabulary, library: Any) -> None:
    chosen, size = random.Random(3), library.get_vocab_size()  # noqa: S311
    whole = [id for id in range(size) if not library.id_to_token(id).startswith("<0x")]  # not single bytes
    for _ in range(300):
        ids = chosen.choices(whole, k=8)
        assert text_of(vocabulary, ids) == library.decode(ids), ids


def test_ids_beyond_the_tokenizer_have_no_text(vocabulary: Vocabulary, library: Any) -> None:
    beyond = range(library.get_vocab_size(), SIZE)
    assert {vocabulary.piece(id) for id in beyond} == {b""}
    assert not any(map(vocabulary.is_special, beyond))
