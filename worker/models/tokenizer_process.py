"""The process that reads a checkpoint's tokenizer: `python -m worker.models.tokenizer_process`.

It answers questions from a pipe, as JSON, until the pipe is closed. Its memory and the time of each answer are limited;
beyond a limit it ends, and so do the files of a checkpoint that make it crash.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import orjson

import worker.models.byte_pairs as byte_pairs
import worker.models.chat as chat
from worker.models.chat import ChatError
from worker.models.pieces import piece_tables
from worker.weights.folder import LFS_POINTER, FileError, Folder

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
MAX_BYTES = 64 << 20  # of a tokenizer.json: Gemma's takes 33 MB
_MAX_ID = 10_000_000
_MAX_REASON = 500  # characters

Answer = tuple[dict[str, Any], list[bytes]]  # and binary parts


class CheckpointTokenizer:
    """The tokenizer of a checkpoint in a folder of `models_dir`."""

    def __init__(self, name: str, models_dir: str) -> None:
        self.folder = Folder(name, models_dir)

    def describe(self) -> Answer:
        """Return the kind, the special tokens, the tables of pieces, and the size of vocabulary that a model needs.

        The last added tokens do not count unless each text has them: models of text can lack those for images.
        """
        tokenizer = self.tokenizer
        vocab, parts = tokenizer.get_vocab(with_added_tokens=True), _parts(tokenizer)
        if byte_pairs.are_in(vocab, parts):
            return {"kind": "gpt2"}, []
        largest = max(vocab.values(), default=-1)
        if largest >= _MAX_ID:
            raise FileError(f"it has the token {largest}, and ids must be below {_MAX_ID:,}")
        tokens: list[str | None] = [None] * (largest + 1)
        for token, id in vocab.items():
            tokens[id] = token
        added = tokenizer.get_added_tokens_decoder()
        special = [id for id, token in added.items() if token.special]
        in_any_text = [*(id for id in vocab.values() if id not in added), *tokenizer.encode("").ids]
        tables = piece_tables(tokens, parts["decoder"], tokenizer.decoder)
        content = [part for table in tables for part in (table.content, table.ends)]
        return {"kind": TOKENIZER, "size": max(in_any_text, default=-1) + 1, "special": special}, content

    def encode(self, text: str, add_special_tokens: bool) -> Answer:
        """Return the tokens of a text."""
        return {"tokens": self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}, []

    def chat(self, messages: list[dict[str, Any]], add_special_tokens: bool, max_bytes: int) -> Answer:
        """Return the tokens of a conversation. Raises ChatError."""
        template, variables = self.template
        return self.encode(chat.render(template, messages, variables, max_bytes), add_special_tokens)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; it neither truncates nor pads, and is not random."""
        from tokenizers import Tokenizer
        from tokenizers.models import BPE

        path = self.folder.require(TOKENIZER)
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"it is larger than {MAX_BYTES:,} bytes")
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise FileError("it is a Git LFS pointer, not the file: run git lfs pull")
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if isinstance(tokenizer.model, BPE):
            tokenizer.model.dropout = None
        named = chat.special_tokens(self.config).values()  # as in transformers: these are special
        added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
        known = [added.get(token, token) for token in named if tokenizer.token_to_id(token) is not None]
        tokenizer.add_special_tokens(known)
        return tokenizer

    @cached_property
    def config(self) -> dict[str, Any]:
        return chat.read_config(self.folder)

    @cached_property
    def template(self) -> tuple[Template, Mapping[str, str]]:
        return chat.compiled(chat.read_template(self.folder, self.config)), chat.special_tokens(self.config)


def _parts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what tokenizer.json has of a tokenizer, but for its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    empty = Tokenizer(BPE())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(tokenizer, part) is not None:
            setattr(empty, part, getattr(tokenizer, part))
    parts: dict[str, Any] = orjson.loads(empty.to_str())
    return parts


def answer(tokenizer: Callable[[], CheckpointTokenizer], question: dict[str, Any]) -> Answer:
    """Return the answer to a question, `operation` with its arguments; {"error": why} if it has none."""
    try:
        operation = getattr(tokenizer(), question.pop("operation"))
        found: Answer = operation(**question)
        return found
    except (ChatError, FileError) as error:
        return {"error": _shortened(str(error))}, []
    except OSError as error:
        return {"error": f"it cannot be read ({error.strerror})"}, []
    except MemoryError:
        raise
    except BaseException as error:  # tokenizers' panics are no Exceptions
        return {"error": _shortened(f"{type(error).__name__}: {' '.join(str(error).split())}")}, []


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 1]}…"


def main(descriptor: str, name: str, models_dir: str, seconds: str, nbytes: str) -> None:
    """Answer the questions from a pipe about one checkpoint.

    Each may take `seconds` of processor time, and all `nbytes` of memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere libraries alone may map more
        resource.setrlimit(resource.RLIMIT_AS, (int(nbytes), int(nbytes)))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    opened: list[CheckpointTokenizer] = []

    def tokenizer() -> CheckpointTokenizer:
        if not opened:
            opened.append(CheckpointTokenizer(name, models_dir))
        return opened[0]

    with Connection(int(descriptor)) as pipe:
        while True:
            try:
                question = orjson.loads(pipe.recv_bytes())
            except EOFError:
                return
            # Nothing handles the timer's signal, which ends the process whatever it does.
            signal.setitimer(signal.ITIMER_PROF, float(seconds))
            found, parts = answer(tokenizer, question)
            pipe.send_bytes(orjson.dumps(found | {"parts": len(parts)}))
            for part in parts:
                pipe.send_bytes(part)
            signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
