"""Vocabularies: text to tokens and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import worker.models.byte_pairs as byte_pairs
import worker.models.tokenizer as tokenizers
from worker.describe.config import Config
from worker.families.registry import describe, family_of
from worker.models.tokenizer import TOKENIZER, Description, Source, TokenizerError


class TextError(ValueError):
    """Text or messages that a model has no tokens for."""


class Vocabulary:
    """A model's vocabulary. `kind` is letters, gpt2, tokenizer.json or ids (no text)."""

    kind: str
    size: int
    problem = ""  # why the checkpoint's tokenizer cannot be used, if it cannot

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the tokens of a text, with those that its tokenizer adds. Raises TextError if it has none."""
        raise NotImplementedError

    def chat(self, messages: Sequence[Any], *, add_special_tokens: bool = False, max_bytes: int) -> list[int]:
        """Return the tokens of a conversation, up to the model's reply. Raises TextError without a chat template."""
        raise TextError('This model has no chat template: send "text" or "tokens".')

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token within a text, which may not be valid UTF-8 alone; empty if it has no text."""
        raise NotImplementedError

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token of a text; without special tokens, they are the text."""
        return [self.piece(token) for token in tokens]

    def is_special(self, token: int) -> bool:
        """Return whether a token is special, such as the end of a text."""
        return False


class Letters(Vocabulary):
    """One token per letter."""

    kind = "letters"

    def __init__(self, letters: str) -> None:
        self.letters, self.size = letters, len(letters)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        unknown = next((letter for letter in text if letter not in self.letters), None)
        if unknown is not None:
            raise TextError(f"{unknown!r} is not allowed: must be one of {', '.join(self.letters)}.")
        return [self.letters.index(letter) for letter in text]

    def piece(self, token: int) -> bytes:
        return self.letters[token].encode()


class Gpt2(Vocabulary):
    """GPT-2's 50,257 byte-pair tokens (Radford et al. 2019); special tokens in a text are plain text."""

    kind = "gpt2"

    def __init__(self, size: int = byte_pairs.SIZE, source: Source | None = None) -> None:
        self.size = size  # at least 50,257; further ids are padding and have no text
        self.source = source  # a checkpoint's tokenizer, which may have a chat template

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return byte_pairs.encode(text)

    def chat(self, messages: Sequence[Any], *, add_special_tokens: bool = False, max_bytes: int) -> list[int]:
        if self.source is None:
            return super().chat(messages, add_special_tokens=add_special_tokens, max_bytes=max_bytes)
        return _chat(self.source, messages, add_special_tokens, max_bytes)

    def piece(self, token: int) -> bytes:
        return b"" if byte_pairs.SIZE <= token < self.size else byte_pairs.encoding().decode_single_token_bytes(token)

    def is_special(self, token: int) -> bool:
        return token == byte_pairs.SIZE - 1


class Tokenizer(Vocabulary):
    """The tokens of a checkpoint's tokenizer.json; special tokens in a text are treated as it says."""

    kind = TOKENIZER

    def __init__(self, size: int, source: Source, description: Description) -> None:
        self.size, self.source, self.description = size, source, description

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        try:
            return tokenizers.encode(self.source, text, add_special_tokens)
        except TokenizerError as error:
            raise TextError(f"The text cannot be tokenized: {error}.") from None

    def chat(self, messages: Sequence[Any], *, add_special_tokens: bool = False, max_bytes: int) -> list[int]:
        return _chat(self.source, messages, add_special_tokens, max_bytes)

    def piece(self, token: int) -> bytes:
        return self.description.pieces[token]

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        pieces = [self.piece(token) for token in tokens]
        first = next((n for n, token in enumerate(tokens) if not self.is_special(token)), None)
        if first is not None:
            pieces[first] = self.description.first_pieces[tokens[first]]
        return pieces

    def is_special(self, token: int) -> bool:
        return token in self.description.special


def _chat(source: Source, messages: Sequence[Any], add_special_tokens: bool, max_bytes: int) -> list[int]:
    try:
        return tokenizers.chat(source, messages, add_special_tokens, max_bytes)
    except TokenizerError as error:
        raise TextError(f"The messages cannot be rendered: {error}.") from None


class Ids(Vocabulary):
    """A vocabulary of which only the size is known."""

    kind = "ids"

    def __init__(self, size: int, reason: str = "This model has no text vocabulary", problem: str = "") -> None:
        self.size, self.reason, self.problem = size, reason, problem

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        raise TextError(f'{self.reason}: send "tokens", a list of ids.')

    def chat(self, messages: Sequence[Any], *, add_special_tokens: bool = False, max_bytes: int) -> list[int]:
        return self.encode("")

    def piece(self, token: int) -> bytes:
        return b""


def of(config: Config, letters: str = "") -> Vocabulary:
    """Return the vocabulary of a configuration: these letters, or its family's."""
    if letters:
        return Letters(letters)
    size = _size(config)
    return Gpt2(size) if family_of(config).vocabulary(config) == Gpt2.kind else Ids(size)


def of_checkpoint(config: Config, folder: Path | None) -> Vocabulary:
    """Return the vocabulary of a checkpoint: that of its tokenizer.json or, without one, its family's."""
    source = None if folder is None else Source.find(folder)
    if source is None:
        found = of(config)
        return Ids(found.size, f"This checkpoint has no {TOKENIZER}") if isinstance(found, Ids) else found
    size = _size(config)
    try:
        description = tokenizers.describe(source)
    except TokenizerError as error:
        return _unusable(size, f"{TOKENIZER} cannot be used: {error}")
    least = byte_pairs.SIZE if description.kind == Gpt2.kind else description.size
    if least > size:
        return _unusable(size, f"{TOKENIZER} has {least:,} tokens, and the model has only {size:,}")
    if description.kind == Gpt2.kind:
        return Gpt2(size, source)
    return Tokenizer(size, source, description)


def _unusable(size: int, why: str) -> Ids:
    problem = f"Its {why}. The model takes tokens, and no text."
    return Ids(size, f"This checkpoint takes no text, because its {why}", problem)


def _size(config: Config) -> int:
    return describe(config).fixed_sizes["V"]
