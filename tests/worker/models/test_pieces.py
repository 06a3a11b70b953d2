"""The pieces of tokens, by the decoders that tokenizers have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from worker.models.pieces import PieceTable, piece_tables

#: Decoders, each with tokens, their pieces within a text, and at its beginning.
CASES: dict[str, tuple[Any, list[str], list[str], list[str]]] = {
    "none": (None, ["a", "b"], [" a", " b"], ["a", "b"]),
    "Metaspace": (decoders.Metaspace(), ["▁a", "b", "▁"], [" a", "b", " "], ["a", "b", ""]),
    "Metaspace that never prepends": (
        decoders.Metaspace(prepend_scheme="never"),
        ["▁a", "b"],
        [" a", "b"],
        [" a", "b"],
    ),
    "WordPiece": (decoders.WordPiece(), ["a", "##b", ".", "'s"], [" a", "b", ".", "'s"], ["a", "##b", ".", "'s"]),
    "WordPiece without cleanup": (decoders.WordPiece(cleanup=False), ["a", "."], [" a", " ."], ["a", "."]),
    "BPEDecoder": (decoders.BPEDecoder(), ["a</w>", "b"], ["a ", "b"], ["a ", "b"]),
    "Replace, Strip": (
        decoders.Sequence([decoders.Replace("_", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        ["_a", "__", "b"],
        [" a", "  ", "b"],
        ["a", " ", "b"],
    ),
    "ByteFallback": (decoders.Sequence([decoders.ByteFallback()]), ["<0x41>", "a"], ["A", "a"], ["A", "a"]),
    "private": (decoders.Replace("_", " "), ["\ue000", "_a"], ["\ue000", " a"], ["\ue000", " a"]),
}


@pytest.mark.parametrize(("decoder", "tokens", "within", "first"), CASES.values(), ids=CASES)
def test_pieces_are_what_the_decoder_makes_of_tokens(
    decoder: Any, tokens: list[str], within: list[str], first: list[str]
) -> None:
    form = None if decoder is None else json.loads(decoder.__getstate__())
    tables = piece_tables([*tokens, None], form, decoder)
    assert [tables[0][n].decode() for n in range(len(tokens) + 1)] == [*within, ""]
    assert [tables[-1][n].decode() for n in range(len(tokens) + 1)] == [*first, ""]


def test_single_bytes_are_bytes_and_others_are_text() -> None:
    [table] = piece_tables(["<0xE2>", "<0xe2>", "<0xZZ>", "<0xE2"], {"type": "ByteFallback"}, decoders.ByteFallback())
    assert [table[n] for n in range(4)] == [b"\xe2", b"\xe2", b"<0xZZ>", b"<0xE2"]


def test_byte_level_tokens_are_their_bytes_and_other_tokens_are_text() -> None:
    [table] = piece_tables(["Ġa", "â", "<｜end▁of▁text｜>", ""], {"type": "ByteLevel"}, decoders.ByteLevel())
    assert [table[n] for n in range(4)] == [b" a", b"\xe2", "<｜end▁of▁text｜>".encode(), b""]


@given(st.lists(st.binary(max_size=5)))
def test_a_table_holds_the_pieces(pieces: list[bytes]) -> None:
    table = PieceTable.of(pieces)
    assert [table[n] for n in range(len(pieces))] == pieces
    assert (table[len(pieces)], table[-1]) == (b"", b"")
