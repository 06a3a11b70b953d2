"""The bytes of tokens: what each adds to a text.

A table holds them for a whole vocabulary in a few megabytes. Joined, the pieces of a text's tokens are the text as the
tokenizer decodes it; a piece alone may be incomplete UTF-8.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, Self

from worker.models.byte_pairs import byte_of

_AT_THE_BEGINNING = {"Metaspace", "Strip", "WordPiece"}  # decoders that treat the first token differently
_CUT = "\ue000\ue001"  # characters for private use; its beginning is not its end
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")  # SentencePiece's tokens of single bytes


@dataclass(frozen=True)
class PieceTable:
    """The bytes of each token, by id; ids without text have none."""

    content: bytes
    ends: bytes  # where each piece ends in `content`, as unsigned integers of 8 bytes

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> Self:
        pieces = list(pieces)
        return cls(b"".join(pieces), array("Q", accumulate(map(len, pieces))).tobytes())

    def __getitem__(self, token: int) -> bytes:
        ends = memoryview(self.ends).cast("Q")
        if not 0 <= token < len(ends):
            return b""
        return self.content[ends[token - 1] if token else 0 : ends[token]]


class Decoder(Protocol):
    """The part of a tokenizer that makes text from tokens, as in the tokenizers package."""

    def decode(self, tokens: list[str], /) -> str: ...


def piece_tables(tokens: list[str | None], form: Mapping[str, Any] | None, decoder: Decoder | None) -> list[PieceTable]:
    """Return the pieces of a vocabulary within a text and, if any differ, at its beginning.

    `form` is the decoder's in tokenizer.json; None: tokens are words, between spaces.
    """
    words, kinds = [token or "" for token in tokens], set(_kinds(form))
    if form is None or decoder is None:
        spaced = (f" {word}" if word else "" for word in words)
        return [PieceTable.of(map(str.encode, spaced)), PieceTable.of(map(str.encode, words))]
    if "ByteLevel" in kinds:
        return [PieceTable.of(map(_byte_level(), words))]
    texts = [_within(decoder, words)]
    if kinds & _AT_THE_BEGINNING:
        texts.append(_first(decoder, words))
    return [PieceTable.of(_pieces(words, text, "ByteFallback" in kinds)) for text in texts]


def _pieces(tokens: list[str], texts: list[str], byte_fallback: bool) -> Iterator[bytes]:
    for token, text in zip(tokens, texts, strict=True):
        byte = _BYTE.fullmatch(token) if byte_fallback else None
        yield bytes.fromhex(byte[1]) if byte else text.encode() if token else b""


def _kinds(form: Any) -> Iterable[str]:
    """Yield the types of a decoder and of its parts."""
    if isinstance(form, dict):
        yield str(form.get("type"))
        for part in form.get("decoders") or ():
            yield from _kinds(part)


def _byte_level() -> Callable[[str], bytes]:
    """Return the function from a byte-level token to its bytes; a token with other characters is text."""
    byte = byte_of()

    def piece(token: str) -> bytes:
        try:
            return bytes(byte[character] for character in token)
        except KeyError:
            return token.encode()

    return piece


def _within(decoder: Decoder, tokens: list[str]) -> list[str]:
    """Return the text of each token between two others."""
    cut = _CUT
    while any(cut in token for token in tokens):
        cut += _CUT[-1]
    start = decoder.decode([cut])
    between = decoder.decode([cut, cut]).removeprefix(start)  # a space may come before it
    whole = decoder.decode([cut, *(part for token in tokens for part in (token, cut))])
    texts = whole.removeprefix(start).split(between)[:-1]
    return texts if len(texts) == len(tokens) else tokens


def _first(decoder: Decoder, tokens: list[str]) -> list[str]:
    """Return the text of each token as the first of several."""
    end = decoder.decode(["a", "a"]).removeprefix(decoder.decode(["a"]))
    return [decoder.decode([token, "a"]).removesuffix(end) for token in tokens]
